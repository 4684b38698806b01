//! Whose a token is, and what he may.

use outrigger_kube::api::CallErrorKind;
use outrigger_kube::review::{Act, User, may, whose};
use outrigger_testkit::kubernetes::Fault;

use crate::Cluster;

const TOKEN: &str = "eyJh.planted.user";

async fn with_tokens() -> Cluster {
    let cluster = Cluster::start().await;
    let server = &cluster.server;
    server.token("own.token.planted", "system:serviceaccount:outrigger-system:outrigger-control", &[], &[]);
    let own = "https://kubernetes.default.svc.cluster.local";
    server.token(TOKEN, "ada", &["developers"], &["outrigger", own]);
    server.token("eyJh.planted.other", "bob", &[], &["somebody-else"]);
    cluster
}

#[tokio::test]
async fn a_token_is_somebody_s_only_for_our_audience() {
    let cluster = with_tokens().await;
    let ada = User {
        name: "ada".into(),
        uid: String::new(),
        groups: vec!["developers".into()],
        extra: serde_json::Value::Null,
    };
    let asked = async |token: &str, audience| whose(&cluster.api, token, audience).await;
    assert_eq!(asked(TOKEN, Some("outrigger")).await.unwrap(), Some(ada.clone()));
    assert_eq!(asked(TOKEN, None).await.unwrap(), Some(ada));
    assert_eq!(asked("eyJh.planted.other", Some("outrigger")).await.unwrap(), None);
    assert_eq!(asked("eyJh.nobody.has", Some("outrigger")).await.unwrap(), None);
    cluster.server.fail("create", "tokenreviews", Fault::Status(500), 1);
    let e = asked(TOKEN, Some("outrigger")).await.unwrap_err();
    assert!(e.is_retryable() && !e.to_string().contains("planted"), "{e}");
}

#[tokio::test]
async fn what_somebody_may_the_cluster_says() {
    let cluster = with_tokens().await;
    cluster.server.allow("developers", "use", "outrigger.dev", "roles", "editor", Some("shop"));
    let ada = whose(&cluster.api, TOKEN, Some("outrigger")).await.unwrap().unwrap();
    for (name, namespace, expected) in [
        ("editor", "shop", true),
        ("editor", "", false),
        ("editor", "other", false),
        ("admin", "shop", false),
    ] {
        let act = Act { verb: "use", group: "outrigger.dev", resource: "roles", name, namespace };
        assert_eq!(may(&cluster.api, &ada, act).await.unwrap(), expected, "{name} in {namespace:?}");
    }
}

#[tokio::test]
async fn a_control_plane_that_the_server_does_not_know_is_told_so() {
    let cluster = Cluster::start().await;
    cluster.server.token("another.own.token", "somebody", &[], &[]);
    let e = whose(&cluster.api, TOKEN, None).await.unwrap_err();
    assert_eq!(e.kind(), CallErrorKind::Forbidden, "{e}");
}
