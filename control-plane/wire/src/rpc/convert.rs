//! Between our types and those of gRPC.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};
use envoy_types::pb::google::protobuf::{Any, Struct, Value, value::Kind};
use envoy_types::pb::google::rpc;
use outrigger_mesh::{Feature, FeatureSet};
use prost::Message;
use tonic::{Code, Status};

use super::{Hello, RpcError, RpcErrorKind};
use crate::codec::{Fault, shortened};
use crate::pb;
use crate::session::{Carried, DeltaRequest, DeltaResponse, Rejected, kind_of_type_url, type_url};

const REJECTED_URL: &str = "type.outrigger.dev/outrigger.v1.Rejected";
const USER_AGENT: &str = "outrigger-proxy";

pub(super) fn request_to_pb(request: DeltaRequest, hello: Option<&Hello>) -> DeltaDiscoveryRequest {
    let error_detail = (!request.rejected.is_empty()).then(|| nack(request.rejected));
    DeltaDiscoveryRequest {
        node: hello.map(node),
        type_url: type_url(request.kind).to_owned(),
        resource_names_subscribe: request.subscribe,
        resource_names_unsubscribe: request.unsubscribe,
        initial_resource_versions: request.known.into_iter().collect(),
        response_nonce: request.nonce,
        error_detail,
        ..DeltaDiscoveryRequest::default()
    }
}

pub(super) fn request_from_pb(request: DeltaDiscoveryRequest) -> Result<DeltaRequest, RpcError> {
    let kind = kind_of_type_url(&request.type_url)
        .ok_or_else(|| invalid(format!("unknown type {:?}", shortened(&request.type_url))))?;
    let rejected = match request.error_detail {
        None => Vec::new(),
        Some(status) => rejected_from_pb(&status)?,
    };
    Ok(DeltaRequest {
        kind,
        subscribe: request.resource_names_subscribe,
        unsubscribe: request.resource_names_unsubscribe,
        known: request.initial_resource_versions.into_iter().collect(),
        nonce: request.response_nonce,
        rejected,
    })
}

fn nack(rejected: Vec<Rejected>) -> rpc::Status {
    let message = format!("{} refused, the first: {}", rejected.len(), rejected[0].reason);
    let detail = |r: Rejected| Any {
        type_url: REJECTED_URL.to_owned(),
        value: pb::Rejected { name: r.name, version: r.version, reason: shortened(&r.reason) }
            .encode_to_vec(),
    };
    rpc::Status {
        code: Code::InvalidArgument.into(),
        message,
        details: rejected.into_iter().map(detail).collect(),
    }
}

fn rejected_from_pb(status: &rpc::Status) -> Result<Vec<Rejected>, RpcError> {
    if status.details.iter().any(|d| d.type_url != REJECTED_URL) || status.details.is_empty() {
        return Err(invalid("a refusal without a list of what is refused"));
    }
    let read = |detail: &Any| {
        let r = pb::Rejected::decode(detail.value.as_slice()).map_err(|e| invalid(e.to_string()))?;
        Ok(Rejected { name: r.name, version: r.version, reason: shortened(&r.reason) })
    };
    status.details.iter().map(read).collect()
}

pub(super) fn response_to_pb(response: DeltaResponse) -> DeltaDiscoveryResponse {
    let type_url = type_url(response.kind);
    let resource = |carried: Carried| Resource {
        name: carried.name,
        aliases: carried.aliases,
        version: carried.version,
        resource: carried.payload.map(|p| Any { type_url: type_url.to_owned(), value: p.to_vec() }),
        ..Resource::default()
    };
    DeltaDiscoveryResponse {
        system_version_info: response.revision.to_string(),
        resources: response.resources.into_iter().map(resource).collect(),
        type_url: type_url.to_owned(),
        removed_resources: response.removed,
        nonce: response.nonce,
        ..DeltaDiscoveryResponse::default()
    }
}

pub(super) fn response_from_pb(response: DeltaDiscoveryResponse) -> Result<DeltaResponse, RpcError> {
    let kind = kind_of_type_url(&response.type_url)
        .ok_or_else(|| invalid(format!("unknown type {:?}", shortened(&response.type_url))))?;
    let revision = response
        .system_version_info
        .parse()
        .map_err(|_| invalid("a response without a revision in system_version_info"))?;
    let resource = |resource: Resource| {
        let payload = match resource.resource {
            Some(any) if any.type_url != response.type_url => {
                return Err(invalid(format!(
                    "{} of another type than its response",
                    shortened(&resource.name)
                )));
            }
            any => any.map(|a| a.value.into()),
        };
        Ok(Carried { name: resource.name, version: resource.version, payload, aliases: resource.aliases })
    };
    let resources = response.resources.into_iter().map(resource).collect::<Result<_, _>>()?;
    Ok(DeltaResponse {
        kind,
        revision,
        nonce: response.nonce,
        resources,
        removed: response.removed_resources,
    })
}

