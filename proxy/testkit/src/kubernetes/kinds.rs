//! The kinds of objects that the played API server knows: those of a cluster that the mesh has to do with, and whatever a
//! CustomResourceDefinition adds.

use serde_json::{Value, json};

/// One kind of object in one version.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resource {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) kind: String,
    pub(super) namespaced: bool,
    /// Whether its status is written apart from it.
    pub(super) has_status: bool,
    /// What its definition says objects are like, if it has one.
    pub(super) schema: Option<Value>,
    /// What its definition shows of objects in a table.
    pub(super) columns: Vec<Value>,
    /// Names of several kinds together, and short ones.
    names: Value,
}

impl Resource {
    fn new(group: &str, version: &str, plural: &str, kind: &str) -> Self {
        let cluster = ["namespaces", "nodes", "customresourcedefinitions", "mutatingwebhookconfigurations"];
        let everywhere =
            cluster.contains(&plural) || plural.ends_with("reviews") || plural.starts_with("clusterrole");
        let without = ["", "discovery.k8s.io", "coordination.k8s.io", "rbac.authorization.k8s.io"];
        Self {
            group: group.into(),
            version: version.into(),
            plural: plural.into(),
            kind: kind.into(),
            namespaced: !everywhere,
            has_status: !without.contains(&group) || ["pods", "services"].contains(&plural),
            schema: None,
            columns: vec![],
            names: Value::Null,
        }
    }

    /// The group and the plural: objects of several versions are the same.
    pub(super) fn id(&self) -> (String, String) {
        (self.group.clone(), self.plural.clone())
    }

    /// As it stands in objects.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The kinds that a definition adds, one a version.
    pub(super) fn of_definition(definition: &Value) -> Vec<Self> {
        let text = |pointer: &str| definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
        let resource = |version: &Value| Self {
            group: text("/spec/group").into(),
            version: version["name"].as_str().unwrap_or_default().into(),
            plural: text("/spec/names/plural").into(),
            kind: text("/spec/names/kind").into(),
            namespaced: text("/spec/scope") == "Namespaced",
            has_status: version.pointer("/subresources/status").is_some(),
            schema: version.pointer("/schema/openAPIV3Schema").cloned(),
            columns: version["additionalPrinterColumns"].as_array().cloned().unwrap_or_default(),
            names: definition["spec"]["names"].clone(),
        };
        versions.into_iter().flatten().map(resource).collect()
    }

    /// As discovery tells it.
    pub(super) fn described(&self) -> Vec<Value> {
        let is_question = self.plural.ends_with("reviews");
        let verbs = if is_question {
            json!(["create"])
        } else {
            json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"])
        };
        let mut whole = json!({
            "name": self.plural, "singularName": self.kind.to_lowercase(), "namespaced": self.namespaced,
            "kind": self.kind, "verbs": verbs,
        });
        for words in ["shortNames", "categories"] {
            if let Some(said) = self.names.get(words) {
                whole[words] = said.clone();
            }
        }
        let status = json!({
            "name": format!("{}/status", self.plural), "singularName": "", "namespaced": self.namespaced,
            "kind": self.kind, "verbs": ["get", "patch", "update"],
        });
        if self.has_status && !is_question { vec![whole, status] } else { vec![whole] }
    }
}

/// What is known from the start.
pub(super) fn known() -> Vec<Resource> {
    let mut all: Vec<Resource> = TABLE.iter().map(|(g, v, p, k)| Resource::new(g, v, p, k)).collect();
    all.extend(OWN.iter().map(|(plural, kind)| Resource::new("outrigger.dev", "v1alpha1", plural, kind)));
    all
}

const TABLE: &[(&str, &str, &str, &str)] = &[
    ("", "v1", "namespaces", "Namespace"),
    ("", "v1", "nodes", "Node"),
    ("", "v1", "pods", "Pod"),
    ("", "v1", "services", "Service"),
    ("", "v1", "serviceaccounts", "ServiceAccount"),
    ("", "v1", "configmaps", "ConfigMap"),
    ("", "v1", "secrets", "Secret"),
    ("", "v1", "events", "Event"),
    ("apps", "v1", "deployments", "Deployment"),
    ("apps", "v1", "statefulsets", "StatefulSet"),
    ("apps", "v1", "daemonsets", "DaemonSet"),
    ("apps", "v1", "replicasets", "ReplicaSet"),
    ("batch", "v1", "jobs", "Job"),
    ("batch", "v1", "cronjobs", "CronJob"),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    ("coordination.k8s.io", "v1", "leases", "Lease"),
    ("authentication.k8s.io", "v1", "tokenreviews", "TokenReview"),
    ("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview"),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition"),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    ("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole"),
    ("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding"),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    ("gateway.networking.k8s.io", "v1", "gateways", "Gateway"),
    ("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute"),
    ("gateway.networking.k8s.io", "v1", "grpcroutes", "GRPCRoute"),
    ("gateway.networking.k8s.io", "v1", "referencegrants", "ReferenceGrant"),
    ("gateway.networking.k8s.io", "v1beta1", "referencegrants", "ReferenceGrant"),
    ("gateway.networking.k8s.io", "v1alpha2", "tcproutes", "TCPRoute"),
];

const OWN: &[(&str, &str)] = &[
    ("meshdefaults", "MeshDefaults"),
    ("meshservices", "MeshService"),
    ("egressservices", "EgressService"),
    ("instances", "Instance"),
    ("routefilters", "RouteFilter"),
    ("trafficpolicies", "TrafficPolicy"),
    ("breakeroverrides", "BreakerOverride"),
    ("accesspolicies", "AccessPolicy"),
    ("tokenpolicies", "TokenPolicy"),
    ("denylists", "Denylist"),
    ("rollouts", "Rollout"),
];
