//! What is known of namespaces without asking: an admission does not wait for the API server. It is followed, by the store where the
//! cluster is that, else by two watches of the webhook's own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outrigger_inject::{NamespaceFacts, ServiceFacts};
use outrigger_kube::api::{ApiServer, Collection, place};
use outrigger_kube::follow::{Subject, Told, follow};
use outrigger_kube::means::{NAMESPACES, SERVICES};
use serde_json::Value as Json;
use tokio::task::JoinSet;

use crate::store::kubernetes::KubernetesStore;

/// Whoever follows the namespaces of a cluster, and the Services in them.
pub(super) trait Known: Send + Sync + 'static {
    /// The namespace of that name; `None` where it is not known, or nothing new would be heard of it: then it has to be asked for.
    fn facts(&self, name: &str) -> Option<NamespaceFacts>;
}

impl Known for KubernetesStore {
    fn facts(&self, name: &str) -> Option<NamespaceFacts> {
        let (namespace, services) = self.namespace_as_told(name)?;
        let mut facts = NamespaceFacts::from_object(&namespace)?;
        facts.services = services.iter().filter_map(ServiceFacts::from_object).collect();
        Some(facts)
    }
}

/// What two watches have told. Only what counts of each object is kept.
#[derive(Default)]
pub(super) struct Followed(Mutex<Heard>);

#[derive(Default)]
struct Heard {
    /// `None` until all were told once.
    namespaces: Option<BTreeMap<String, NamespaceFacts>>,
    /// By namespace and name.
    services: Option<BTreeMap<(String, String), ServiceFacts>>,
    /// Whether nothing new is heard of namespaces, and of Services.
    lost: [bool; 2],
}

impl Followed {
    /// Follows them in `tasks`.
    pub(super) fn start(api: &ApiServer, tasks: &mut JoinSet<()>) -> Arc<Self> {
        let followed = Arc::<Self>::default();
        for of in [NAMESPACES, SERVICES] {
            let (told_to, subject) = (Arc::clone(&followed), of.clone());
            let subject =
                Subject { of: subject, namespace: None, labels: None, optional: false, older: None };
            tasks.spawn(follow(api.clone(), subject, move |told| told_to.heard().take(&of, &told)));
        }
        followed
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known for Followed {
    fn facts(&self, name: &str) -> Option<NamespaceFacts> {
        let heard = self.heard();
        if heard.lost.contains(&true) {
            return None;
        }
        let mut facts = heard.namespaces.as_ref()?.get(name)?.clone();
        let of_it = heard.services.as_ref()?.range((name.to_owned(), String::new())..);
        facts.services =
            of_it.take_while(|((of, _), _)| of == name).map(|(_, facts)| facts.clone()).collect();
        Some(facts)
    }
}

impl Heard {
    fn take(&mut self, of: &Collection, told: &Told) {
        let lost = matches!(told, Told::Lost(_));
        if *of == NAMESPACES {
            self.lost[0] = lost;
            take(
                &mut self.namespaces,
                told,
                |object| NamespaceFacts::from_object(object).map(|facts| (facts.name.clone(), facts)),
                |object| place(object).1.to_owned(),
            );
        } else {
            self.lost[1] = lost;
            let at = |object: &Json| (place(object).0.to_owned(), place(object).1.to_owned());
            take(
                &mut self.services,
                told,
                |object| ServiceFacts::from_object(object).map(|facts| (at(object), facts)),
                at,
            );
        }
    }
}

/// Puts what is told in `all`, by what counts of an object, and where it is.
fn take<K: Ord, V>(
    all: &mut Option<BTreeMap<K, V>>,
    told: &Told,
    read: impl Fn(&Json) -> Option<(K, V)>,
    at: impl Fn(&Json) -> K,
) {
    match (told, all) {
        (Told::All(objects, _), all) => *all = Some(objects.iter().filter_map(read).collect()),
        (Told::Changed(object), Some(all)) => {
            // One that selects no pods any more is as good as gone.
            all.remove(&at(object));
            all.extend(read(object));
        }
        (Told::Gone(object), Some(all)) => drop(all.remove(&at(object))),
        _ => {}
    }
}
