//! Leaves that break one rule each.

use super::der::{
    ANY_USAGE, BASIC, CLIENT, CODE_SIGNING, Draft, ECDSA_SHA1, EXTENDED, Key, RSA_MD5, RSA_SHA1, SAN, SERVER,
    UNKNOWN, USAGE, algorithm, basic, compressed_info, critical, extended, key_usage, names, p224_info,
    plain, rsa_info, tlv,
};
use super::{CART, Case, Made};

pub(crate) fn all() -> Vec<Case> {
    [times(), identities(), names_around(), usages(), keys(), forms()].concat_cases()
}

const fn leaf(id: &'static str, attacks: &'static str, says: &'static str, change: fn(&mut Draft)) -> Case {
    Case { id, attacks, chain: Made::Leaf(change), says }
}

fn named(draft: &mut Draft, uri: &[u8]) {
    draft.replace(SAN, [plain(SAN, names(&[uri]))]);
}

fn times() -> Vec<Case> {
    const DAY: i64 = 24 * 3600;
    vec![
        leaf("expired-yesterday", "a certificate outlives its time", "expired", |d| {
            d.life = (-2 * DAY, -DAY);
        }),
        leaf("expired-a-moment-ago", "the end is rounded up", "expired", |d| d.life = (-DAY, -2)),
        leaf("not-yet-valid", "a certificate made for later is used now", "not yet valid", |d| {
            d.life = (DAY, 2 * DAY);
        }),
        leaf("begins-after-our-clock", "skew is forgiven by the verifier, too", "not yet valid", |d| {
            d.life = (120, DAY);
        }),
        leaf("ends-before-it-begins", "dates the wrong way round", "valid", |d| d.life = (DAY, -DAY)),
    ]
}

/// What stands in the one URI.
fn identities() -> Vec<Case> {
    vec![
        leaf("foreign-domain", "a trust domain that nobody vouches for", "trust domain", |d| {
            named(d, b"spiffe://evil.local/ns/shop/sa/cart");
        }),
        leaf("domain-longer-than-ours", "the trust domain is compared as a prefix", "trust domain", |d| {
            named(d, b"spiffe://mesh.local.evil/ns/shop/sa/cart");
        }),
        leaf("domain-ends-like-ours", "the trust domain is compared as a suffix", "trust domain", |d| {
            named(d, b"spiffe://evil-mesh.local/ns/shop/sa/cart");
        }),
        leaf("domain-in-upper-case", "case is folded", "refused", |d| {
            named(d, b"spiffe://MESH.local/ns/shop/sa/cart");
        }),
        leaf("account-in-upper-case", "case is folded", "refused", |d| {
            named(d, b"spiffe://mesh.local/ns/shop/sa/Cart");
        }),
        leaf("scheme-in-upper-case", "case is folded", "refused", |d| {
            named(d, b"SPIFFE://mesh.local/ns/shop/sa/cart");
        }),
        leaf("nul-behind-the-name", "a reader in C stops at the NUL", "refused", |d| {
            named(d, b"spiffe://mesh.local/ns/shop/sa/cart\0.evil.example");
        }),
        leaf("nul-at-the-end", "a NUL is trimmed", "refused", |d| {
            named(d, b"spiffe://mesh.local/ns/shop/sa/cart\0");
        }),
        leaf("nul-in-the-domain", "the domain ends at the NUL", "refused", |d| {
            named(d, b"spiffe://mesh.local\0.evil/ns/shop/sa/cart");
        }),
        leaf("percent-letter", "the path is decoded", "refused", |d| {
            named(d, b"spiffe://mesh.local/ns/shop/sa/c%61rt");
        }),
        leaf("percent-slash", "a segment is smuggled", "refused", |d| {
            named(d, b"spiffe://mesh.local/ns/shop%2fsa%2fcart");
        }),
        leaf("dot-segments", "the path is normalised", "refused", |d| {
            named(d, b"spiffe://mesh.local/ns/shop/sa/web/../cart");
        }),
        leaf("trailing-slash", "the end of the path is trimmed", "refused", |d| {
            named(d, b"spiffe://mesh.local/ns/shop/sa/cart/");
        }),
        leaf("empty-segment", "slashes are merged", "refused", |d| {
            named(d, b"spiffe://mesh.local/ns//shop/sa/cart");
        }),
        leaf("one-segment-more", "the path is compared as a prefix", "refused", |d| {
            named(d, b"spiffe://mesh.local/ns/shop/sa/cart/admin");
        }),
        leaf("no-path", "the trust domain itself as a workload", "refused", |d| {
            named(d, b"spiffe://mesh.local");
        }),
        leaf("other-form", "a path that is no namespace and account", "refused", |d| {
            named(d, b"spiffe://mesh.local/shop/cart");
        }),
        leaf("query", "what follows ? is cut off", "refused", |d| {
            named(d, b"spiffe://mesh.local/ns/shop/sa/cart?sa=web");
        }),
        leaf("fragment", "what follows # is cut off", "refused", |d| {
            named(d, b"spiffe://mesh.local/ns/shop/sa/cart#web");
        }),
        leaf("port", "an authority with a port", "refused", |d| {
            named(d, b"spiffe://mesh.local:443/ns/shop/sa/cart");
        }),
        leaf("userinfo", "the domain stands behind an @", "refused", |d| {
            named(d, b"spiffe://mesh.local@evil.local/ns/shop/sa/cart");
        }),
        leaf("blank-behind", "blanks are trimmed", "refused", |d| {
            named(d, b"spiffe://mesh.local/ns/shop/sa/cart ");
        }),
        leaf("line-feed-behind", "lines are trimmed", "refused", |d| {
            named(d, b"spiffe://mesh.local/ns/shop/sa/cart\n");
        }),
        leaf("other-scheme", "any URI is an identity", "refused", |d| {
            named(d, b"https://mesh.local/ns/shop/sa/cart");
        }),
        leaf("empty-uri", "an empty name is a name", "refused", |d| named(d, b"")),
        leaf("not-text", "a letter from another alphabet looks like ours", "refused", |d| {
            named(d, "spiffe://mesh.local/ns/shop/sa/c\u{430}rt".as_bytes());
        }),
        leaf("longer-than-any", "a name of five thousand bytes", "refused", |d| {
            named(d, format!("spiffe://mesh.local/ns/shop/sa/{}", "a".repeat(5000)).as_bytes());
        }),
    ]
}

