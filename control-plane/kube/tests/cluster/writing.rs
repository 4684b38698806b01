//! What is written, and what stands in its way.

use std::fs;

use outrigger_kube::api::{Address, ApiServer, CallErrorKind, Meant};
use outrigger_testkit::kubernetes::Fault;
use serde_json::Value;

use crate::{CONFIG_MAPS, Cluster, config_map};

fn with_value(mut object: Value, value: &str) -> Value {
    object["data"]["value"] = value.into();
    object
}

#[tokio::test]
async fn of_two_that_saw_the_same_version_one_writes() {
    let cluster = Cluster::start().await;
    let api = &cluster.api;
    let made = api.create(&CONFIG_MAPS, &config_map("a", "1"), Meant::Really).await.unwrap();
    let again = api.create(&CONFIG_MAPS, &config_map("a", "1"), Meant::Really).await.unwrap_err();
    assert_eq!(again.kind(), CallErrorKind::Conflict);
    let second = api.replace(&CONFIG_MAPS, &with_value(made.clone(), "2"), Meant::Really).await.unwrap();
    let late = api.replace(&CONFIG_MAPS, &with_value(made.clone(), "3"), Meant::Really).await.unwrap_err();
    assert_eq!(late.kind(), CallErrorKind::Conflict);
    let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let kept = api.delete(&CONFIG_MAPS, "default", "a", Some(&version(&made)), Meant::Really).await;
    assert_eq!(kept.unwrap_err().kind(), CallErrorKind::Conflict, "somebody wrote since");
    api.delete(&CONFIG_MAPS, "default", "a", Some(&version(&second)), Meant::Really).await.unwrap();
    api.delete(&CONFIG_MAPS, "default", "a", None, Meant::Really).await.unwrap();
    assert_eq!(api.get(&CONFIG_MAPS, "default", "a").await.unwrap(), None);
}

#[tokio::test]
async fn a_dry_run_is_judged_and_not_made() {
    let cluster = Cluster::start().await;
    cluster.api.create(&CONFIG_MAPS, &config_map("a", "1"), Meant::DryRun).await.unwrap();
    assert_eq!(cluster.server.get("v1", "ConfigMap", "default", "a"), None);
    let made = cluster.put("a", "1");
    cluster.api.replace(&CONFIG_MAPS, &with_value(made.clone(), "2"), Meant::DryRun).await.unwrap();
    cluster.api.delete(&CONFIG_MAPS, "default", "a", None, Meant::DryRun).await.unwrap();
    assert_eq!(cluster.server.get("v1", "ConfigMap", "default", "a"), Some(made));
}

#[tokio::test]
async fn a_failure_says_of_what_sort_it_is_and_whether_it_may_pass() {
    let cluster = Cluster::start().await;
    for (fault, kind, passes) in [
        (Fault::Status(403), CallErrorKind::Forbidden, false),
        (Fault::Status(422), CallErrorKind::Refused, false),
        (Fault::Status(429), CallErrorKind::Busy, true),
        (Fault::Status(500), CallErrorKind::Away, true),
        (Fault::Status(503), CallErrorKind::Away, true),
        (Fault::Cut, CallErrorKind::Away, true),
        (Fault::Garbage, CallErrorKind::Away, true),
    ] {
        // A client may try once more by itself where nothing was answered.
        cluster.server.fail("get", "configmaps", fault, 5);
        let e = cluster.api.get(&CONFIG_MAPS, "default", "a").await.unwrap_err();
        cluster.server.recover();
        assert_eq!((e.kind(), e.is_retryable()), (kind, passes), "{fault:?}: {e}");
        let told = e.to_string();
        assert!(told.contains(&cluster.server.url()) && !told.contains("planted"), "{told}");
        assert!(!told.contains('\n') && told.len() < 300, "{told}");
    }
    assert_eq!(cluster.api.get(&CONFIG_MAPS, "default", "a").await.unwrap(), None, "and afterwards it works");
}

#[tokio::test]
async fn a_stranger_in_the_place_of_the_server_gets_no_token() {
    let cluster = Cluster::start().await;
    let other = Cluster::start().await;
    let mistaken = Address { url: other.server.url(), ..cluster.address.clone() };
    let e = ApiServer::new(&mistaken).unwrap().get(&CONFIG_MAPS, "default", "a").await.unwrap_err();
    assert_eq!(e.kind(), CallErrorKind::Away, "{e}");
    assert!(other.server.used().is_empty(), "nothing was asked");
}

#[tokio::test]
async fn what_is_wrong_with_the_address_is_told_before_anything_is_asked() {
    let cluster = Cluster::start().await;
    let with = |change: fn(&mut Address)| {
        let mut address = cluster.address.clone();
        change(&mut address);
        ApiServer::new(&address).map(drop).unwrap_err().to_string()
    };
    for (told, expected) in [
        (with(|a| a.url = "http://10.0.0.1".into()), "write https://HOST"),
        (with(|a| a.url = "https://10.0.0.1/path".into()), "write https://HOST"),
        (with(|a| a.token = "/nowhere/token".into()), "/nowhere/token"),
        (with(|a| a.roots = "/nowhere/ca.crt".into()), "/nowhere/ca.crt"),
        (with(|a| a.roots.clone_from(&a.token)), "token"),
    ] {
        assert!(told.contains(expected), "{told}");
    }
    fs::write(&cluster.address.token, "\n").unwrap();
    let told = ApiServer::new(&cluster.address).map(drop).unwrap_err().to_string();
    assert!(told.contains("is empty"), "{told}");
}
