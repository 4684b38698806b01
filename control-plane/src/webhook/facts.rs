//! The namespace of a pod: as somebody follows it (`known`), else as the API server says when it is asked. What it says is believed
//! for a moment, since many pods of one namespace are made at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrigger_inject::{NamespaceFacts, ServiceFacts};
use serde_json::Value as Json;
use tokio::time::Instant;

use super::api::Cluster;
use super::known::Known;

/// The namespaces of a cluster.
pub(super) struct Namespaces {
    cluster: Arc<dyn Cluster>,
    followed: Option<Arc<dyn Known>>,
    /// What was asked for, and until when it is believed.
    asked: Mutex<BTreeMap<String, (Instant, Arc<NamespaceFacts>)>>,
}

/// So long it is believed. Who labels a namespace and makes a pod at once by hand is slower.
const BELIEVED: Duration = Duration::from_secs(1);
const MOST_KNOWN: usize = 1024;

impl Namespaces {
    pub(super) fn new(cluster: Arc<dyn Cluster>, followed: Option<Arc<dyn Known>>) -> Self {
        Self { cluster, followed, asked: Mutex::default() }
    }

    /// The namespace of that name, with its Services.
    pub(super) async fn facts(&self, name: &str) -> Result<Arc<NamespaceFacts>, String> {
        if !is_name(name) {
            return Err(format!("{name:?} is no namespace"));
        }
        if let Some(facts) = self.followed.as_ref().and_then(|followed| followed.facts(name)) {
            return Ok(Arc::new(facts));
        }
        let now = Instant::now();
        if let Some((until, facts)) = self.asked().get(name).cloned()
            && now < until
        {
            return Ok(facts);
        }
        let of_namespace = format!("/api/v1/namespaces/{name}");
        let of_services = format!("/api/v1/namespaces/{name}/services");
        let (namespace, services) =
            futures_util::future::try_join(self.cluster.get(&of_namespace), self.cluster.get(&of_services))
                .await?;
        let facts = namespace.as_ref().and_then(NamespaceFacts::from_object);
        let Some(mut facts) = facts else { return Err(format!("there is no namespace {name}")) };
        let services = services.as_ref().and_then(|list| list["items"].as_array());
        facts.services =
            services.map_or(&[][..], Vec::as_slice).iter().filter_map(ServiceFacts::from_object).collect();
        let facts = Arc::new(facts);
        let mut known = self.asked();
        known.retain(|_, (until, _)| now < *until);
        if known.len() < MOST_KNOWN {
            known.insert(name.to_owned(), (now + BELIEVED, Arc::clone(&facts)));
        }
        Ok(facts)
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (Instant, Arc<NamespaceFacts>)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A DNS label: nothing that would make another path of it.
fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(allowed)
}

/// The owner of a pod that is being made, as events speak of it.
pub(super) fn owner(pod: &Json, namespace: &str) -> Option<Json> {
    let owners = pod["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true).or(owners.first())?;
    let text = |name: &str| owner[name].as_str().filter(|text| !text.is_empty() && text.len() <= 253);
    Some(serde_json::json!({
        "apiVersion": text("apiVersion")?,
        "kind": text("kind")?,
        "name": text("name")?,
        "uid": text("uid")?,
        "namespace": namespace,
    }))
}
