//! Who leads: whoever holds a Lease (`coordination.k8s.io`), as the control planes of Kubernetes itself agree on it.
//!
//! A holder renews. Whoever has seen no renewal for the whole term, by its own clock and by no clock of anybody else, takes
//! the Lease; of several that try one succeeds, since each names the version that it saw. A holder believes that it leads for
//! less than the term, counted from before it asked: never two at a time, as long as clocks run equally fast.
//!
//! Every control plane also keeps a Lease of its own, by which the others know that it lives, and on which it notes what it has
//! to tell them (an annotation).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use crate::api::{ApiServer, CallError, CallErrorKind, Collection, Meant};

/// Leases.
pub const LEASES: Collection =
    Collection { group: "coordination.k8s.io", version: "v1", plural: "leases", kind: "Lease" };
/// How long a Lease holds without being renewed.
pub const TERM: Duration = Duration::from_secs(15);
/// How often it is renewed, and looked at by those who do not hold it.
pub const RENEW: Duration = Duration::from_secs(3);
/// So much earlier than the term ends its holder gives up: so much room have clocks to run differently.
const MARGIN: Duration = Duration::from_secs(3);
/// The label of the Leases of replicas.
pub const REPLICA: &str = "outrigger.dev/replica";
/// What a replica tells the others.
const SAID: &str = "outrigger.dev/said";

/// A Lease for which several contend.
#[derive(Debug)]
pub struct Contest {
    namespace: String,
    name: String,
    identity: String,
    /// What was seen last, and when it was seen to change.
    seen: Option<(String, Instant)>,
    until: Option<Instant>,
}

impl Contest {
    /// For the Lease `name`, as `identity`, which nobody else has.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        let [namespace, name, identity] = [namespace, name, identity].map(str::to_owned);
        Self { namespace, name, identity, seen: None, until: None }
    }

    /// Until when this one surely holds it; `None`: it does not.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Renews it, or takes it where nobody does.
    pub async fn round(&mut self, api: &ApiServer) -> Result<(), CallError> {
        let began = Instant::now();
        let Some(lease) = api.get(&LEASES, &self.namespace, &self.name).await? else {
            let made = api.create(&LEASES, &self.lease(0, None), Meant::Really).await;
            return self.took(began, made);
        };
        let version = lease["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.seen = Some((version, began));
        }
        let seconds = lease["spec"]["leaseDurationSeconds"].as_u64().unwrap_or(TERM.as_secs());
        let over = self.seen.as_ref().is_some_and(|(_, at)| began >= *at + Duration::from_secs(seconds));
        if holder != self.identity && !holder.is_empty() && !over {
            self.until = None;
            return Ok(());
        }
        let changes =
            lease["spec"]["leaseTransitions"].as_u64().unwrap_or(0) + u64::from(holder != self.identity);
        let next = self.lease(changes, Some(&lease));
        let made = api.replace(&LEASES, &next, Meant::Really).await;
        self.took(began, made)
    }

    /// Gives it back, so that nobody has to wait for its end.
    pub async fn end(&mut self, api: &ApiServer) -> Result<(), CallError> {
        self.until = None;
        let Some(mut lease) = api.get(&LEASES, &self.namespace, &self.name).await? else { return Ok(()) };
        if lease["spec"]["holderIdentity"] != self.identity.as_str() {
            return Ok(());
        }
        lease["spec"]["holderIdentity"] = "".into();
        lease["spec"]["leaseDurationSeconds"] = 1.into();
        api.replace(&LEASES, &lease, Meant::Really).await.map(drop)
    }

    fn took(&mut self, began: Instant, made: Result<Value, CallError>) -> Result<(), CallError> {
        match made {
            Ok(lease) => {
                let version = lease["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                (self.seen, self.until) = (Some((version.to_owned(), began)), Some(began + TERM - MARGIN));
                Ok(())
            }
            // Another one was faster: the next round sees it.
            Err(e) if e.kind() == CallErrorKind::Conflict => {
                self.until = None;
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    fn lease(&self, changes: u64, before: Option<&Value>) -> Value {
        let now = now();
        let own = before.filter(|before| before["spec"]["holderIdentity"] == self.identity.as_str());
        let taken = own.and_then(|before| before["spec"]["acquireTime"].as_str()).unwrap_or(&now);
        let mut metadata = before.map_or(json!({}), |before| before["metadata"].clone());
        metadata["name"] = self.name.as_str().into();
        metadata["namespace"] = self.namespace.as_str().into();
        let spec = json!({
            "holderIdentity": self.identity, "leaseDurationSeconds": TERM.as_secs(), "acquireTime": taken,
            "renewTime": now, "leaseTransitions": changes,
        });
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec })
    }
}

/// Renews the Lease by which a replica says that it lives, with what it tells.
pub async fn show(api: &ApiServer, namespace: &str, identity: &str, said: &str) -> Result<(), CallError> {
    let name = own_name(identity);
    let mut lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": name, "namespace": namespace, "labels": { REPLICA: "true" }, "annotations": { SAID: said },
        },
        "spec": { "holderIdentity": identity, "leaseDurationSeconds": TERM.as_secs(), "renewTime": now() },
    });
    let Some(before) = api.get(&LEASES, namespace, &name).await? else {
        return api.create(&LEASES, &lease, Meant::Really).await.map(drop);
    };
    // It is this replica's alone, so whatever is there is replaced.
    lease["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
    api.replace(&LEASES, &lease, Meant::Really).await.map(drop)
}

/// Takes away the Lease of a replica that is no more.
pub async fn hide(api: &ApiServer, namespace: &str, identity: &str) -> Result<(), CallError> {
    api.delete(&LEASES, namespace, &own_name(identity), None, Meant::Really).await
}

fn own_name(identity: &str) -> String {
    format!("outrigger-replica-{identity}")
}

/// Which replicas live, as their Leases tell, and what they say.
#[derive(Debug, Default)]
pub struct Living {
    seen: BTreeMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    renewed: String,
    /// When it was seen to be renewed, by our own clock.
    at: Instant,
    said: String,
}

impl Living {
    /// These are all Leases that there are.
    pub fn all_are(&mut self, leases: &[Value]) {
        self.seen.retain(|identity, _| leases.iter().any(|lease| holder(lease) == identity));
        for lease in leases {
            self.note(lease);
        }
    }

    /// Takes note of the Lease of a replica.
    pub fn note(&mut self, lease: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (renewed, said) =
            (text(&lease["spec"]["renewTime"]), text(&lease["metadata"]["annotations"][SAID]));
        // A Lease that is told again lives no longer for it: only a renewal counts.
        let before = self.seen.get(holder(lease)).filter(|before| before.renewed == renewed);
        let at = before.map_or_else(Instant::now, |before| before.at);
        self.seen.insert(holder(lease).to_owned(), Seen { renewed, at, said });
    }

    /// Takes note of the end of one.
    pub fn forget(&mut self, lease: &Value) {
        self.seen.remove(holder(lease));
    }

    /// Those that live, with what they say.
    pub fn living(&self) -> impl Iterator<Item = (&str, &str)> {
        let now = Instant::now();
        let living = self.seen.iter().filter(move |(_, seen)| now < seen.at + TERM);
        living.map(|(identity, seen)| (identity.as_str(), seen.said.as_str()))
    }
}

fn holder(lease: &Value) -> &str {
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default()
}

/// With exactly six digits, as Kubernetes wants a MicroTime.
fn now() -> String {
    let now = OffsetDateTime::now_utc();
    let whole = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default();
    format!("{}.{:06}Z", whole.trim_end_matches('Z'), now.microsecond())
}
