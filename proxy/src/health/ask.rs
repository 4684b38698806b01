//! Puts one question to the application, as the kubelet would: over a connection of its own, without believing or refusing
//! any certificate, within the time of the probe.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_certs::UnverifiedConnector;
use outrigger_mesh::PortNumber;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::table::{Question, What};

/// Asks the application at `ip`. The error says why it is not well.
pub(super) async fn ask(question: &Question, ip: IpAddr, tls: &UnverifiedConnector) -> Result<(), String> {
    let asked = async {
        match &question.what {
            What::Tcp { port } => connect(ip, *port).await.map(drop),
            What::Grpc { port, service } => grpc(connect(ip, *port).await?, service).await,
            What::Http { port, path, tls: false, headers } => {
                let status = get(connect(ip, *port).await?, path, (ip, *port), headers).await?.0;
                well(status)
            }
            What::Http { port, path, tls: true, headers } => {
                let stream = tls.connect(connect(ip, *port).await?, ip).await.map_err(|e| e.to_string())?;
                well(get(stream, path, (ip, *port), headers).await?.0)
            }
        }
    };
    let late = |_| format!("it has not answered within {:?}", question.limit);
    timeout(question.limit, asked).await.map_err(late)?
}

fn well(status: StatusCode) -> Result<(), String> {
    // As the kubelet has it: a redirection is an answer.
    if (200..400).contains(&status.as_u16()) { Ok(()) } else { Err(format!("it answers {status}")) }
}

async fn connect(ip: IpAddr, port: PortNumber) -> Result<TcpStream, String> {
    let address = SocketAddr::new(ip, port.get());
    let stream = TcpStream::connect(address).await.map_err(|e| format!("{address}: {e}"))?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    Ok(stream)
}

/// A GET over `stream`: the status, and the body as far as [`MOST_BODY`].
pub(super) async fn get<IO>(
    stream: IO,
    path: &str,
    (ip, port): (IpAddr, PortNumber),
    headers: &[(HeaderName, HeaderValue)],
) -> Result<(StatusCode, Option<Bytes>), String>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |e: hyper::Error| e.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with this question.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    let mut request = Request::get(path).body(Full::<Bytes>::default()).map_err(|e| e.to_string())?;
    let all = request.headers_mut();
    for (name, value) in headers {
        all.append(name.clone(), value.clone());
    }
    let own = SocketAddr::new(ip, port.get()).to_string();
    let host = HeaderValue::from_str(&own).map_err(|e| e.to_string())?;
    all.entry(header::HOST).or_insert(host);
    all.entry(header::USER_AGENT).or_insert(HeaderValue::from_static("kube-probe/outrigger"));
    all.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let answer = sender.send_request(request).await.map_err(failed)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MOST_BODY).collect().await;
    Ok((status, body.ok().map(http_body_util::Collected::to_bytes)))
}

/// More metrics than any application should have.
const MOST_BODY: usize = 16 * 1024 * 1024;

/// `grpc.health.v1.Health/Check`: one message each way.
async fn grpc(stream: TcpStream, service: &str) -> Result<(), String> {
    let failed = |e: hyper::Error| e.to_string();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with this question.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    let request = Request::post("http://application/grpc.health.v1.Health/Check")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "kube-probe/outrigger")
        .body(Full::new(check(service)?))
        .map_err(|e| e.to_string())?;
    let answer = sender.send_request(request).await.map_err(failed)?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MOST_REPLY).collect().await.map_err(|e| e.to_string())?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
    match status.and_then(|status| status.to_str().ok()) {
        Some("0") => {}
        Some(status) => return Err(format!("it answers with the gRPC status {status:.20}")),
        None => return Err("it answers with no gRPC status".into()),
    }
    if is_serving(&body.to_bytes()) { Ok(()) } else { Err("it does not answer SERVING".into()) }
}

const MOST_REPLY: usize = 4096;

/// HealthCheckRequest: field 1 is the service. Its name is short, so that lengths are single bytes.
fn check(service: &str) -> Result<Bytes, String> {
    let length = u8::try_from(service.len()).ok().filter(|length| *length <= 120);
    let length = length.ok_or("the name of its service is too long")?;
    let mut message = if length == 0 { Vec::new() } else { vec![0x0a, length] };
    message.extend_from_slice(service.as_bytes());
    let size = u8::try_from(message.len()).map_err(|e| e.to_string())?;
    let mut framed = vec![0, 0, 0, 0, size];
    framed.extend_from_slice(&message);
    Ok(framed.into())
}

/// HealthCheckResponse: field 1 is 1, SERVING.
fn is_serving(body: &[u8]) -> bool {
    matches!(body, [0, 0, 0, 0, 2, 0x08, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_of_the_health_protocol_are_as_protobuf_has_them() {
        assert_eq!(check("").as_deref(), Ok(&[0, 0, 0, 0, 0][..]));
        assert_eq!(check("ab").as_deref(), Ok(&[0, 0, 0, 0, 4, 10, 2, b'a', b'b'][..]));
        assert!(
            is_serving(&[0, 0, 0, 0, 2, 8, 1]) && !is_serving(&[0, 0, 0, 0, 2, 8, 2]) && !is_serving(&[])
        );
        assert!(check(&"x".repeat(121)).is_err());
    }
}