/// How many names there are, and what kind.
fn names_around() -> Vec<Case> {
    vec![
        leaf("no-names", "no subject alternative name at all", "0 URI", |d| d.replace(SAN, [])),
        leaf("names-without-entries", "an empty list of names", "", |d| {
            d.replace(SAN, [plain(SAN, names(&[]))]);
        }),
        leaf("host-name-only", "a host name is taken for an identity", "0 URI", |d| {
            d.replace(SAN, [plain(SAN, tlv(0x30, &tlv(0x82, b"cart.shop")))]);
        }),
        leaf("common-name-only", "the subject is taken for an identity", "0 URI", |d| {
            d.subject = CART;
            d.replace(SAN, []);
        }),
        leaf("two-identities", "whoever reads the first, whoever reads the last", "2 URI", |d| {
            d.replace(SAN, [plain(SAN, names(&[CART.as_bytes(), b"spiffe://mesh.local/ns/shop/sa/web"]))]);
        }),
        leaf("the-same-identity-twice", "equal ones are merged", "2 URI", |d| {
            d.replace(SAN, [plain(SAN, names(&[CART.as_bytes(), CART.as_bytes()]))]);
        }),
        leaf("another-uri-beside", "only spiffe:// is counted", "2 URI", |d| {
            d.replace(SAN, [plain(SAN, names(&[CART.as_bytes(), b"https://cart.example"]))]);
        }),
        leaf("unreadable-name-beside", "what can not be read is skipped", "parsed", |d| {
            d.replace(SAN, [plain(SAN, names(&[CART.as_bytes(), &[0xff]]))]);
        }),
        leaf("two-lists-of-names", "the first list or the last", "", |d| {
            d.extensions.push(plain(SAN, names(&[b"spiffe://mesh.local/ns/shop/sa/web"])));
        }),
        leaf("bytes-behind-the-names", "two readers see two lists", "verify", |d| {
            let more = [names(&[CART.as_bytes()]), names(&[b"spiffe://mesh.local/ns/shop/sa/web"])].concat();
            d.replace(SAN, [plain(SAN, more)]);
        }),
        leaf("names-that-are-none", "a list that can not be parsed is no list", "", |d| {
            d.replace(SAN, [plain(SAN, vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff])]);
        }),
    ]
    .into_iter()
    .map(anyhow)
    .collect()
}

