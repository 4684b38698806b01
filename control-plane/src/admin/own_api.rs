//! The API of a service itself: its document, and requests to try it, for people who read about the service.
//!
//! Both go out as requests of the control plane: with its own identity, over mutual TLS, to the sidecar of a ready instance, which
//! has to prove that it may serve the service before anything is sent. So access policies say of them what they say of any caller,
//! and nothing goes to what is no member. Only a service whose owner says that it has an API (`spec.api`) is asked at all.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Json as JsonBody;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use outrigger_certs::{MeshAlpn, MeshConnector};
use outrigger_mesh::{EndpointState, Label, PortNumber, ServiceName, SpiffeId, Transport, canonical_path};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Api, ApiError, Caller};
use crate::audit::AuditEntry;
use crate::spec::{self, Key, Kind, ObjectName, Spec};
use crate::store::{CommitError, Transaction};
use crate::users::permission::{Verb, What};

/// `GET /v1/services/{namespace}/{name}/api`: its OpenAPI document, as an instance tells it.
pub(super) async fn document(
    State(api): State<Api>,
    caller: Caller,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<JsonBody<Json>, ApiError> {
    let (target, told) = target(&api, &caller, Verb::Read, &namespace, &name)?;
    let request = Request::get(&told.path).header(header::ACCEPT, "application/json");
    let answer = target.ask(&api, request, Bytes::new(), MOST_OF_A_DOCUMENT).await?;
    if answer.status != StatusCode::OK {
        let detail = format!("{} answers {} to a request for {}", target.service, answer.status, told.path);
        return Err(ApiError::new(StatusCode::BAD_GATEWAY, detail));
    }
    let whole = if answer.cut { Err("is too long".to_owned()) } else { Ok(()) };
    let document =
        whole.and_then(|()| serde_json::from_slice(&answer.body).map_err(|_| "is not JSON".to_owned()));
    let document: Json = document.map_err(|why| {
        ApiError::new(StatusCode::BAD_GATEWAY, format!("what {} has at {} {why}", target.service, told.path))
    })?;
    Ok(JsonBody(json!({ "instance": answer.instance, "document": document })))
}

/// A request that somebody wants to try.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Tried {
    method: String,
    /// As it is sent, a query may stand behind it.
    path: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
}

/// `POST /v1/services/{namespace}/{name}/try`: one request to it, and what it answers.
pub(super) async fn tried(
    State(api): State<Api>,
    caller: Caller,
    Path((namespace, name)): Path<(String, String)>,
    body: String,
) -> Result<JsonBody<Json>, ApiError> {
    let tried: Tried = serde_json::from_str(&body).map_err(|e| bad(e.to_string()))?;
    let (target, _) = target(&api, &caller, Verb::Change, &namespace, &name)?;
    let request = request(&tried)?;
    // Written down before it is sent: what it does there may not be undone.
    let path = tried.path.split('?').next().unwrap_or_default();
    let what = format!("MeshService {}: {} {path}", target.service, tried.method);
    let audit = vec![AuditEntry::new(&caller.author, "try", what)];
    let noted = api.state.store().commit(Transaction { author: caller.author, writes: vec![], audit }).await;
    if let Err(CommitError::Store(e)) = noted {
        return Err(e.into());
    }
    let began = Instant::now();
    let answer = target.ask(&api, request, Bytes::from(tried.body), MOST_OF_AN_ANSWER).await?;
    let headers = answer.headers.iter().map(|(name, value)| json!([name, value])).collect::<Vec<_>>();
    Ok(JsonBody(json!({
        "instance": answer.instance,
        "status": answer.status.as_u16(),
        "headers": headers,
        "body": String::from_utf8_lossy(&answer.body),
        "cut": answer.cut,
        "ms": (began.elapsed().as_secs_f64() * 10_000.0).round() / 10.0,
    })))
}

fn bad(detail: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, detail)
}

