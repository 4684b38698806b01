//! A list and what comes after it, whatever goes wrong.

use std::time::Duration;

use outrigger_kube::api::Collection;
use outrigger_kube::follow::{Subject, Told, follow};
use outrigger_testkit::kubernetes::Fault;
use outrigger_testkit::{Owned, eventually};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::{CONFIG_MAPS, Cluster};

/// What is told of ConfigMaps.
struct Heard {
    told: mpsc::UnboundedReceiver<Told>,
    _task: Owned,
}

impl Heard {
    fn of(cluster: &Cluster, subject: Subject) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let following = follow(cluster.api.clone(), subject, move |told| drop(tell.send(told)));
        Self { told, _task: Owned::spawn(following) }
    }

    async fn next(&mut self) -> Told {
        timeout(Duration::from_secs(30), self.told.recv()).await.expect("something is told").unwrap()
    }

    /// The next that is more than a place, in short.
    async fn news(&mut self) -> String {
        let name = |object: &Value| {
            let text =
                |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned();
            format!("{}={}", text("/metadata/name"), text("/data/value"))
        };
        loop {
            match self.next().await {
                Told::All(all, _) => {
                    return format!("all {}", all.iter().map(name).collect::<Vec<_>>().join(" "));
                }
                Told::Changed(object) => return format!("changed {}", name(&object)),
                Told::Gone(object) => return format!("gone {}", name(&object)),
                Told::Lost(e) => return format!("lost {:?}", e.kind()),
                Told::At(_) => {}
            }
        }
    }

    /// The next that is no complaint, either.
    async fn facts(&mut self) -> String {
        loop {
            let news = self.news().await;
            if !news.starts_with("lost") {
                return news;
            }
        }
    }
}

fn subject() -> Subject {
    Subject { of: CONFIG_MAPS, namespace: None, labels: None, optional: false, older: None }
}

async fn watched(cluster: &Cluster) {
    eventually("a watch is open", || async { cluster.server.watches() > 0 }).await;
}

#[tokio::test]
async fn every_change_is_told_in_order() {
    let cluster = Cluster::start().await;
    cluster.put("a", "1");
    let mut heard = Heard::of(&cluster, subject());
    assert_eq!(heard.news().await, "all a=1");
    cluster.put("b", "1");
    cluster.put("a", "2");
    cluster.server.delete("v1", "ConfigMap", "default", "a");
    for expected in ["changed b=1", "changed a=2", "gone a=2"] {
        assert_eq!(heard.news().await, expected);
    }
}

#[tokio::test]
async fn a_long_list_is_read_page_by_page() {
    let cluster = Cluster::start().await;
    for i in 0..1_203 {
        cluster.put(&format!("m{i:04}"), "1");
    }
    let mut heard = Heard::of(&cluster, subject());
    let Told::All(all, count) = heard.next().await else { panic!("no list") };
    assert_eq!((all.len(), count), (1_203, cluster.server.count()));
    assert_eq!(all[1_202]["metadata"]["name"], "m1202");
    assert_eq!((&all[0]["kind"], &all[0]["apiVersion"]), (&"ConfigMap".into(), &"v1".into()));
}

