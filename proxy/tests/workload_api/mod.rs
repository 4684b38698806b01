//! An identity from a SPIFFE Workload API.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, SystemTime};

use outrigger_certs::Authority;
use outrigger_proxy::identity::{IdentitySettings, Obtained, Origin, WorkloadApiWatch, obtain};
use outrigger_testkit::{Owned, WorkloadApiServer, eventually, issue_svid, real, resources};
use outrigger_wire::workload_api::Workload;

use super::control_common::web;

fn authority(domain: &str) -> Authority {
    Authority::create(&domain.parse().unwrap(), SystemTime::now()).unwrap().0
}

fn settings(server: &WorkloadApiServer) -> IdentitySettings {
    let workload_api = Some(server.socket());
    IdentitySettings { id: web(), folder: None, files: None, workload_api, control: None }
}

async fn started(
    server: &WorkloadApiServer,
) -> (Obtained, std::sync::Arc<outrigger_proxy::identity::RenewalStatus>, Owned) {
    let obtained = obtain(&settings(server), |_| {}).await.unwrap();
    assert_eq!((obtained.from, obtained.identity.id()), (Origin::WorkloadApi, &web()));
    let watch = WorkloadApiWatch::new(server.socket(), &obtained);
    let status = watch.status();
    (obtained, status, Owned::spawn(watch.run()))
}

fn knows(obtained: &Obtained, other: &Authority) -> bool {
    let id = format!("spiffe://{}/ns/shop/sa/cart", other.trust_domain()).parse().unwrap();
    let svid = issue_svid(other, &id);
    let (stranger, _) =
        outrigger_certs::WorkloadIdentity::from_der(&svid.chain, &svid.key, &svid.bundle).unwrap();
    obtained.identity.trust().believes(&stranger.as_peer()).is_ok()
}

#[tokio::test]
async fn what_the_workload_api_says_is_in_use_at_once_with_federated_bundles_and_without() {
    let server = WorkloadApiServer::start();
    let (ours, other) = (authority(resources::TRUST_DOMAIN), authority("other.local"));
    let bundle = || BTreeMap::from([("spiffe://other.local".to_owned(), other.root_der().to_vec())]);
    server.tell(Workload { svids: vec![issue_svid(&ours, &web())], federated: bundle() });
    let (obtained, status, _watching) = started(&server).await;
    assert!(knows(&obtained, &other), "federated bundles are believed from the start");
    let first = obtained.identity.certificate_sha256();

    let two = vec![issue_svid(&ours, &resources::identity("shop", "cart")), issue_svid(&ours, &web())];
    server.tell(Workload { svids: two, federated: BTreeMap::new() });
    eventually("the next certificate is in use", || async { status.renewals() == 1 }).await;
    assert_ne!(obtained.identity.certificate_sha256(), first);
    eventually("a bundle that is gone is not believed", || async { !knows(&obtained, &other) }).await;

    let second = obtained.identity.certificate_sha256();
    let mut mixed = issue_svid(&ours, &web());
    mixed.key = issue_svid(&ours, &web()).key;
    let mut renamed = issue_svid(&ours, &resources::identity("shop", "cart"));
    renamed.id = web().to_string();
    let mut noise = issue_svid(&ours, &web());
    noise.chain = b"noise".to_vec();
    let nobody = issue_svid(&ours, &resources::identity("shop", "cart"));
    for (bad, count) in [mixed, renamed, noise, nobody].into_iter().zip(1..) {
        server.tell(Workload { svids: vec![bad], federated: BTreeMap::new() });
        eventually("it is refused", || async { status.failures() == count }).await;
        assert_eq!(obtained.identity.certificate_sha256(), second);
    }
    server.tell(Workload { svids: vec![issue_svid(&ours, &web())], federated: BTreeMap::new() });
    eventually("a good one is taken again", || async { status.renewals() == 2 }).await;
}

#[tokio::test]
async fn a_workload_api_that_is_away_or_has_nothing_for_us_is_waited_for_and_found_again() {
    let mut server = WorkloadApiServer::start();
    let ours = authority(resources::TRUST_DOMAIN);
    let waiting = {
        let settings = settings(&server);
        tokio::spawn(async move { obtain(&settings, |_| {}).await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "no identity has been issued yet");
    server.stop().await;
    server.serve();
    server.tell(Workload { svids: vec![issue_svid(&ours, &web())], federated: BTreeMap::new() });
    waiting.await.unwrap().unwrap();

    let (obtained, status, _watching) = started(&server).await;
    eventually("it follows", || async { status.renewals() + status.failures() == 0 }).await;
    let first = obtained.identity.certificate_sha256();
    server.stop().await;
    eventually("the end is noticed", || async { status.failures() > 0 }).await;
    assert_eq!(obtained.identity.certificate_sha256(), first, "what it said last holds");
    server.tell(Workload { svids: vec![issue_svid(&ours, &web())], federated: BTreeMap::new() });
    server.serve();
    eventually("it is found again", || async { obtained.identity.certificate_sha256() != first }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_we_are_tested_with_is_accepted_by_the_python_client_of_spiffe() {
    let Some(python) = real::venv(&["spiffe==0.3.2"]) else { return };
    let server = WorkloadApiServer::start();
    let (ours, other) = (authority(resources::TRUST_DOMAIN), authority("other.local"));
    let federated = BTreeMap::from([("spiffe://other.local".to_owned(), other.root_der().to_vec())]);
    server.tell(Workload { svids: vec![issue_svid(&ours, &web())], federated });
    let script = "
import sys
from spiffe import WorkloadApiClient
with WorkloadApiClient('unix:' + sys.argv[1]) as client:
    context = client.fetch_x509_context()
    print(context.default_svid.spiffe_id)
    print(sorted(str(d.trust_domain.name) for d in context.x509_bundle_set.bundles))
    print(sorted(str(d.trust_domain.name) for d in client.fetch_x509_bundles().bundles))
    key = context.default_svid.private_key.public_key()
    print(key == context.default_svid.leaf.public_key())
";
    // gRPC for Python names the path in :authority, its slashes as %2F, which is no authority (RFC 3986, 3.2.2) and is
    // refused as malformed by the HTTP/2 library here. A path without slashes is one.
    let folder = server.socket().parent().unwrap().to_path_buf();
    let ran = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(python);
        real::run(command.args(["-c", script, "api.sock"]).current_dir(folder), Duration::from_secs(60))
    });
    let ran = ran.await.unwrap();
    assert!(ran.ok, "{}", ran.stderr);
    let lines: Vec<_> = ran.stdout.lines().collect();
    let both = "['mesh.local', 'other.local']";
    assert_eq!(lines, [&web().to_string(), both, both, "True"], "{}", ran.stderr);
}
