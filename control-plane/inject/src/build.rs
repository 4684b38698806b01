//! The pod as a member of the mesh, made from the pod as it would be without.

use serde_json::{Map, Value, json};

use crate::decision::{Mode, Warning};
use crate::env::Told;
use crate::json::{as_object, list, list_in, member, object_in, text, texts};
use crate::names::{DEFAULT_CONTAINER, DEFAULT_LOGS, SAFE_TO_EVICT};
use crate::options::Options;
use crate::overlay::overlay;
use crate::ports::SidecarPorts;
use crate::probes::{Rewriter, Rewritten};
use crate::prometheus::{self, Scraped};
use crate::resources::is_guaranteed;
use crate::service::Served;
use crate::strip::{Taken, missing_parents};
use crate::volumes::Volumes;
use crate::{
    INIT_CONTAINER, INJECTED_LABEL, INJECTED_OUTBOUND, INJECTED_WHOLE, NamespaceFacts, PROXY_CONTAINER,
    Problem, STATUS_ANNOTATION, Settings, Status, containers, warnings as looks,
};

/// What is built from.
pub(crate) struct Plan<'a> {
    pub(crate) mode: Mode,
    pub(crate) options: &'a Options,
    pub(crate) namespace: &'a NamespaceFacts,
    pub(crate) settings: &'a Settings,
}

impl Plan<'_> {
    /// `bare` as a member. What is `taken` from it before keeps what others have put into it.
    pub(crate) fn build(
        &self,
        bare: &Value,
        taken: &Taken,
        warnings: &mut Vec<Warning>,
    ) -> Result<Value, Vec<Problem>> {
        let metadata = bare.get("metadata").unwrap_or(&Value::Null);
        let spec = bare.get("spec").unwrap_or(&Value::Null);
        looks::look(bare, self.namespace, self.options, self.settings, warnings);
        let served = self.served(bare, warnings)?;
        let ports = SidecarPorts::choose(spec, served.as_ref());
        for (usual, chosen) in ports.moved() {
            let message = format!("a container has port {usual}: the sidecar takes {chosen} in its place");
            warnings.push(Warning { code: "port_moved", message });
        }
        let mut pod = bare.clone();
        let members = as_object(&mut pod);
        let rewritten = match &served {
            Some(_) => self.rewrite(object_in(members, "spec"), &ports, warnings),
            // What is not redirected reaches the application by itself.
            None => Rewritten::default(),
        };
        let scraped = if self.options.scrape {
            prometheus::merge(metadata, spec, ports.health, warnings)
        } else {
            Scraped::default()
        };
        let told = Told {
            metadata,
            settings: self.settings,
            options: self.options,
            ports: &ports,
            served: served.as_ref(),
            probes: (!rewritten.table.is_empty()).then(|| Value::Object(rewritten.table.clone()).to_string()),
            metrics: scraped.application.clone(),
            grace: grace(spec.get(GRACE)),
            is_job: looks::is_job(bare, spec),
        };
        let volumes = Volumes::choose(spec);
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            volumes: volumes.names().map(str::to_owned).into(),
            probes: rewritten.originals,
            made: missing_parents(bare, &taken.made),
            ..Status::default()
        };
        let into = object_in(members, "spec");
        self.add_containers(into, &told, &volumes, taken, &mut status);
        self.add_volumes(into, &volumes, taken);
        self.add_secrets(into, &mut status);
        // Callers go by it: TLS to a pod at which nothing is redirected would be TLS to the bare application.
        let injected = if served.is_some() { INJECTED_WHOLE } else { INJECTED_OUTBOUND };
        self.annotate(object_in(members, "metadata"), spec, &scraped, &volumes, injected, status);
        Ok(pod)
    }

    fn served(&self, bare: &Value, warnings: &mut Vec<Warning>) -> Result<Option<Served>, Vec<Problem>> {
        match self.mode {
            Mode::Ingress => Ok(None),
            Mode::Whole => {
                Served::find(bare, self.namespace, self.options, warnings).map_err(|problem| vec![problem])
            }
        }
    }

    fn rewrite(
        &self,
        spec: &mut Map<String, Value>,
        ports: &SidecarPorts,
        warnings: &mut Vec<Warning>,
    ) -> Rewritten {
        if !self.options.rewrite_probes {
            return Rewritten::default();
        }
        let rewriter = Rewriter {
            health: ports.health,
            skipped: &self.options.skip_inbound_ports,
            grace: grace(spec.get(GRACE)),
            native: self.options.native,
        };
        rewriter.rewrite(spec, warnings)
    }

    fn add_containers(
        &self,
        spec: &mut Map<String, Value>,
        told: &Told<'_>,
        volumes: &Volumes,
        taken: &Taken,
        status: &mut Status,
    ) {
        let (mut proxy, mut init) = (self.options.resources.clone(), self.settings.init_resources.clone());
        if is_guaranteed(&Value::Object(spec.clone())) {
            (proxy, init) = (proxy.guaranteed(), init.guaranteed());
        }
        let init = kept(containers::init(told, volumes, &init), INIT_CONTAINER, taken);
        let mut proxy = kept(containers::proxy(told, volumes, &proxy), PROXY_CONTAINER, taken);
        containers::without_others(&mut proxy, self.options.native, self.options.hold_application);
        let first = list_in(spec, "initContainers");
        if self.options.native {
            first.insert(0, init);
            first.insert(1, proxy);
            status.init_containers = vec![INIT_CONTAINER.into(), PROXY_CONTAINER.into()];
        } else {
            // Last, so that the pod's own initial containers have the network as it is.
            first.push(init);
            list_in(spec, "containers").insert(0, proxy);
            status.init_containers = vec![INIT_CONTAINER.into()];
            status.containers = vec![PROXY_CONTAINER.into()];
        }
    }

    fn add_volumes(&self, spec: &mut Map<String, Value>, volumes: &Volumes, taken: &Taken) {
        let ours = volumes.to_json(self.settings).into_iter().map(|volume| {
            let before = text(&volume, "name").and_then(|name| taken.volumes.get(name));
            match before {
                Some(before) => overlay(volume, before),
                None => volume,
            }
        });
        list_in(spec, "volumes").extend(ours);
    }

    fn add_secrets(&self, spec: &mut Map<String, Value>, status: &mut Status) {
        let has = |spec: &Map<String, Value>, name: &str| {
            let all = spec.get("imagePullSecrets").and_then(Value::as_array);
            all.into_iter().flatten().any(|secret| text(secret, "name") == Some(name))
        };
        for name in &self.settings.pull_secrets {
            if !has(spec, name) {
                list_in(spec, "imagePullSecrets").push(json!({ "name": name }));
                status.image_pull_secrets.push(name.clone());
            }
        }
    }

    fn annotate(
        &self,
        metadata: &mut Map<String, Value>,
        spec: &Value,
        scraped: &Scraped,
        volumes: &Volumes,
        injected: &str,
        mut status: Status,
    ) {
        let mut set: Vec<(&str, String)> = scraped.annotations.clone();
        let holder = Value::Object(metadata.clone());
        let of =
            |wanted: &str| texts(&holder, "annotations").find(|(name, _)| *name == wanted).map(|(_, v)| v);
        let evict = match of(SAFE_TO_EVICT) {
            None | Some("") => volumes.identity.clone(),
            Some(others) => format!("{others},{}", volumes.identity),
        };
        set.push((SAFE_TO_EVICT, evict));
        let first = list(spec, "containers").first().and_then(|container| text(container, "name"));
        if let Some(first) = first.filter(|_| !self.options.native) {
            let missing = [DEFAULT_CONTAINER, DEFAULT_LOGS].into_iter().filter(|name| of(name).is_none());
            set.extend(missing.map(|name| (name, first.to_owned())));
        }
        let annotations = object_in(metadata, "annotations");
        for (name, value) in set {
            let before = annotations.insert(name.to_owned(), Value::String(value));
            status.annotations.insert(name.to_owned(), before.unwrap_or(Value::Null));
        }
        let before = object_in(metadata, "labels").insert(INJECTED_LABEL.to_owned(), json!(injected));
        status.labels.insert(INJECTED_LABEL.to_owned(), before.unwrap_or(Value::Null));
        let told = serde_json::to_string(&status).unwrap_or_default();
        object_in(metadata, "annotations").insert(STATUS_ANNOTATION.to_owned(), Value::String(told));
    }
}

