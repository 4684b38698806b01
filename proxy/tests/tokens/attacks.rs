//! One table of tokens, each named for what it tries, judged twice: by the verifier alone, and by a real sidecar before an
//! application that counts what reaches it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, Method, header};
use outrigger_mesh::TokenNeed;
use outrigger_proxy::token::known::Known;
use outrigger_proxy::token::{Fault, cache, gate, verify};
use outrigger_testkit::{Client, Origin, request};
use serde_json::{Value, json};

use crate::mint::{AUD, ISS, Mint, claims, now};
use crate::support::Mesh;
use crate::{accepted, issuer, login, pair, rules};

/// What is to become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Passes,
    Missing,
    Invalid,
    Expired,
    NoKeys,
}

impl End {
    fn of(status: u16, reason: Option<&str>) -> Option<Self> {
        Some(match (status, reason) {
            (200, None) => Self::Passes,
            (401, Some("authn_missing")) => Self::Missing,
            (401, Some("jwt_invalid")) => Self::Invalid,
            (401, Some("jwt_expired")) => Self::Expired,
            (503, Some("jwt_keys_unavailable")) => Self::NoKeys,
            _ => return None,
        })
    }
}

struct Case {
    id: &'static str,
    lines: Vec<String>,
    end: End,
}

/// Everything that is tried.
struct Table(Vec<Case>);

impl Table {
    fn lines(&mut self, id: &'static str, lines: Vec<String>, end: End) {
        self.0.push(Case { id, lines, end });
    }

    fn bearer(&mut self, id: &'static str, token: impl std::fmt::Display, end: End) {
        self.lines(id, vec![format!("Bearer {token}")], end);
    }

    /// A token that is good but for this claim.
    fn claim(&mut self, mint: &Mint, id: &'static str, other: Value, end: End) {
        self.bearer(id, mint.token(&claims(other)), end);
    }

    /// A token with this header, signed by the key of P-256.
    fn header(&mut self, mint: &Mint, id: &'static str, header: &Value, end: End) {
        self.bearer(id, mint.raw(&header.to_string(), &claims(json!({})).to_string()), end);
    }

    fn of(mint: &Mint) -> Self {
        let mut table = Self(vec![]);
        algorithms(&mut table, mint);
        headers(&mut table, mint);
        keys(&mut table, mint);
        forms(&mut table, mint);
        times(&mut table, mint);
        parties(&mut table, mint);
        fields(&mut table, mint);
        table
    }
}

fn algorithms(table: &mut Table, mint: &Mint) {
    let good = claims(json!({})).to_string();
    table.bearer("alg-es256-good", mint.token(&claims(json!({}))), End::Passes);
    let signed = |kid: &str, alg: &str, named: &str| {
        mint.raw_with(kid, alg, &json!({"alg": alg, "kid": named}).to_string(), &good)
    };
    table.bearer("alg-eddsa-good", signed("ed", "EdDSA", "ed"), End::Passes);
    table.bearer("alg-rs256-good", signed("rsa", "RS256", "rsa"), End::Passes);
    table.bearer("alg-ps256-with-a-key-for-rs256-only", signed("rsa", "PS256", "rsa"), End::Invalid);
    table.bearer("alg-rs384-with-a-key-for-rs256-only", signed("rsa", "RS384", "rsa"), End::Invalid);
    table.bearer("alg-eddsa-named-with-the-key-of-p256", signed("ed", "EdDSA", "ec"), End::Invalid);
    table.bearer("alg-es256-named-with-the-key-of-ed25519", signed("ec", "ES256", "ed"), End::Invalid);
    table.bearer("alg-rs256-named-with-the-key-of-p256", signed("rsa", "RS256", "ec"), End::Invalid);
    for (id, word) in [
        ("alg-none", "none"),
        ("alg-none-title", "None"),
        ("alg-none-upper", "NONE"),
        ("alg-none-mixed", "nOnE"),
        ("alg-none-blank", "none "),
        ("alg-empty", ""),
        ("alg-hs256", "HS256"),
        ("alg-hs384", "HS384"),
        ("alg-hs512", "HS512"),
        ("alg-lower-case", "es256"),
        ("alg-es512", "ES512"),
        ("alg-es256k", "ES256K"),
        ("alg-nul", "ES256\0"),
    ] {
        table.header(mint, id, &json!({"alg": word, "kid": "ec"}), End::Invalid);
    }
    let head = |alg: &str| URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": "ec"}).to_string());
    let body = URL_SAFE_NO_PAD.encode(&good);
    table.bearer("alg-none-without-a-signature", format!("{}.{body}.", head("none")), End::Invalid);
    table.bearer("alg-none-in-two-segments", format!("{}.{body}", head("none")), End::Invalid);
    table.bearer("alg-es256-without-a-signature", format!("{}.{body}.", head("ES256")), End::Invalid);
    // The public key as a secret of HMAC: the attack on libraries that take the algorithm from the token.
    let secret = aws_lc_rs::hmac::Key::new(
        aws_lc_rs::hmac::HMAC_SHA256,
        aws_lc_rs::signature::KeyPair::public_key(&mint.ec).as_ref(),
    );
    let text = format!("{}.{body}", head("HS256"));
    let mac = URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&secret, text.as_bytes()));
    table.bearer("alg-hs256-with-the-public-key", format!("{text}.{mac}"), End::Invalid);
    table.header(mint, "alg-missing", &json!({"kid": "ec"}), End::Invalid);
    table.header(mint, "alg-is-a-number", &json!({"alg": 256, "kid": "ec"}), End::Invalid);
    table.header(mint, "alg-is-a-list", &json!({"alg": ["ES256"], "kid": "ec"}), End::Invalid);
    table.header(mint, "alg-is-null", &json!({"alg": null, "kid": "ec"}), End::Invalid);
}