/// The request as it is sent, without what belongs to the connection or to the mesh.
fn request(tried: &Tried) -> Result<http::request::Builder, ApiError> {
    let method = Method::from_bytes(tried.method.as_bytes());
    let method = method.ok().filter(|method| *method != Method::CONNECT);
    let method = method.ok_or_else(|| bad(format!("{:?} is not a method to try", tried.method)))?;
    // As a sidecar would send it on.
    let (path, query) =
        tried.path.split_once('?').map_or((&*tried.path, None), |(path, query)| (path, Some(query)));
    let path = canonical_path(path).map_err(|why| bad(format!("path: {why}")))?;
    let target = query.map_or_else(|| path.to_string(), |query| format!("{path}?{query}"));
    if tried.headers.len() > MOST_HEADERS {
        return Err(bad(format!("at most {MOST_HEADERS} headers are sent")));
    }
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in &tried.headers {
        let read = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
        let (name, value) = read.ok_or_else(|| bad(format!("{name:?} is not a header")))?;
        let own = [header::HOST, header::CONTENT_LENGTH].contains(&name)
            || name.as_str().starts_with("x-outrigger-");
        if own || spec::is_of_connection(name.as_str()) {
            return Err(bad(format!(
                "{name} is not said by who tries: it is of the connection, or the mesh's own"
            )));
        }
        request = request.header(name, value);
    }
    Ok(request)
}

/// Where a service can be asked.
struct Target {
    service: ServiceName,
    identities: Vec<SpiffeId>,
    at: Vec<(String, SocketAddr)>,
}

fn target(
    api: &Api,
    caller: &Caller,
    verb: Verb,
    namespace: &str,
    name: &str,
) -> Result<(Target, spec::ServiceApi), ApiError> {
    let namespace = Label::new(namespace).map_err(|e| bad(e.to_string()))?;
    let label = Label::new(name).map_err(|e| bad(e.to_string()))?;
    caller.may(verb, What::Object(Kind::MeshService), Some(&namespace))?;
    let absent = |detail| ApiError::new(StatusCode::NOT_FOUND, detail);
    let service = ServiceName::new(namespace.clone(), label);
    let world = api.state.world();
    let key = Key { kind: Kind::MeshService, namespace, name: ObjectName::new(name).map_err(bad)? };
    let entry = world.object(&key).ok_or_else(|| absent(format!("{key} does not exist")))?;
    let Spec::MeshService(written) = &entry.object().spec else {
        return Err(absent(format!("{key} does not exist")));
    };
    let told = written.api.clone().ok_or_else(|| {
        absent(format!("{service} says nothing of an API: write spec.api, such as {{path: /openapi.json}}"))
    })?;
    let known =
        world.service(&service).ok_or_else(|| absent(format!("{key} does not exist")))?.checked.service();
    let port = told.port.and_then(PortNumber::new).or(known.ports.first().map(|port| port.number));
    let port = port.ok_or_else(|| absent(format!("{service} has no port")))?;
    let ready = world.instances(&service).map(|entry| &entry.checked.endpoint);
    let ready = ready.filter(|one| one.state == EndpointState::Ready && one.transport == Transport::Mesh);
    let mut at: Vec<_> = ready
        .filter_map(|one| Some((one.uid.to_string(), one.address(port)?)))
        .take(MOST_INSTANCES)
        .collect();
    fastrand::shuffle(&mut at);
    Ok((Target { service, identities: known.identities.clone(), at }, told))
}

/// What came back.
struct Answer {
    instance: String,
    status: StatusCode,
    headers: Vec<(String, String)>,
    body: Bytes,
    /// Whether there was more.
    cut: bool,
}