/// The field that says how long a pod may take to end, in seconds.
const GRACE: &str = "terminationGracePeriodSeconds";

fn grace(written: Option<&Value>) -> u64 {
    written.and_then(Value::as_u64).unwrap_or(30)
}

/// A container with what others have put into it since an earlier injection.
fn kept(container: Value, name: &str, taken: &Taken) -> Value {
    match taken.containers.get(name) {
        Some(before) => overlay(container, before),
        None => container,
    }
}

/// Puts the elements of lists that have no order where they were in `before`, and new ones behind.
pub(crate) fn keep_places(pod: &mut Value, before: &Value) {
    let name = |element: &Value| text(element, "name").unwrap_or_default().to_owned();
    for part in ["volumes", "imagePullSecrets"] {
        let Some(Value::Array(before)) = before.get("spec").and_then(|spec| member(spec, part)) else {
            continue;
        };
        let Some(Value::Array(elements)) = pod.pointer_mut(&format!("/spec/{part}")) else { continue };
        let mut places: Vec<Option<String>> = before.iter().map(|element| Some(name(element))).collect();
        let mut placed: Vec<(usize, Value)> = Vec::with_capacity(elements.len());
        for element in elements.drain(..) {
            let wanted = Some(name(&element));
            let place = places.iter().position(|place| *place == wanted);
            if let Some(taken) = place.and_then(|place| places.get_mut(place)) {
                *taken = None;
            }
            placed.push((place.unwrap_or(usize::MAX), element));
        }
        placed.sort_by_key(|(place, _)| *place);
        elements.extend(placed.into_iter().map(|(_, element)| element));
    }
}
