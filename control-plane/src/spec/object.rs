//! An object: its envelope (`apiVersion`, `kind`, `metadata`) around the specification of its kind.

use std::fmt;

use outrigger_mesh::Label;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::forms;
use super::hint::nearest;
use super::metadata::{self, Metadata, ObjectName};
use super::problem::{Code, Problem};
use super::rules;
use super::schema::{Field, Shape, walk};
use super::tree::{Node, Value};
use super::{
    AccessPolicy, BreakerOverride, Denylist, EgressService, Gateway, GrpcRoute, HttpRoute, Instance,
    MeshDefaults, MeshService, ReferenceGrant, Rollout, RouteFilter, ServicePort, TcpRoute, TokenPolicy,
    TrafficPolicy, access_policy, breaker_override, defaults, denylist, egress, gateway, grpc_route,
    http_route, instance, reference_grant, rollout, route_filter, service, tcp_route, token_policy,
    traffic_policy,
};

/// One thing that a person writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Who it is.
    pub metadata: Metadata,
    /// What it says.
    pub spec: Spec,
}

/// What an object says, by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named as its kind")]
pub enum Spec {
    MeshService(MeshService),
    EgressService(EgressService),
    MeshDefaults(Box<MeshDefaults>),
    Gateway(Gateway),
    Instance(Instance),
    HttpRoute(HttpRoute),
    GrpcRoute(GrpcRoute),
    TcpRoute(TcpRoute),
    RouteFilter(Box<RouteFilter>),
    ReferenceGrant(ReferenceGrant),
    TrafficPolicy(Box<TrafficPolicy>),
    BreakerOverride(BreakerOverride),
    AccessPolicy(AccessPolicy),
    TokenPolicy(Box<TokenPolicy>),
    Denylist(Denylist),
    Rollout(Box<Rollout>),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self.spec {
            Spec::MeshService(_) => Kind::MeshService,
            Spec::EgressService(_) => Kind::EgressService,
            Spec::MeshDefaults(_) => Kind::MeshDefaults,
            Spec::Gateway(_) => Kind::Gateway,
            Spec::Instance(_) => Kind::Instance,
            Spec::HttpRoute(_) => Kind::HttpRoute,
            Spec::GrpcRoute(_) => Kind::GrpcRoute,
            Spec::TcpRoute(_) => Kind::TcpRoute,
            Spec::RouteFilter(_) => Kind::RouteFilter,
            Spec::ReferenceGrant(_) => Kind::ReferenceGrant,
            Spec::TrafficPolicy(_) => Kind::TrafficPolicy,
            Spec::BreakerOverride(_) => Kind::BreakerOverride,
            Spec::AccessPolicy(_) => Kind::AccessPolicy,
            Spec::TokenPolicy(_) => Kind::TokenPolicy,
            Spec::Denylist(_) => Kind::Denylist,
            Spec::Rollout(_) => Kind::Rollout,
        }
    }

    /// The name under which it is unique.
    pub fn key(&self) -> Key {
        let Metadata { namespace, name, .. } = &self.metadata;
        Key { kind: self.kind(), namespace: namespace.clone(), name: name.clone() }
    }

    /// Whether it says the same as `other`, whatever state the writer of either saw.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let (a, b) = (&self.metadata, &other.metadata);
        self.key() == other.key()
            && self.spec == other.spec
            && a.labels == b.labels
            && a.annotations == b.annotations
    }

    /// Its JSON form, which reads back as this object.
    pub fn to_json(&self) -> Json {
        let kind = self.kind();
        let mut json = Map::new();
        json.insert("apiVersion".into(), kind.api_version().into());
        json.insert("kind".into(), kind.as_str().into());
        json.insert("metadata".into(), self.metadata.to_json());
        json.insert("spec".into(), self.spec.to_json());
        Json::Object(json)
    }

    /// Reads back what [`Object::to_json`] gave, without places.
    pub fn from_json(mut json: Json) -> Result<Self, String> {
        let text = |field: &str| json.get(field).and_then(Json::as_str).unwrap_or_default();
        let kind = Kind::parse(text("kind"))
            .filter(|k| k.api_version() == text("apiVersion"))
            .ok_or_else(|| format!("unknown kind {:?} of {:?}", text("kind"), text("apiVersion")))?;
        let metadata = Metadata::from_json(json.get("metadata").unwrap_or(&Json::Null))?;
        let spec = json.get_mut("spec").map(Json::take).unwrap_or_default();
        Ok(Self { metadata, spec: Spec::from_json(kind, spec).map_err(|e| e.to_string())? })
    }
}