impl Target {
    async fn ask(
        &self,
        api: &Api,
        request: http::request::Builder,
        body: Bytes,
        most: usize,
    ) -> Result<Answer, ApiError> {
        let certs = api.certs.as_ref();
        let certs = certs.ok_or_else(|| bad("there is no certificate authority here".to_owned()))?;
        let connector =
            MeshConnector::new(certs.keeper.own_identity()).map_err(|e| unreachable(&self.service, &e))?;
        let host = format!("{}.{}.mesh", self.service.name(), self.service.namespace());
        let request = request.header(header::HOST, host).header(header::CONNECTION, "close");
        let request = request.body(Full::new(body)).map_err(|e| bad(e.to_string()))?;
        let whole = timeout(WHOLE, self.exchange(&connector, request, most)).await;
        whole.map_err(|_| {
            let detail = format!("{} did not answer within {} s", self.service, WHOLE.as_secs());
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, detail)
        })?
    }

    async fn exchange(
        &self,
        connector: &MeshConnector,
        request: Request<Full<Bytes>>,
        most: usize,
    ) -> Result<Answer, ApiError> {
        let mut why = "it has no ready instance with a sidecar".to_owned();
        for (instance, at) in &self.at {
            // Another is asked only as long as nothing was sent.
            let stream = match timeout(CONNECT, TcpStream::connect(at)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(e)) => {
                    why = format!("{instance}: {e}");
                    continue;
                }
                Err(_) => {
                    why = format!("{instance} at {at} can not be reached from the control plane");
                    continue;
                }
            };
            let connected = match connector.connect(stream, &self.identities, MeshAlpn::Http1).await {
                Ok(connected) => connected,
                Err(e) => {
                    why = format!("{instance}: {e}");
                    continue;
                }
            };
            let failed = |e: hyper::Error| unreachable(&self.service, &e);
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(connected.stream)).await.map_err(failed)?;
            // It ends with the answer, or with us: whoever waits for an answer drives it.
            let mut connection = std::pin::pin!(connection);
            let exchange = async {
                let response = sender.send_request(request).await.map_err(failed)?;
                answer(instance, response, most).await.map_err(|e| unreachable(&self.service, &e))
            };
            let mut exchange = std::pin::pin!(exchange);
            return tokio::select! {
                answer = &mut exchange => answer,
                _ended = &mut connection => exchange.await,
            };
        }
        Err(unreachable(&self.service, &why))
    }
}

fn unreachable(service: &ServiceName, why: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::BAD_GATEWAY, format!("{service} could not be asked: {why}"))
}

async fn answer(instance: &str, response: Response<Incoming>, most: usize) -> Result<Answer, String> {
    let (head, body) = response.into_parts();
    let mut limited = Limited::new(body, most);
    let (mut kept, mut cut) = (Vec::new(), false);
    while let Some(frame) = limited.frame().await {
        match frame {
            Ok(frame) => kept.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref())),
            Err(e) if e.is::<LengthLimitError>() => {
                cut = true;
                break;
            }
            Err(e) => return Err(e.to_string()),
        }
    }
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    Ok(Answer {
        instance: instance.to_owned(),
        status: head.status,
        headers: headers.collect(),
        body: kept.into(),
        cut,
    })
}

const CONNECT: Duration = Duration::from_secs(2);
/// Everything, from the first connection to the last byte.
const WHOLE: Duration = Duration::from_secs(15);
const MOST_OF_A_DOCUMENT: usize = 4 << 20;
const MOST_OF_AN_ANSWER: usize = 256 << 10;
const MOST_HEADERS: usize = 64;
/// Instances that are tried one after the other.
const MOST_INSTANCES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_the_connection_or_the_meshs_own_is_not_said_by_who_tries() {
        let tried = |method: &str, path: &str, headers: &[(&str, &str)]| {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let headers = headers.iter().map(owned).collect();
            let tried = Tried { method: method.into(), path: path.into(), headers, body: String::new() };
            request(&tried).map(|request| request.body(()).unwrap().uri().to_string())
        };
        assert_eq!(tried("PUT", "/items/7?gift=yes", &[("x-user", "ada")]).unwrap(), "/items/7?gift=yes");
        assert_eq!(tried("GET", "/a/../b", &[]).unwrap(), "/b");
        for name in ["Host", "content-length", "Connection", "transfer-encoding", "x-outrigger-reason", "a b"]
        {
            assert!(tried("GET", "/", &[(name, "1")]).is_err(), "{name}");
        }
        assert!(tried("GET", "/", &[("x-user", "a\r\nb: c")]).is_err(), "a value of two lines");
        for (method, path) in [("CONNECT", "/"), ("", "/"), ("GET", "http://elsewhere/"), ("GET", "")] {
            assert!(tried(method, path, &[]).is_err(), "{method} {path}");
        }
        let many: Vec<_> = (0..=MOST_HEADERS).map(|_| ("x-user", "ada")).collect();
        assert!(tried("GET", "/", &many).is_err(), "too many");
    }
}
