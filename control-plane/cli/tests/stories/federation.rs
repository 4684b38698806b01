//! Other trust domains: who vouches for whom. Both authorities are made by openssl, so that either can be made to sign what
//! it must not.

use std::fs;

use crate::company::Company;
use crate::identity::s_client;
use crate::support::{Instance, Mesh, text};

impl Company {
    /// A certificate for `id` as `NAME.leaf` with `NAME.leaf.key`, signed by the pair of files `by` names.
    fn leaf(&self, name: &str, id: &str, cert: &str, key: &str) {
        let extensions = format!(
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
             extendedKeyUsage=clientAuth,serverAuth\nsubjectAltName=URI:{id}\n"
        );
        fs::write(self.path("leaf.extensions"), extensions).unwrap();
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj / -keyout {name}.leaf.key -out leaf.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in leaf.csr -CA {cert} -CAkey {key} -CAcreateserial -days 5 -sha256 -out {name}.leaf \
             -extfile leaf.extensions"
        ));
    }

    /// What a workload answers to whoever shows this certificate.
    fn ask(&self, name: &str, to: &Instance, chain: Option<&str>) -> String {
        let path = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let (cert, key) = (path(&format!("{name}.leaf")), path(&format!("{name}.leaf.key")));
        let mut more = vec!["-cert", &cert, "-key", &key];
        let chain = chain.map(path);
        if let Some(chain) = &chain {
            more.extend(["-cert_chain", chain]);
        }
        s_client(&to.sidecar.inbound.unwrap().to_string(), &more)
    }
}

fn defaults(spec: &str) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: MeshDefaults\nmetadata: {{name: mesh, namespace: outrigger}}\n\
         spec:\n{spec}\n"
    )
}

fn trusting(domain: &str, pem: &str) -> String {
    let pem = pem.lines().collect::<Vec<_>>().join("\n      ");
    defaults(&format!("  trustedDomains:\n  - trustDomain: {domain}\n    roots: |\n      {pem}"))
}

fn refused(mesh: &Mesh, yaml: &str, words: &[&str]) {
    let out = mesh.try_apply(yaml, &[]);
    assert!(!out.status.success(), "{}", text(&out));
    for word in words {
        assert!(text(&out).contains(word), "{word:?} is not in {}", text(&out));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roots_of_one_trust_domain_never_vouch_for_another() {
    let company = Company::new();
    let mesh = company.mesh(&[]);
    mesh.services(&["cart"]);
    let cart = mesh.instance("cart", "v1").await;
    company.root("other");
    let (ours, theirs) = ("spiffe://mesh.local/ns/shop/sa/web", "spiffe://other.org/ns/bank/sa/teller");
    company.leaf("theirs", theirs, "other.root", "other.root.key");
    company.leaf("ours", ours, "one.cert", "one.key");
    company.leaf("theirs-by-ours", theirs, "one.cert", "one.key");
    company.leaf("ours-by-theirs", ours, "other.root", "other.root.key");
    let gets_in = |name: &str, chain: Option<&str>| company.ask(name, &cart, chain).contains("HTTP/1.1 200");
    assert!(gets_in("ours", Some("one.cert")), "what the mesh's own authority signs is believed");
    assert!(!gets_in("theirs", None), "nobody believes the other domain yet");

    let root = fs::read_to_string(company.path("other.root")).unwrap();
    refused(&mesh, &trusting("mesh.local", &root), &["own trust domain", "--ca-roots"]);
    let leaf = fs::read_to_string(company.path("theirs.leaf")).unwrap();
    refused(&mesh, &trusting("other.org", &leaf), &["not the certificate of an authority"]);
    let named = format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: MeshService\nmetadata: {{name: bank, namespace: shop}}\n\
         spec: {{identities: ['{theirs}']}}\n"
    );
    refused(&mesh, &named, &["other.org", "trustedDomains"]);

    mesh.apply(&trusting("other.org", &root));
    let told = company.ask("theirs", &cart, None);
    assert!(told.contains("HTTP/1.1 200"), "{told}\n{}", cart.sidecar.log());
    let seen = cart.origin.seen();
    let said = seen.last().unwrap().header("x-forwarded-client-cert").unwrap().to_owned();
    assert!(said.contains(theirs), "{said}");
    assert!(!gets_in("theirs-by-ours", Some("one.cert")), "our root must not vouch for other.org");
    assert!(!gets_in("ours-by-theirs", None), "the root of other.org must not vouch for us");
    assert!(gets_in("ours", Some("one.cert")));

    mesh.apply(&named);
    refused(&mesh, &defaults("  suffixes: []"), &["shop/bank would no longer hold"]);
    let out = mesh.cli(&["delete", "MeshService", "bank", "-n", "shop"]);
    assert!(out.status.success(), "{}", text(&out));
    mesh.apply(&defaults("  suffixes: []"));
    assert!(!gets_in("theirs", None), "the domain is not believed any more");
    assert!(gets_in("ours", Some("one.cert")), "ours is");
}