#[tokio::test]
async fn a_watch_that_ends_or_breaks_goes_on_where_it_was() {
    let cluster = Cluster::start().await;
    cluster.put("a", "1");
    let mut heard = Heard::of(&cluster, subject());
    assert_eq!(heard.news().await, "all a=1");
    let error = r#"{"type":"ERROR","object":{"kind":"Status","status":"Failure","code":500}}"#;
    let breaks: [&dyn Fn(); 6] = [
        &|| cluster.server.end_watches(),
        &|| cluster.server.cut_watches(),
        &|| cluster.server.say_to_watches(r#"{"type":"MODIFIED","object":{"metadata":"#),
        &|| cluster.server.say_to_watches("<html>502 Bad Gateway</html>"),
        &|| cluster.server.say_to_watches(error),
        &|| {
            cluster.server.fail("watch", "configmaps", Fault::Garbage, 2);
            cluster.server.cut_watches();
        },
    ];
    for (i, break_it) in breaks.into_iter().enumerate() {
        watched(&cluster).await;
        break_it();
        cluster.put("a", &format!("after {i}"));
        assert_eq!(heard.facts().await, format!("changed a=after {i}"), "once, and no list");
    }
}

#[tokio::test]
async fn what_is_forgotten_is_listed_again() {
    let cluster = Cluster::start().await;
    cluster.put("a", "1");
    cluster.put("b", "1");
    let mut heard = Heard::of(&cluster, subject());
    assert_eq!(heard.news().await, "all a=1 b=1");
    watched(&cluster).await;
    // Nobody hears of this, and nobody remembers it.
    cluster.server.go_away();
    cluster.server.delete("v1", "ConfigMap", "default", "a");
    cluster.put("c", "1");
    cluster.server.compact();
    cluster.server.recover();
    assert_eq!(heard.facts().await, "all b=1 c=1");
    cluster.put("b", "2");
    assert_eq!(heard.facts().await, "changed b=2");
}

#[tokio::test]
async fn a_server_that_is_away_is_told_and_waited_for() {
    let cluster = Cluster::start().await;
    cluster.put("a", "1");
    let mut heard = Heard::of(&cluster, subject());
    assert_eq!(heard.news().await, "all a=1");
    watched(&cluster).await;
    cluster.server.go_away();
    assert_eq!(heard.news().await, "lost Away");
    cluster.put("a", "2");
    cluster.server.recover();
    let found = heard.facts().await;
    assert!(found == "changed a=2" || found == "all a=2", "{found}");
}

#[tokio::test]
async fn that_it_is_found_again_is_told_although_nothing_has_changed() {
    let cluster = Cluster::start().await;
    let mut heard = Heard::of(&cluster, subject());
    assert_eq!(heard.news().await, "all ");
    watched(&cluster).await;
    cluster.server.fail("*", "*", Fault::Status(503), 3);
    cluster.server.cut_watches();
    assert_eq!(heard.news().await, "lost Away");
    loop {
        match heard.next().await {
            Told::At(_) | Told::All(..) => break,
            Told::Lost(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_kind_that_is_not_allowed_is_told_in_the_words_of_the_server() {
    let cluster = Cluster::start().await;
    cluster.server.forbid("list", "configmaps");
    let mut heard = Heard::of(&cluster, subject());
    let Told::Lost(e) = heard.next().await else { panic!("nothing was lost") };
    assert!(e.to_string().contains("cannot list resource"), "{e}");
}

#[tokio::test]
async fn a_kind_that_the_server_does_not_know_has_no_objects() {
    let cluster = Cluster::start().await;
    let of = Collection { group: "example.com", version: "v1", plural: "others", kind: "Other" };
    let mut heard = Heard::of(&cluster, Subject { of, optional: true, ..subject() });
    assert_eq!(heard.next().await, Told::All(vec![], 0));
}

#[tokio::test]
async fn a_kind_that_the_server_has_in_an_older_version_is_read_in_that() {
    // Of an API server with an older Gateway API no ReferenceGrant was ever read, and nothing said so.
    let cluster = Cluster::start().await;
    cluster.put("a", "1");
    let newer = Collection { version: "v2", ..CONFIG_MAPS };
    let mut heard =
        Heard::of(&cluster, Subject { of: newer, older: Some("v1"), optional: true, ..subject() });
    assert_eq!(heard.news().await, "all a=1");
    cluster.put("b", "1");
    assert_eq!(heard.news().await, "changed b=1");
}

#[tokio::test]
async fn a_bookmark_tells_how_far_everything_is_known() {
    let cluster = Cluster::start().await;
    let mut heard = Heard::of(&cluster, subject());
    assert_eq!(heard.news().await, "all ");
    watched(&cluster).await;
    // Of another kind: the watch has nothing to tell of it.
    let secret =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s", "namespace": "default" } });
    cluster.server.put(&secret);
    cluster.server.bookmark();
    while heard.next().await != Told::At(cluster.server.count()) {}
}

#[tokio::test]
async fn labels_and_a_namespace_select() {
    let cluster = Cluster::start().await;
    let labelled = |name: &str, namespace: &str, labels: &Value| {
        cluster.server.put(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": { "value": "1" },
            "metadata": { "name": name, "namespace": namespace, "labels": labels },
        }));
    };
    let (ours, theirs) = (json!({ "of": "us" }), json!({ "of": "them" }));
    labelled("a", "ours", &ours);
    labelled("b", "ours", &theirs);
    labelled("c", "theirs", &ours);
    let subject = Subject { namespace: Some("ours".into()), labels: Some("of=us".into()), ..subject() };
    let mut heard = Heard::of(&cluster, subject);
    assert_eq!(heard.news().await, "all a=1");
    labelled("b", "ours", &ours);
    assert_eq!(heard.news().await, "changed b=1", "one that begins to fit");
    labelled("a", "ours", &theirs);
    assert_eq!(heard.news().await, "gone a=1", "one that fits no more");
}
