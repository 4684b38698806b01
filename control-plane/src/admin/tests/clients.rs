//! Client certificates: whose are taken, for what, and until when.

use outrigger_certs::{AdminConnector, Authority, WorkloadIdentity, WorkloadKey, control_plane_id};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A control plane's own certificate and one of a workload, of the same mesh.
struct Mesh {
    own: Arc<WorkloadIdentity>,
    root: RootHash,
    authority: Authority,
}

impl Mesh {
    fn new(domain: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new(domain).unwrap();
        let authority = Authority::open_or_create(folder.path(), &domain).unwrap();
        let id = control_plane_id(&domain).unwrap();
        let own = Self::issued(&authority, &id, Some(authority.root_der().to_vec()));
        Self { own, root: authority.root_sha256(), authority }
    }

    fn issued(authority: &Authority, id: &SpiffeId, root: Option<Vec<u8>>) -> Arc<WorkloadIdentity> {
        Self::issued_for(authority, id, root, LeafLifetime::default())
    }

    fn issued_for(
        authority: &Authority,
        id: &SpiffeId,
        root: Option<Vec<u8>>,
        life: LeafLifetime,
    ) -> Arc<WorkloadIdentity> {
        let (key, now) = (WorkloadKey::generate().unwrap(), std::time::SystemTime::now());
        let mut chain = authority.sign(&key.csr().unwrap(), id, life, now).unwrap().chain;
        chain.extend(root);
        Arc::new(WorkloadIdentity::from_parts(&key, &chain, &authority.trust()).unwrap())
    }

    fn workload(&self, id: &str) -> Arc<WorkloadIdentity> {
        Self::issued(&self.authority, &id.parse().unwrap(), None)
    }
}