fn node(hello: &Hello) -> Node {
    let text = |text: String| Value { kind: Some(Kind::StringValue(text)) };
    let mut fields = HashMap::from([("identity".to_owned(), text(hello.identity.to_string()))]);
    if let Some(endpoint) = &hello.endpoint {
        fields.insert("endpoint".to_owned(), text(endpoint.to_string()));
    }
    if hello.elsewhere {
        fields.insert("elsewhere".to_owned(), Value { kind: Some(Kind::BoolValue(true)) });
    }
    fields.insert("requests".to_owned(), Value { kind: Some(Kind::NumberValue(hello.requests.into())) });
    Node {
        id: hello.node.clone(),
        cluster: hello.service.as_ref().map(ToString::to_string).unwrap_or_default(),
        metadata: Some(Struct { fields }),
        user_agent_name: USER_AGENT.to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(hello.version.clone())),
        client_features: hello.features.iter().map(|f| f.as_str().to_owned()).collect(),
        ..Node::default()
    }
}

pub(super) fn hello_from_pb(request: &mut DeltaDiscoveryRequest) -> Result<Hello, RpcError> {
    let node = request.node.take().ok_or_else(|| invalid("the first message does not say who sends it"))?;
    let fields = node.metadata.unwrap_or_default().fields;
    let text = |name: &str| match fields.get(name).and_then(|v| v.kind.as_ref()) {
        Some(Kind::StringValue(text)) => Some(text.as_str()),
        _ => None,
    };
    let elsewhere =
        matches!(fields.get("elsewhere").and_then(|v| v.kind.as_ref()), Some(Kind::BoolValue(true)));
    let requests = match fields.get("requests").and_then(|v| v.kind.as_ref()) {
        Some(Kind::NumberValue(number)) => whole(*number),
        _ => 1,
    };
    let identity = text("identity").ok_or_else(|| invalid("the first message names no identity"))?;
    let version = match node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => version,
        _ => String::new(),
    };
    if !is_node(&node.id) || version.len() > MAX_NODE {
        return Err(invalid(format!("a node and its version are named by 1 to {MAX_NODE} bytes")));
    }
    let name = |e: outrigger_mesh::InvalidName| invalid(e.to_string());
    let service = Some(node.cluster).filter(|c| !c.is_empty());
    Ok(Hello {
        identity: identity.parse().map_err(name)?,
        node: node.id,
        version,
        service: service.map(|s| s.parse()).transpose().map_err(name)?,
        endpoint: text("endpoint").map(str::parse).transpose().map_err(name)?,
        // What we do not know it may know, and it matters to nobody here.
        features: node.client_features.iter().filter_map(|f| Feature::parse(f)).collect::<FeatureSet>(),
        elsewhere,
        requests,
    })
}

/// The whole number from 1 on that is nearest.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of floats ends at the bounds"
)]
fn whole(number: f64) -> u32 {
    (number as u32).max(1)
}

/// Whether a process may be called so.
pub(super) fn is_node(name: &str) -> bool {
    (1..=MAX_NODE).contains(&name.len())
}

const MAX_NODE: usize = 128;

pub(super) fn invalid(message: impl Into<String>) -> RpcError {
    RpcError::new(RpcErrorKind::Invalid, message)
}

impl From<Fault> for RpcError {
    fn from(fault: Fault) -> Self {
        invalid(fault.to_string())
    }
}

pub(super) fn to_status(error: RpcError) -> Status {
    let code = match error.kind {
        RpcErrorKind::Unauthenticated => Code::Unauthenticated,
        RpcErrorKind::Denied => Code::PermissionDenied,
        RpcErrorKind::Invalid => Code::InvalidArgument,
        RpcErrorKind::NotFound => Code::NotFound,
        RpcErrorKind::Conflict => Code::FailedPrecondition,
        RpcErrorKind::Exhausted => Code::ResourceExhausted,
        RpcErrorKind::Unavailable => Code::Unavailable,
        RpcErrorKind::Elsewhere => Code::Aborted,
        RpcErrorKind::Internal => Code::Internal,
    };
    Status::new(code, error.message)
}

pub(super) fn from_status(status: &Status) -> RpcError {
    let kind = match status.code() {
        Code::Unauthenticated => RpcErrorKind::Unauthenticated,
        Code::PermissionDenied => RpcErrorKind::Denied,
        Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => RpcErrorKind::Invalid,
        Code::NotFound => RpcErrorKind::NotFound,
        Code::FailedPrecondition | Code::AlreadyExists => RpcErrorKind::Conflict,
        Code::Aborted => RpcErrorKind::Elsewhere,
        Code::ResourceExhausted => RpcErrorKind::Exhausted,
        // Unknown is what tonic makes of a connection that could not be made or broke.
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Ok => {
            RpcErrorKind::Unavailable
        }
        Code::Internal | Code::DataLoss => RpcErrorKind::Internal,
    };
    RpcError::new(kind, with_causes(status))
}

/// The status's message, followed by what caused it: "transport error" alone helps nobody.
fn with_causes(status: &Status) -> String {
    let mut text = if status.message().is_empty() {
        status.code().description().to_owned()
    } else {
        status.message().to_owned()
    };
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