impl Spec {
    /// The ports that a service writes.
    pub(crate) fn ports(&self) -> &[ServicePort] {
        match self {
            Self::MeshService(service) => &service.ports,
            Self::EgressService(service) => &service.ports,
            _ => &[],
        }
    }

    fn to_json(&self) -> Json {
        // Serializing these types can not fail: their maps have text as keys. If one ever did, `null` would be
        // refused when it is read back.
        fn of(spec: &impl Serialize) -> Json {
            serde_json::to_value(spec).unwrap_or_default()
        }
        match self {
            Self::MeshService(s) => of(s),
            Self::EgressService(s) => of(s),
            Self::MeshDefaults(s) => of(s),
            Self::Gateway(s) => of(s),
            Self::Instance(s) => of(s),
            Self::HttpRoute(s) => of(s),
            Self::GrpcRoute(s) => of(s),
            Self::TcpRoute(s) => of(s),
            Self::RouteFilter(s) => of(s),
            Self::ReferenceGrant(s) => of(s),
            Self::TrafficPolicy(s) => of(s),
            Self::BreakerOverride(s) => of(s),
            Self::AccessPolicy(s) => of(s),
            Self::TokenPolicy(s) => of(s),
            Self::Denylist(s) => of(s),
            Self::Rollout(s) => of(s),
        }
    }

    fn from_json(kind: Kind, json: Json) -> Result<Self, serde_json::Error> {
        fn of<T: DeserializeOwned>(json: Json) -> Result<T, serde_json::Error> {
            serde_json::from_value(json)
        }
        match kind {
            Kind::MeshService => of(json).map(Self::MeshService),
            Kind::EgressService => of(json).map(Self::EgressService),
            Kind::MeshDefaults => of(json).map(Self::MeshDefaults),
            Kind::Gateway => of(json).map(Self::Gateway),
            Kind::Instance => of(json).map(Self::Instance),
            Kind::HttpRoute => of(json).map(Self::HttpRoute),
            Kind::GrpcRoute => of(json).map(Self::GrpcRoute),
            Kind::TcpRoute => of(json).map(Self::TcpRoute),
            Kind::RouteFilter => of(json).map(Self::RouteFilter),
            Kind::ReferenceGrant => of(json).map(Self::ReferenceGrant),
            Kind::TrafficPolicy => of(json).map(Self::TrafficPolicy),
            Kind::BreakerOverride => of(json).map(Self::BreakerOverride),
            Kind::AccessPolicy => of(json).map(Self::AccessPolicy),
            Kind::TokenPolicy => of(json).map(Self::TokenPolicy),
            Kind::Denylist => of(json).map(Self::Denylist),
            Kind::Rollout => of(json).map(Self::Rollout),
        }
    }
}

/// The kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "their own words")]
pub enum Kind {
    MeshDefaults,
    MeshService,
    EgressService,
    Gateway,
    ReferenceGrant,
    RouteFilter,
    HttpRoute,
    GrpcRoute,
    TcpRoute,
    TrafficPolicy,
    BreakerOverride,
    AccessPolicy,
    TokenPolicy,
    Denylist,
    Rollout,
    Instance,
}

impl Kind {
    /// Every kind, in the order in which one may refer to those before it.
    pub const ALL: [Self; 16] = [
        Self::MeshDefaults,
        Self::MeshService,
        Self::EgressService,
        Self::Gateway,
        Self::ReferenceGrant,
        Self::RouteFilter,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TcpRoute,
        Self::TrafficPolicy,
        Self::BreakerOverride,
        Self::AccessPolicy,
        Self::TokenPolicy,
        Self::Denylist,
        Self::Rollout,
        Self::Instance,
    ];

    /// Whether objects of this kind are services to everybody else.
    pub fn is_service(self) -> bool {
        matches!(self, Self::MeshService | Self::EgressService)
    }

