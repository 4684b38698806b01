//! The names by which a member of the mesh is known. Others rely on them: the chart, dashboards, people.

/// The label of a namespace or a pod that asks: `enabled`, `disabled` or `ingress`.
pub const INJECT_LABEL: &str = "outrigger.dev/inject";
/// The label of every pod that is a member: [`INJECTED_WHOLE`] or [`INJECTED_OUTBOUND`].
pub const INJECTED_LABEL: &str = "outrigger.dev/injected";
/// On [`INJECTED_LABEL`]: what leaves the pod and what arrives at it goes by its sidecar, so that it is reached by mutual TLS.
pub const INJECTED_WHOLE: &str = "true";
/// On [`INJECTED_LABEL`]: only what leaves the pod goes by its sidecar. It is reached as if it had none.
pub const INJECTED_OUTBOUND: &str = "outbound";
/// What every annotation of ours begins with.
pub const ANNOTATION_PREFIX: &str = "outrigger.dev/";
/// The annotation of a Service or a namespace by which the mesh leaves out the Service, or all that are there: `disabled`.
pub(crate) const DISCOVER: &str = "outrigger.dev/discover";
/// The annotation that tells what was added, as JSON.
pub const STATUS_ANNOTATION: &str = "outrigger.dev/status";
/// The container that puts the redirection in place.
pub const INIT_CONTAINER: &str = "outrigger-init";
/// The container of the sidecar.
pub const PROXY_CONTAINER: &str = "outrigger-proxy";
/// Namespaces without which a cluster does not work. Nothing is ever injected there.
pub const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// What the volumes are called, unless the pod has one of that name itself.
pub(crate) const VOLUME_IDENTITY: &str = "outrigger-identity";
pub(crate) const VOLUME_TOKEN: &str = "outrigger-token";
pub(crate) const VOLUME_PODINFO: &str = "outrigger-podinfo";
pub(crate) const VOLUME_ROOTS: &str = "outrigger-roots";

/// Containers by which sidecars of other meshes are known.
pub(crate) const OTHER_MESHES: [(&str, &str); 7] = [
    ("istio-proxy", "Istio"),
    ("istio-init", "Istio"),
    ("linkerd-proxy", "Linkerd"),
    ("linkerd-init", "Linkerd"),
    ("kuma-sidecar", "Kuma"),
    ("kuma-init", "Kuma"),
    ("consul-dataplane", "Consul"),
];

pub(crate) const SCRAPE: &str = "prometheus.io/scrape";
pub(crate) const SCRAPE_PORT: &str = "prometheus.io/port";
pub(crate) const SCRAPE_PATH: &str = "prometheus.io/path";
pub(crate) const SCRAPE_SCHEME: &str = "prometheus.io/scheme";
pub(crate) const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
pub(crate) const DEFAULT_LOGS: &str = "kubectl.kubernetes.io/default-logs-container";
/// The cluster autoscaler leaves a node alone whose pods have local volumes, but for those named here.
pub(crate) const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
