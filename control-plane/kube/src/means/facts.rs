//! What is known of a cluster, and what in the mesh differs when something of it changes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::instance::{PodFacts, Slice, behind, instances};
use super::service::{derive, is_meant};
use super::{NAMESPACES, PODS, SERVICES, SLICES};
use crate::api::{Collection, place};
use crate::follow::{Told, version};

/// A namespace and a name in it.
type Place = (String, String);

/// Everything of a cluster that counts. Of pods and slices only what counts is kept.
#[derive(Debug, Default)]
pub struct Facts {
    namespaces: BTreeMap<String, Value>,
    services: BTreeMap<Place, (Value, u64)>,
    slices: BTreeMap<Place, Slice>,
    pods: BTreeMap<Place, PodFacts>,
}

/// The Services that may mean something else now.
pub type Touched = BTreeSet<Place>;

impl Facts {
    /// Takes what is told of one of [`super::SOURCES`]; other collections mean nothing here.
    pub fn take(&mut self, of: &Collection, told: &Told) -> Touched {
        match told {
            Told::All(items, _) => {
                let mut touched = self.all_places();
                self.clear(of);
                for item in items {
                    touched.extend(self.put(of, item));
                }
                touched
            }
            Told::Changed(object) => {
                // A slice may have been another Service's.
                let mut touched = self.of_slice(of, object);
                touched.extend(self.put(of, object));
                touched
            }
            Told::Gone(object) => self.remove(of, object),
            Told::At(_) | Told::Lost(_) => Touched::new(),
        }
    }

    /// The MeshService that a Service is, with the Service's version; `None` where there is none that is meant.
    pub fn service(&self, at: &Place) -> Option<(Value, u64)> {
        let (service, version) = self.meant(at)?;
        let noted = self.noted(&at.0);
        let behind = behind(service, noted, self.slices_of(at), |pod| self.pod(&at.0, pod));
        Some((derive(service, noted, &behind), *version))
    }

    /// When a Service was made, as it says.
    pub fn created(&self, at: &Place) -> Option<&str> {
        self.services.get(at)?.0["metadata"]["creationTimestamp"].as_str()
    }

    /// The Instances of a Service, by their names.
    pub fn instances(&self, at: &Place) -> BTreeMap<String, Value> {
        let Some((service, _)) = self.meant(at) else { return BTreeMap::new() };
        instances(service, self.slices_of(at), |pod| self.pod(&at.0, pod))
    }

    /// The namespaces, with what is noted on each.
    pub fn namespaces(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.namespaces.iter().map(|(name, noted)| (name.as_str(), noted))
    }

    /// What is noted on a namespace, where there is one of this name.
    pub fn namespace(&self, name: &str) -> Option<&Value> {
        self.namespaces.get(name)
    }

    /// The Services of a namespace, in the order of their names.
    pub fn services_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Value> {
        let from = self.services.range((namespace.to_owned(), String::new())..);
        from.take_while(move |((of, _), _)| of == namespace).map(|(_, (service, _))| service)
    }

    fn meant(&self, at: &Place) -> Option<&(Value, u64)> {
        self.services.get(at).filter(|(service, _)| is_meant(service, self.noted(&at.0)))
    }

    fn noted(&self, namespace: &str) -> &Value {
        self.namespace(namespace).unwrap_or(&Value::Null)
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<&PodFacts> {
        self.pods.get(&(namespace.to_owned(), name.to_owned()))
    }

    fn slices_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Slice> {
        let from = self.slices.range((namespace.to_owned(), String::new())..);
        from.take_while(move |((of, _), _)| of == namespace).map(|(_, slice)| slice)
    }

    fn slices_of<'a>(&'a self, at: &'a Place) -> impl Iterator<Item = &'a Slice> {
        self.slices_in(&at.0).filter(|slice| slice.service == at.1)
    }

    fn put(&mut self, of: &Collection, object: &Value) -> Touched {
        let at = place_of(object);
        if *of == NAMESPACES {
            // What counts of it is what is noted on it.
            let metadata = &object["metadata"];
            let noted = json!({ "metadata": { "labels": metadata["labels"], "annotations": metadata["annotations"] } });
            let same = self.namespaces.get(&at.1) == Some(&noted);
            self.namespaces.insert(at.1.clone(), noted);
            return if same { Touched::new() } else { self.of_namespace(&at.1) };
        }
        if *of == SERVICES {
            let mut service = object.clone();
            if let Some(metadata) = service["metadata"].as_object_mut() {
                metadata.shift_remove("managedFields");
            }
            self.services.insert(at.clone(), (service, version(object).unwrap_or_default()));
            return [at].into();
        }
        if *of == SLICES {
            let Some(slice) = Slice::of(object) else {
                self.slices.remove(&at);
                return Touched::new();
            };
            let service = (at.0.clone(), slice.service.clone());
            self.slices.insert(at, slice);
            return [service].into();
        }
        if *of == PODS {
            let pod = PodFacts::of(object);
            let same = self.pods.get(&at) == Some(&pod);
            self.pods.insert(at.clone(), pod);
            return if same { Touched::new() } else { self.behind(&at) };
        }
        Touched::new()
    }

    fn remove(&mut self, of: &Collection, object: &Value) -> Touched {
        let at = place_of(object);
        if *of == NAMESPACES {
            // What is in it goes by itself.
            self.namespaces.remove(&at.1);
        } else if *of == SERVICES {
            self.services.remove(&at);
            return [at].into();
        } else if *of == SLICES {
            let touched = self.of_slice(of, object);
            self.slices.remove(&at);
            return touched;
        } else if *of == PODS {
            self.pods.remove(&at);
            return self.behind(&at);
        }
        Touched::new()
    }

    /// The Service that a slice is known to be of.
    fn of_slice(&self, of: &Collection, object: &Value) -> Touched {
        let at = place_of(object);
        let known = self.slices.get(&at).filter(|_| *of == SLICES);
        known.map(|slice| (at.0.clone(), slice.service.clone())).into_iter().collect()
    }

    /// The Services that a pod stands behind.
    fn behind(&self, pod: &Place) -> Touched {
        let of_it = self.slices_in(&pod.0).filter(|slice| slice.pods().any(|name| name == pod.1));
        of_it.map(|slice| (pod.0.clone(), slice.service.clone())).collect()
    }

    fn of_namespace(&self, namespace: &str) -> Touched {
        self.services.keys().filter(|(of, _)| of == namespace).cloned().collect()
    }

    fn all_places(&self) -> Touched {
        let sliced = self.slices.iter().map(|((of, _), slice)| (of.clone(), slice.service.clone()));
        self.services.keys().cloned().chain(sliced).collect()
    }

    fn clear(&mut self, of: &Collection) {
        if *of == NAMESPACES {
            self.namespaces.clear();
        } else if *of == SERVICES {
            self.services.clear();
        } else if *of == SLICES {
            self.slices.clear();
        } else if *of == PODS {
            self.pods.clear();
        }
    }
}

fn place_of(object: &Value) -> Place {
    let (namespace, name) = place(object);
    (namespace.to_owned(), name.to_owned())
}