    /// The written word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MeshDefaults => "MeshDefaults",
            Self::MeshService => "MeshService",
            Self::EgressService => "EgressService",
            Self::Gateway => "Gateway",
            Self::Instance => "Instance",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TcpRoute => "TCPRoute",
            Self::RouteFilter => "RouteFilter",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::TrafficPolicy => "TrafficPolicy",
            Self::BreakerOverride => "BreakerOverride",
            Self::AccessPolicy => "AccessPolicy",
            Self::TokenPolicy => "TokenPolicy",
            Self::Denylist => "Denylist",
            Self::Rollout => "Rollout",
        }
    }

    /// The group and version under which it is written.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Gateway | Self::HttpRoute | Self::GrpcRoute | Self::ReferenceGrant => {
                "gateway.networking.k8s.io/v1"
            }
            Self::TcpRoute => "gateway.networking.k8s.io/v1alpha2",
            _ => "outrigger.dev/v1alpha1",
        }
    }

    /// Other versions under which the very same may be written. What is stored has the one above.
    pub(super) fn also_version(self) -> Option<&'static str> {
        match self {
            Self::ReferenceGrant => Some("gateway.networking.k8s.io/v1beta1"),
            Self::TcpRoute => Some("gateway.networking.k8s.io/v1"),
            _ => None,
        }
    }

    /// Whether objects of this kind are routes, whose rules lead to services.
    pub fn is_route(self) -> bool {
        matches!(self, Self::HttpRoute | Self::GrpcRoute | Self::TcpRoute)
    }

    /// The word in the paths of the admin API.
    pub fn collection(self) -> &'static str {
        match self {
            Self::MeshDefaults => "meshdefaults",
            Self::MeshService => "services",
            Self::EgressService => "egressservices",
            Self::Gateway => "gateways",
            Self::Instance => "instances",
            Self::HttpRoute => "httproutes",
            Self::GrpcRoute => "grpcroutes",
            Self::TcpRoute => "tcproutes",
            Self::RouteFilter => "routefilters",
            Self::ReferenceGrant => "referencegrants",
            Self::TrafficPolicy => "trafficpolicies",
            Self::BreakerOverride => "breakeroverrides",
            Self::AccessPolicy => "accesspolicies",
            Self::TokenPolicy => "tokenpolicies",
            Self::Denylist => "denylists",
            Self::Rollout => "rollouts",
        }
    }

    /// The kind of a written word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == text)
    }

    /// The kind of a word in a path of the admin API.
    pub fn of_collection(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.collection() == text)
    }

    pub(super) fn spec_shape(self) -> &'static Shape {
        match self {
            Self::MeshDefaults => &defaults::SHAPE,
            Self::MeshService => &service::SHAPE,
            Self::EgressService => &egress::SHAPE,
            Self::Gateway => &gateway::SHAPE,
            Self::Instance => &instance::SHAPE,
            Self::HttpRoute => &http_route::SHAPE,
            Self::GrpcRoute => &grpc_route::SHAPE,
            Self::TcpRoute => &tcp_route::SHAPE,
            Self::RouteFilter => &route_filter::SHAPE,
            Self::ReferenceGrant => &reference_grant::SHAPE,
            Self::TrafficPolicy => &traffic_policy::SHAPE,
            Self::BreakerOverride => &breaker_override::SHAPE,
            Self::AccessPolicy => &access_policy::SHAPE,
            Self::TokenPolicy => &token_policy::SHAPE,
            Self::Denylist => &denylist::SHAPE,
            Self::Rollout => &rollout::SHAPE,
        }
    }

    /// A service's and an instance's name is part of other names and so a single label.
    pub(super) fn name_is_label(self) -> bool {
        !matches!(
            self,
            Self::HttpRoute
                | Self::GrpcRoute
                | Self::TcpRoute
                | Self::RouteFilter
                | Self::ReferenceGrant
                | Self::TrafficPolicy
                | Self::BreakerOverride
                | Self::AccessPolicy
                | Self::Rollout
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of an object, unique in the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: Label,
    /// Its name in it.
    pub name: ObjectName,
}

impl Key {
    /// `collection/namespace/name`, as in the paths of the admin API; also the key in the store.
    pub fn path(&self) -> String {
        format!("{}/{}/{}", self.kind.collection(), self.namespace, self.name)
    }

    /// Reads [`Key::path`] back.
    pub fn from_path(path: &str) -> Option<Self> {
        let mut parts = path.splitn(3, '/');
        Some(Self {
            kind: Kind::of_collection(parts.next()?)?,
            namespace: Label::new(parts.next()?).ok()?,
            name: ObjectName::new(parts.next()?).ok()?,
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Reads one object from its tree, or tells every mistake in it.
pub(super) fn read(node: &Node) -> Result<Object, Vec<Problem>> {
    let mut problems = vec![];
    let kind = kind_of(node, &mut problems);
    walk(node, &ENVELOPE, &mut String::new(), &mut problems);
    if let Some(kind) = kind {
        walk_spec(node, kind, &mut problems);
    }
    // The same field can be found wrong by the kind's search and by the walk.
    problems.dedup_by(|a, b| a.pointer == b.pointer && a.code == b.code);
    let Some(kind) = kind.filter(|_| problems.is_empty()) else { return Err(problems) };

    // What passed the tables deserializes; should a table and a type ever differ, it is a problem, not a panic.
    let fault = |pointer: &str, message: String| vec![Problem::error(pointer, Code::BadValue, message)];
    let json = node.to_json();
    let metadata = Metadata::from_json(json.get("metadata").unwrap_or(&Json::Null))
        .map_err(|e| fault("/metadata", e))?;
    let spec = json.get("spec").cloned().unwrap_or_else(|| Json::Object(Map::new()));
    let spec = Spec::from_json(kind, spec).map_err(|e| fault("/spec", e.to_string()))?;
    Ok(Object { metadata, spec })
}

fn walk_spec(node: &Node, kind: Kind, problems: &mut Vec<Problem>) {
    if let Some(spec) = node.get("spec").filter(|n| !matches!(n.value, Value::Null)) {
        walk(spec, kind.spec_shape(), &mut "/spec".to_owned(), problems);
    } else if !matches!(kind, Kind::MeshService | Kind::MeshDefaults) {
        problems.push(Problem::error("", Code::MissingField, "the field \"spec\" is missing"));
    }
    let name = node.get("metadata").and_then(|m| m.get("name")).map(|n| &n.value);
    if let Some(Value::Text(name)) = name
        && kind.name_is_label()
        && rules::object_name(name).is_ok()
        && let Err(message) = rules::label(name)
    {
        problems.push(Problem::error("/metadata/name", Code::BadValue, message));
    }
}

fn kind_of(node: &Node, problems: &mut Vec<Problem>) -> Option<Kind> {
    let text = |field: &str| match node.get(field).map(|n| &n.value) {
        Some(Value::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let (word, version) = (text("kind")?, text("apiVersion"));
    let Some(kind) = Kind::parse(word) else {
        let shown: String = word.chars().take(80).collect();
        let problem = Problem::error("/kind", Code::UnknownKind, format!("unknown kind {shown:?}"));
        let words = || Kind::ALL.into_iter().map(Kind::as_str);
        problems.push(match nearest(word, words()) {
            Some(near) => problem.hint(format!("did you mean {near:?}?")),
            None => problem.hint(format!("known here: {}", words().collect::<Vec<_>>().join(", "))),
        });
        return None;
    };
    let known = |v: &&str| *v == kind.api_version() || Some(*v) == kind.also_version();
    if let Some(version) = version.filter(|v| !known(v)) {
        let shown: String = version.chars().take(80).collect();
        let message = format!("unknown version {shown:?} of {kind}");
        problems.push(
            Problem::error("/apiVersion", Code::UnknownKind, message)
                .hint(format!("write {}", kind.api_version())),
        );
    }
    Some(kind)
}

/// The table of an object, with the specification left to a walk of its own: its kind decides.
const ENVELOPE: Shape = Shape::Object(&[
    Field::required("apiVersion", &forms::WORDS),
    Field::required("kind", &forms::WORDS),
    Field::required("metadata", &metadata::SHAPE),
    Field::new("spec", &Shape::Anything),
    Field::new("status", &Shape::Anything),
]);