fn usages() -> Vec<Case> {
    vec![
        leaf("authority-as-leaf", "an intermediate speaks for a workload", "authority", |d| {
            d.extensions.push(critical(BASIC, basic(true, None)));
        }),
        leaf("constraints-twice", "cA and not cA", "", |d| {
            d.extensions.push(critical(BASIC, basic(false, None)));
            d.extensions.push(critical(BASIC, basic(true, None)));
        }),
        leaf("no-key-usage", "what is not said is allowed", "digital signatures", |d| d.replace(USAGE, [])),
        leaf("no-digital-signature", "a key for encipherment signs a handshake", "digital signatures", |d| {
            d.replace(USAGE, [critical(USAGE, key_usage(0x20))]);
        }),
        leaf("may-sign-certificates", "a workload makes workloads", "digital signatures", |d| {
            d.replace(USAGE, [critical(USAGE, key_usage(0x84))]);
        }),
        leaf("may-sign-revocations", "a workload revokes", "digital signatures", |d| {
            d.replace(USAGE, [critical(USAGE, key_usage(0x82))]);
        }),
        leaf("no-extended-usage", "what is not said is allowed", "clients and servers", |d| {
            d.replace(EXTENDED, []);
        }),
        leaf("for-clients-only", "a client plays the server", "clients and servers", |d| {
            d.replace(EXTENDED, [plain(EXTENDED, extended(&[CLIENT]))]);
        }),
        leaf("for-servers-only", "a server plays the client", "clients and servers", |d| {
            d.replace(EXTENDED, [plain(EXTENDED, extended(&[SERVER]))]);
        }),
        leaf("for-any-usage", "any is read as all", "clients and servers", |d| {
            d.replace(EXTENDED, [plain(EXTENDED, extended(&[ANY_USAGE]))]);
        }),
        leaf("for-code", "a certificate of another trade", "clients and servers", |d| {
            d.replace(EXTENDED, [plain(EXTENDED, extended(&[CODE_SIGNING]))]);
        }),
        leaf("extended-usage-twice", "the first list or the last", "", |d| {
            d.extensions.push(plain(EXTENDED, extended(&[CODE_SIGNING])));
        }),
        leaf("unknown-critical-extension", "a condition that nobody here understands", "verify", |d| {
            d.extensions.push(critical(UNKNOWN, tlv(0x02, &[0])));
        }),
    ]
    .into_iter()
    .map(anyhow)
    .collect()
}

fn keys() -> Vec<Case> {
    vec![
        leaf("rsa-1024", "a key that can be broken", "P-256", |d| d.key = rsa_info(1024)),
        leaf("rsa-2048", "a kind of key that no workload of ours has", "P-256", |d| d.key = rsa_info(2048)),
        leaf("p-224", "a curve of 112 bits", "P-256", |d| d.key = p224_info()),
        leaf("key-of-no-kind", "a key that nobody can read", "P-256", |d| {
            d.key = tlv(0x30, &[tlv(0x30, &tlv(0x06, &[0x2a, 3])), tlv(0x03, &[0, 1, 2, 3])].concat());
        }),
        leaf("compressed-point", "the same key in another spelling", "P-256", |d| {
            d.key = compressed_info(&Key::new());
        }),
        leaf("sha-1", "a signature over a broken hash", "algorithm", |d| {
            d.algorithms = (algorithm(ECDSA_SHA1), algorithm(ECDSA_SHA1));
        }),
        leaf("rsa-sha-1", "a signature over a broken hash", "algorithm", |d| {
            d.algorithms = (algorithm(RSA_SHA1), algorithm(RSA_SHA1));
        }),
        leaf("md5", "a signature over a hash that collides", "algorithm", |d| {
            d.algorithms = (algorithm(RSA_MD5), algorithm(RSA_MD5));
        }),
        leaf("two-algorithms", "the signed part names another algorithm than the signature", "verify", |d| {
            d.algorithms.0 = algorithm(ECDSA_SHA1);
        }),
        leaf("forged-signature", "one bit of the signature", "signed", |d| d.forged = true),
    ]
    .into_iter()
    .map(anyhow)
    .collect()
}

fn forms() -> Vec<Case> {
    vec![
        leaf("bytes-behind", "what stands behind a certificate is not looked at", "", |d| {
            d.trailing = vec![0];
        }),
        leaf("another-certificate-behind", "two certificates in the place of one", "", |d| {
            d.trailing = Draft::leaf(&Key::new(), "root", CART).sign(&Key::new());
        }),
        leaf("version-1", "a certificate without extensions, of before there were rules", "", |d| {
            d.version = 0;
            d.extensions.clear();
        }),
        leaf("version-1-with-extensions", "extensions where none may be", "verify", |d| d.version = 0),
        leaf("version-2", "extensions where none may be", "verify", |d| d.version = 1),
        leaf("version-4", "a version that does not exist", "verify", |d| d.version = 3),
        leaf("wrong-issuer", "the right key under another name", "signed", |d| d.issuer = "somebody"),
    ]
    .into_iter()
    .map(anyhow)
    .collect()
}

/// Where the library that refuses has its own words, any of its refusals is meant.
fn anyhow(mut case: Case) -> Case {
    if case.says.is_empty() {
        case.says = "certificate";
    }
    case
}

trait Concat {
    fn concat_cases(self) -> Vec<Case>;
}

impl<const N: usize> Concat for [Vec<Case>; N] {
    fn concat_cases(self) -> Vec<Case> {
        self.into_iter().flatten().collect()
    }
}