fn headers(table: &mut Table, mint: &Mint) {
    let with = |name: &str, value: Value| {
        let mut header = json!({"alg": "ES256", "kid": "ec"});
        header[name] = value;
        header
    };
    table.header(mint, "crit-unknown", &with("crit", json!(["exp2"])), End::Invalid);
    table.header(mint, "crit-empty", &with("crit", json!([])), End::Invalid);
    table.header(mint, "crit-known-name", &with("crit", json!(["b64"])), End::Invalid);
    table.header(mint, "b64-false", &with("b64", json!(false)), End::Invalid);
    table.header(mint, "b64-as-text", &with("b64", json!("false")), End::Invalid);
    table.header(mint, "zip-bomb-announced", &with("zip", json!("DEF")), End::Invalid);
    table.header(mint, "enc-says-it-is-encrypted", &with("enc", json!("A256GCM")), End::Invalid);
    table.header(mint, "typ-is-a-number", &with("typ", json!(7)), End::Invalid);
    table.header(mint, "typ-at-jwt", &with("typ", json!("at+jwt")), End::Passes);
    table.header(mint, "typ-missing", &json!({"alg": "ES256", "kid": "ec"}), End::Passes);
    // Where keys are is not the token's to say: looked at by nobody, so that the real key decides.
    table.header(mint, "jku-is-not-followed", &with("jku", json!("http://127.0.0.1:1/keys")), End::Passes);
    table.header(mint, "x5u-is-not-followed", &with("x5u", json!("http://169.254.169.254/")), End::Passes);
    table.header(mint, "x5c-is-not-believed", &with("x5c", json!(["AAAA"])), End::Passes);
    let other = Mint::new();
    let point = aws_lc_rs::signature::KeyPair::public_key(&other.ec).as_ref().to_vec();
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(&point[1..33]),
        "y": URL_SAFE_NO_PAD.encode(&point[33..])});
    let good = claims(json!({})).to_string();
    table.bearer("jwk-of-its-own-key", other.raw(&with("jwk", jwk.clone()).to_string(), &good), End::Invalid);
    let unnamed = json!({"alg": "ES256", "jwk": jwk}).to_string();
    table.bearer("jwk-of-its-own-key-without-kid", other.raw(&unnamed, &good), End::Invalid);
    for (id, header) in [
        ("header-alg-twice", r#"{"alg":"ES256","alg":"none","kid":"ec"}"#),
        ("header-alg-twice-the-other-way", r#"{"alg":"none","alg":"ES256","kid":"ec"}"#),
        ("header-alg-twice-by-an-escape", r#"{"alg":"ES256","\u0061lg":"none","kid":"ec"}"#),
        ("header-kid-twice", r#"{"alg":"ES256","kid":"x","kid":"ec"}"#),
        ("header-is-a-list", r#"["ES256"]"#),
        ("header-is-text", r#""ES256""#),
        ("header-with-rubbish-behind", r#"{"alg":"ES256","kid":"ec"}x"#),
        ("header-with-a-comment", r#"{"alg":"ES256",/*x*/"kid":"ec"}"#),
        ("header-with-a-comma-at-its-end", r#"{"alg":"ES256","kid":"ec",}"#),
    ] {
        table.bearer(id, mint.raw(header, &good), End::Invalid);
    }
    let deep = format!(r#"{{"alg":"ES256","kid":"ec","x":{}{}}}"#, "[".repeat(500), "]".repeat(500));
    table.bearer("header-is-deep", mint.raw(&deep, &good), End::Invalid);
    let long = format!(r#"{{"alg":"ES256","kid":"ec","x":"{}"}}"#, "a".repeat(4_000));
    table.bearer("header-is-long", mint.raw(&long, &good), End::Invalid);
}

fn keys(table: &mut Table, mint: &Mint) {
    let kid = |kid: Value| json!({"alg": "ES256", "kid": kid});
    table.header(mint, "kid-missing-one-key-fits", &json!({"alg": "ES256"}), End::Passes);
    for (id, text) in [
        ("kid-unknown", "nobody"),
        ("kid-of-another-family", "rsa"),
        ("kid-empty", ""),
        ("kid-path", "../../../../dev/null"),
        ("kid-absolute-path", "/etc/hostname"),
        ("kid-sql", "ec' UNION SELECT 'x"),
        ("kid-command", "ec; cat /etc/passwd"),
        ("kid-nul", "ec\0"),
        ("kid-blank", "ec "),
        ("kid-upper-case", "EC"),
        ("kid-url", "http://127.0.0.1/keys"),
    ] {
        table.header(mint, id, &kid(json!(text)), End::Invalid);
    }
    table.header(mint, "kid-long", &kid(json!("k".repeat(300))), End::Invalid);
    table.header(mint, "kid-is-a-number", &kid(json!(1)), End::Invalid);
    table.header(mint, "kid-is-a-list", &kid(json!(["ec"])), End::Invalid);
    table.header(mint, "kid-is-null", &kid(Value::Null), End::Invalid);
    let other = Mint::new();
    table.bearer("signed-by-a-stranger", other.token(&claims(json!({}))), End::Invalid);
    let unnamed = json!({"alg": "ES256"}).to_string();
    table.bearer(
        "signed-by-a-stranger-without-kid",
        other.raw(&unnamed, &claims(json!({})).to_string()),
        End::Invalid,
    );
}

fn forms(table: &mut Table, mint: &Mint) {
    let good = mint.token(&claims(json!({})));
    let [head, body, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    table.lines("no-authorization", vec![], End::Missing);
    table.lines("two-lines-of-the-same", vec![format!("Bearer {good}"); 2], End::Invalid);
    table.lines("two-lines-good-first", vec![format!("Bearer {good}"), "Bearer x.y.z".into()], End::Invalid);
    table.lines("two-lines-basic-first", vec!["Basic YTpi".into(), format!("Bearer {good}")], End::Invalid);
    table.lines("a-list-of-two", vec![format!("Bearer {good}, Bearer {good}")], End::Invalid);
    table.lines("basic", vec!["Basic YTpi".into()], End::Missing);
    table.lines("bearer-without-a-token", vec!["Bearer".into()], End::Missing);
    table.lines("bearer-in-lower-case", vec![format!("bearer {good}")], End::Passes);
    table.lines("bearer-and-two-blanks", vec![format!("Bearer  {good}")], End::Invalid);
    table.lines("bearer-and-a-tab", vec![format!("Bearer\t{good}")], End::Missing);
    table.lines("bearer-and-an-equals-sign", vec![format!("Bearer={good}")], End::Missing);
    table.lines("a-blank-within", vec![format!("Bearer {head}. {body}.{signature}")], End::Invalid);
    table.lines("quoted", vec![format!("Bearer \"{good}\"")], End::Invalid);
    table.bearer("one-segment", head, End::Invalid);
    table.bearer("four-segments", format!("{good}.AAAA"), End::Invalid);
    table.bearer("five-segments-as-encrypted", "AAAA.BBBB.CCCC.DDDD.EEEE", End::Invalid);
    table.bearer("an-empty-header", format!(".{body}.{signature}"), End::Invalid);
    table.bearer("empty-claims", format!("{head}..{signature}"), End::Invalid);
    table.bearer("only-dots", "..", End::Invalid);
    table.bearer("padding-of-the-header", format!("{}.{body}.{signature}", URL_SAFE.encode(decode(head))), {
        // Where its length needs none, padding changes nothing.
        if decode(head).len() % 3 == 0 { End::Passes } else { End::Invalid }
    });
    table.bearer("padding-of-the-signature", format!("{good}=="), End::Invalid);
    let standard = STANDARD.encode([0xff; 64]);
    table.bearer("the-alphabet-with-plus-and-slash", format!("{head}.{body}.{standard}"), End::Invalid);
    let mut bits = signature.to_owned();
    let last = bits.pop().unwrap();
    // 64 bytes leave four bits of the last letter over, which must be zero.
    bits.push(if last == 'A' { 'B' } else { char::from(last as u8 + 1) });
    table.bearer("bits-left-over-in-the-signature", format!("{head}.{body}.{bits}"), End::Invalid);
    let mut flipped = decode(signature);
    flipped[7] ^= 1;
    table.bearer(
        "a-flipped-bit",
        format!("{head}.{body}.{}", URL_SAFE_NO_PAD.encode(&flipped)),
        End::Invalid,
    );
    table.bearer(
        "a-cut-signature",
        format!("{head}.{body}.{}", URL_SAFE_NO_PAD.encode(&flipped[..32])),
        End::Invalid,
    );
    table.bearer(
        "a-signature-of-zeros",
        format!("{head}.{body}.{}", URL_SAFE_NO_PAD.encode([0; 64])),
        End::Invalid,
    );
    let changed = URL_SAFE_NO_PAD.encode(claims(json!({"sub": "root"})).to_string());
    table.bearer("other-claims-under-the-signature", format!("{head}.{changed}.{signature}"), End::Invalid);
    let large = mint.token(&claims(json!({"x": "a".repeat(9_000)})));
    table.bearer("larger-than-is-taken", large, End::Invalid);
    table.bearer("rubbish", "!!!", End::Invalid);
}

fn times(table: &mut Table, mint: &Mint) {
    let now = now();
    table.claim(mint, "exp-over", json!({"exp": now - 3_600, "iat": now - 7_200, "nbf": null}), End::Expired);
    table.claim(
        mint,
        "exp-over-by-more-than-the-skew",
        json!({"exp": now - 65, "iat": now - 90, "nbf": null}),
        End::Expired,
    );
    table.claim(
        mint,
        "exp-over-within-the-skew",
        json!({"exp": now - 30, "iat": now - 90, "nbf": null}),
        End::Passes,
    );
    table.claim(mint, "exp-missing", json!({"exp": null}), End::Invalid);
    for (id, exp) in [
        ("exp-as-text", json!((now + 600).to_string())),
        ("exp-true", json!(true)),
        ("exp-a-list", json!([now + 600])),
        ("exp-an-object", json!({"at": now + 600})),
        ("exp-negative", json!(-1)),
        ("exp-huge", json!(1e300)),
    ] {
        table.claim(mint, id, json!({"exp": exp}), End::Invalid);
    }
    table.claim(mint, "exp-with-a-fraction", json!({"exp": now as f64 + 600.5}), End::Passes);
    let null = claims(json!({"exp": now + 600})).to_string().replacen(
        &format!("\"exp\":{}", now + 600),
        "\"exp\":null",
        1,
    );
    table.bearer("exp-is-null", mint.raw(r#"{"alg":"ES256","kid":"ec"}"#, &null), End::Invalid);
    table.claim(mint, "exp-zero", json!({"exp": 0, "iat": null, "nbf": null}), End::Expired);
    table.claim(mint, "lifetime-of-a-year", json!({"exp": now + 31_536_000}), End::Invalid);
    table.claim(
        mint,
        "lifetime-of-a-year-without-iat",
        json!({"exp": now + 31_536_000, "iat": null}),
        End::Invalid,
    );
    table.claim(
        mint,
        "lifetime-hidden-by-an-early-iat",
        json!({"exp": now + 60, "iat": now - 172_800}),
        End::Invalid,
    );
    table.claim(mint, "nbf-to-come", json!({"nbf": now + 300}), End::Invalid);
    table.claim(mint, "nbf-within-the-skew", json!({"nbf": now + 30}), End::Passes);
    table.claim(mint, "nbf-as-text", json!({"nbf": now.to_string()}), End::Invalid);
    table.claim(mint, "iat-to-come", json!({"iat": now + 300}), End::Invalid);
    table.claim(mint, "iat-as-text", json!({"iat": now.to_string()}), End::Invalid);
    table.claim(mint, "iat-behind-exp", json!({"iat": now + 50, "exp": now + 20, "nbf": null}), End::Invalid);
    table.claim(mint, "iat-and-nbf-missing", json!({"iat": null, "nbf": null}), End::Passes);
}

fn parties(table: &mut Table, mint: &Mint) {
    for (id, iss) in [
        ("iss-another", json!("https://evil.example")),
        ("iss-with-a-slash", json!(format!("{ISS}/"))),
        ("iss-in-upper-case", json!(ISS.to_uppercase())),
        ("iss-a-prefix", json!("https://login.exampl")),
        ("iss-longer", json!(format!("{ISS}.evil.example"))),
        ("iss-a-list", json!([ISS])),
        ("iss-a-number", json!(7)),
        ("iss-empty", json!("")),
        ("iss-missing", Value::Null),
    ] {
        table.claim(mint, id, json!({"iss": iss}), End::Invalid);
    }
    for (id, aud, end) in [
        ("aud-another", json!("bank"), End::Invalid),
        ("aud-missing", Value::Null, End::Invalid),
        ("aud-empty", json!(""), End::Invalid),
        ("aud-an-empty-list", json!([]), End::Invalid),
        ("aud-in-a-list", json!(["bank", AUD]), End::Passes),
        ("aud-the-second-that-is-accepted", json!("shop-too"), End::Passes),
        ("aud-a-list-of-others", json!(["bank", "club"]), End::Invalid),
        ("aud-a-list-with-a-number", json!([AUD, 7]), End::Invalid),
        ("aud-a-list-in-a-list", json!([[AUD]]), End::Invalid),
        ("aud-an-object", json!({"shop": true}), End::Invalid),
        ("aud-a-prefix", json!("sho"), End::Invalid),
        ("aud-two-in-one-text", json!("shop bank"), End::Invalid),
        ("aud-in-upper-case", json!("SHOP"), End::Invalid),
    ] {
        table.claim(mint, id, json!({"aud": aud}), end);
    }
    table.claim(
        mint,
        "issuer-whose-keys-were-never-obtained",
        json!({"iss": "https://dark.example"}),
        End::NoKeys,
    );
}

fn fields(table: &mut Table, mint: &Mint) {
    let header = r#"{"alg":"ES256","kid":"ec"}"#;
    let good = claims(json!({})).to_string();
    let with = |more: &str| format!("{{{more},{}", &good[1..]);
    for (id, text) in [
        ("claims-sub-twice", with(r#""sub":"root""#)),
        ("claims-exp-twice", with(r#""exp":1"#)),
        ("claims-aud-twice-by-an-escape", with(r#""\u0061ud":"bank""#)),
        ("claims-twice-deep-inside", with(r#""x":{"y":1,"y":2}"#)),
        ("claims-are-a-list", format!("[{good}]")),
        ("claims-are-text", "\"x\"".into()),
        ("claims-are-null", "null".into()),
        ("claims-with-rubbish-behind", format!("{good}{{}}")),
        ("claims-with-a-byte-order-mark", format!("\u{feff}{good}")),
        ("claims-deep", with(&format!("\"x\":{}{}", "[".repeat(900), "]".repeat(900)))),
        ("claims-with-half-a-surrogate", with(r#""x":"\ud800""#)),
    ] {
        table.bearer(id, mint.raw(header, &text), End::Invalid);
    }
    table.claim(mint, "sub-is-a-number", json!({"sub": 7}), End::Invalid);
    table.claim(mint, "sub-is-a-list", json!({"sub": ["ada"]}), End::Invalid);
    table.claim(mint, "jti-is-an-object", json!({"jti": {"x": 1}}), End::Invalid);
    table.claim(mint, "jti-is-revoked", json!({"jti": "gone"}), End::Invalid);
    table.claim(mint, "sub-is-revoked", json!({"sub": "mallory"}), End::Invalid);
}

/// The keys, an issuer without any, and what is revoked.
fn resources(mint: &Mint) -> Vec<outrigger_mesh::Resource> {
    let dark = "shop/users/dark".parse().unwrap();
    let denied = |jti: Option<&str>, sub: Option<&str>| outrigger_mesh::DeniedToken {
        jti: jti.map(Into::into),
        sub: sub.map(Into::into),
        ..outrigger_mesh::DeniedToken::default()
    };
    let list = outrigger_mesh::Denylist {
        name: "shop/gone".parse().unwrap(),
        tokens: vec![denied(Some("gone"), None), denied(None, Some("mallory"))],
        identities: vec![],
    };
    vec![
        issuer(login(), ISS, mint.keys()),
        issuer(dark, "https://dark.example", vec![]),
        outrigger_mesh::Resource::Denylist(list.checked().unwrap()),
    ]
}

fn wanted() -> outrigger_mesh::TokenRules {
    let mut rules = rules(TokenNeed::Required);
    rules.rules[0].issuers.push(accepted("shop/users/dark".parse().unwrap()));
    rules
}

#[tokio::test]
async fn every_attack_ends_as_its_line_says_and_only_good_tokens_reach_the_application() {
    let (mint, mesh, origin) = (Mint::new(), Mesh::new(), Origin::start().await);
    let (client, server) = pair(&mesh, origin.addr(), Some(wanted()));
    for resource in resources(&mint) {
        server.set(resource);
    }
    let table = Table::of(&mint);
    assert!(table.0.len() >= 100, "{}", table.0.len());
    let mut ids: Vec<_> = table.0.iter().map(|c| c.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), table.0.len(), "each has a name of its own");
    let (mut wrong, mut passed) = (vec![], 0);
    for case in &table.0 {
        let mut asked = request(Method::GET, "cart", "/", "".into());
        for line in &case.lines {
            asked.headers_mut().append(header::AUTHORIZATION, HeaderValue::from_str(line).unwrap());
        }
        let reply = Client::h1(client.outbound).await.send(asked).await.unwrap();
        let end = End::of(reply.status.as_u16(), reply.header("x-outrigger-reason"));
        if end != Some(case.end) {
            wrong.push(format!("{}: {:?}, not {:?}: {}", case.id, reply.status, case.end, reply.text()));
        }
        passed += u64::from(case.end == End::Passes);
        let told = reply.header("www-authenticate");
        match case.end {
            End::Passes | End::NoKeys => assert_eq!(told, None, "{}", case.id),
            End::Missing => assert_eq!(told, Some("Bearer"), "{}", case.id),
            End::Invalid | End::Expired => assert!(told.unwrap().contains("error=\"invalid_"), "{}", case.id),
        }
        // Nothing of a refused token comes back, in no header and no body.
        if case.end != End::Passes {
            let whole = format!("{:?} {}", reply.headers, reply.text());
            for part in case.lines.iter().flat_map(|l| l.split(['.', ' '])).filter(|p| p.len() > 12) {
                assert!(!whole.contains(part), "{}", case.id);
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.0.len(), wrong.join("\n"));
    assert_eq!(origin.requests(), passed, "the application saw the good ones alone");
}

#[test]
fn the_verifier_alone_judges_the_same_table_the_same_way_the_first_time_and_the_second() {
    let (mint, known) = (Mint::new(), Known::default());
    for resource in resources(&mint) {
        match resource {
            outrigger_mesh::Resource::Issuer(issuer) => known.set_issuer(issuer),
            outrigger_mesh::Resource::Denylist(list) => known.set_denylist(list),
            _ => {}
        }
    }
    let rules = wanted();
    let accepted = &rules.rules[0].issuers;
    let judge = |lines: &[String]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::AUTHORIZATION, line.parse().unwrap());
        }
        let Some(token) = gate::bearer(&headers)? else { return Ok(false) };
        let (now, known) = (gate::now(), known.load());
        let names = accepted.iter().map(|a| &a.issuer);
        let proven = cache::prove(&known, names, token, rules.max_bytes as usize, now)?;
        verify::accept(&known, &proven, Some(accepted), now).map(|()| true)
    };
    for case in &Table::of(&mint).0 {
        for again in [false, true] {
            let end = match judge(&case.lines) {
                Ok(true) => End::Passes,
                Ok(false) => End::Missing,
                Err(Fault::Expired) => End::Expired,
                Err(Fault::NoKeys(_)) => End::NoKeys,
                Err(Fault::Form(_) | Fault::Refused(_) | Fault::UnknownKey(_)) => End::Invalid,
            };
            assert_eq!(end, case.end, "{} {again}", case.id);
        }
    }
}