/// Asks over TLS who one is. Nothing, where there is no answer.
async fn whoami(at: SocketAddr, connector: &AdminConnector) -> String {
    let tcp = tokio::net::TcpStream::connect(at).await.unwrap();
    let Ok(mut stream) = connector.connect(tcp).await else { return "no handshake".into() };
    let ask = format!("GET /v1/whoami HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n");
    let mut answer = vec![];
    let exchange = async {
        stream.write_all(ask.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    let _ended = tokio::time::timeout(Duration::from_secs(10), exchange).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_of_the_mesh_has_the_role_it_was_given_and_no_other_has_any() {
    let (mesh, other) = (Mesh::new("mesh.local"), Mesh::new("mesh.local"));
    let (known, unknown) = ("spiffe://mesh.local/ns/ops/sa/deploy", "spiffe://mesh.local/ns/ops/sa/web");
    let grants = vec![(known.parse().unwrap(), "editor:shop".parse().unwrap())];
    let house = House::with(Door::closed().with_certificates(grants)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, tls) = (listener.local_addr().unwrap(), AdminAcceptor::of_the_mesh(&mesh.own, None).unwrap());
    let serving = tokio::spawn(serve(listener, Some(tls), house.api.clone(), std::future::pending()));

    let with = |identity| AdminConnector::with_identity(&identity).unwrap();
    let told = whoami(at, &with(mesh.workload(known))).await;
    assert!(told.starts_with("HTTP/1.1 200") && told.contains("editor") && told.contains(known), "{told}");
    let told = whoami(at, &with(mesh.workload(unknown))).await;
    assert!(told.starts_with("HTTP/1.1 401") && told.contains("nobody who has a role here"), "{told}");
    // The same name, of another mesh: there is no handshake with whom it trusts, nor an answer where it trusts us.
    assert!(!whoami(at, &with(other.workload(known))).await.contains("200 OK"));
    let told = whoami(at, &AdminConnector::pinned(mesh.root).unwrap()).await;
    assert!(told.starts_with("HTTP/1.1 401"), "the right server, and no proof: {told}");
    assert_eq!(whoami(at, &AdminConnector::pinned(other.root).unwrap()).await, "no handshake");

    // Plain HTTP at a port that speaks TLS gets nothing of the API.
    let mut plain = tokio::net::TcpStream::connect(at).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = vec![];
    let _ended = tokio::time::timeout(Duration::from_secs(10), plain.read_to_end(&mut answer)).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1"), "{answer:?}");
    let audit = house.audit().await;
    assert!(audit.contains(&format!("certificate {unknown}")), "{audit}");
    serving.abort();
}

/// The connection may be older than what has become of its certificate.
#[tokio::test]
async fn a_certificate_is_judged_at_every_request_of_its_connection() {
    let mesh = Mesh::new("mesh.local");
    let (gone, short) = ("spiffe://mesh.local/ns/ops/sa/revoked", "spiffe://mesh.local/ns/ops/sa/deploy");
    let admin: Grant = "admin".parse().unwrap();
    let grants = [gone, short].map(|id| (id.parse().unwrap(), admin.clone())).to_vec();
    let house = House::with(Door::closed().with_certificates(grants)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, tls) = (listener.local_addr().unwrap(), AdminAcceptor::of_the_mesh(&mesh.own, None).unwrap());
    let serving = tokio::spawn(serve(listener, Some(tls), house.api.clone(), std::future::pending()));

    let told = whoami(at, &AdminConnector::with_identity(&mesh.workload(gone)).unwrap()).await;
    assert!(told.starts_with("HTTP/1.1 401") && told.contains("the identity is revoked"), "{told}");

    let life = LeafLifetime::for_tests(Duration::from_secs(3));
    let soon = Mesh::issued_for(&mesh.authority, &short.parse().unwrap(), None, life);
    let connector = AdminConnector::with_identity(&soon).unwrap();
    let mut stream = connector.connect(tokio::net::TcpStream::connect(at).await.unwrap()).await.unwrap();
    let (mut good, mut last) = (0, String::new());
    let all = async {
        while !last.contains("has expired") {
            let ask = format!("GET /v1/whoami HTTP/1.1\r\nhost: {at}\r\n\r\n");
            stream.write_all(ask.as_bytes()).await.unwrap();
            let (mut answer, mut read) = (String::new(), [0; 4096]);
            while !answer.ends_with('}') {
                let n = stream.read(&mut read).await.unwrap();
                assert!(n > 0, "it ends with its certificate, not before: {answer}");
                answer += &String::from_utf8_lossy(&read[..n]);
            }
            good += u32::from(answer.starts_with("HTTP/1.1 200"));
            last = answer;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
    assert!(good > 0 && last.starts_with("HTTP/1.1 401"), "{good} {last}");
    serving.abort();
}

#[tokio::test]
async fn nobody_lets_somebody_be_who_may_more_than_he_nor_the_control_plane() {
    let (boss, own) = ("spiffe://mesh.local/ns/ops/sa/boss", "spiffe://mesh.local/ns/ops/sa/own");
    let grants = [(boss, "admin"), (own, "operator")];
    let grants = grants.map(|(id, grant)| (id.parse().unwrap(), grant.parse().unwrap())).to_vec();
    let house = House::with(Door::closed().with_certificates(grants)).await;
    let (operator, admin) = (house.token("operator", HOUR).await, house.token("admin", HOUR).await);
    let key = WorkloadKey::generate().unwrap();
    let csr = base64(&key.csr().unwrap());
    for (namespace, account, by_operator, by_admin) in [
        ("ops", "boss", 403, 201),
        ("ops", "own", 201, 201),
        ("shop", "cart", 201, 201),
        ("outrigger", "control-plane", 403, 403),
    ] {
        let join = serde_json::json!({ "namespace": namespace, "serviceAccount": account });
        let mut issue = join.clone();
        issue["csr"] = csr.as_str().into();
        for (path, body) in [("/v1/join-tokens", &join), ("/v1/certs/issue", &issue)] {
            for (token, expected) in [(&operator, by_operator), (&admin, by_admin)] {
                let bearer = bearer(token);
                let headers = [("authorization", bearer.as_str())];
                let told = house.sends(&Method::POST, path, &headers, &body.to_string()).await;
                assert_eq!(told.status, expected, "{path} {namespace}/{account}: {}", told.text);
            }
        }
    }
    let audit = house.audit().await;
    assert!(audit.contains("operator may not: spiffe://mesh.local/ns/ops/sa/boss"), "{audit}");
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
