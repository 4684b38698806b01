//! The admin API of the control plane, as the commands ask it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, IF_MATCH};
use http::{Method, StatusCode, Uri};
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};
use crate::http::{Answer, Ask, NoAnswer, ask};
use crate::problems::Refusal;

/// A control plane's admin API.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    address: SocketAddr,
}

/// A stored object with the tag that a change to it must carry.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) object: Value,
    etag: Option<String>,
}

/// Why a write was not done.
#[derive(Debug)]
pub(crate) enum NotWritten {
    /// The resources have problems.
    Refused(Refusal),
    /// Anything else.
    Failed(Failure),
}

impl Admin {
    /// The API at a URL such as `http://127.0.0.1:15080`.
    pub(crate) fn at(url: &str) -> Result<Self, Failure> {
        parse(url).map(|address| Self { address }).map_err(|why| {
            Failure::usage(format!("{url:?} is not the URL of an admin API: {why}"))
                .hint("write it as http://127.0.0.1:15080; it listens on loopback only")
        })
    }

    /// Every object of a kind, in one namespace or in all; and what is only told: `proxies`, `stats`.
    pub(crate) async fn list(&self, plural: &str, namespace: Option<&str>) -> Result<Value, Failure> {
        let path = match namespace {
            Some(namespace) => format!("/v1/{plural}/{namespace}"),
            None => format!("/v1/{plural}"),
        };
        let mut list = body(&self.read(&path).await?)?;
        for _ in 1..MOST_PAGES {
            let Some(after) = list["continue"].as_str().map(str::to_owned) else { return Ok(list) };
            let mut page = body(&self.read(&format!("{path}?continue={after}")).await?)?;
            if let (Some(all), Some(more)) = (list["items"].as_array_mut(), page["items"].as_array_mut()) {
                all.append(more);
            }
            list["continue"] = page["continue"].take();
        }
        Err(Failure::failed(format!("there are more {plural} than this command reads"))
            .hint("name a namespace"))
    }

    /// One object. `None` when there is none of that name.
    pub(crate) async fn object(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Stored>, Failure> {
        let answer = self.send(Ask::get(&format!("/v1/{plural}/{namespace}/{name}"))).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                Ok(Some(Stored { object: body(&answer)?, etag: answer.etag().map(str::to_owned) }))
            }
            _ => Err(unexpected(&answer)),
        }
    }

    /// Deletes an object as it was read, and only so.
    pub(crate) async fn delete(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
        stored: &Stored,
    ) -> Result<(), NotWritten> {
        self.delete_because(plural, namespace, name, stored, None).await
    }

    /// The same, with a reason for the audit log.
    pub(crate) async fn delete_because(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
        stored: &Stored,
        why: Option<&str>,
    ) -> Result<(), NotWritten> {
        let mut headers = HeaderMap::new();
        let tag = stored.etag.as_deref().and_then(|tag| HeaderValue::from_str(tag).ok());
        headers.insert(IF_MATCH, tag.unwrap_or(HeaderValue::from_static("*")));
        if let Some(why) = why.and_then(|why| HeaderValue::from_str(why).ok()) {
            headers.insert("x-outrigger-why", why);
        }
        let path = format!("/v1/{plural}/{namespace}/{name}");
        let asked = Ask { method: Method::DELETE, headers, ..Ask::get(&path) };
        written(self.send(asked).await).map(|_| ())
    }

    /// Writes all of these or none.
    pub(crate) async fn apply(
        &self,
        items: &[Value],
        dry_run: bool,
        wait: Option<Duration>,
    ) -> Result<Value, NotWritten> {
        let mut query = Vec::new();
        if dry_run {
            query.push("dryRun=true".to_owned());
        }
        if let Some(wait) = wait {
            query.push(format!("wait=applied&timeout={}ms", wait.as_millis()));
        }
        let path =
            if query.is_empty() { "/v1/apply".into() } else { format!("/v1/apply?{}", query.join("&")) };
        let within = Duration::from_secs(30) + wait.unwrap_or_default();
        let asked = post(&path, &json!({ "items": items }), within);
        let answer = written(self.send(asked).await)?;
        body(&answer).map_err(NotWritten::Failed)
    }

    /// A token with which one sidecar may ask for its first certificate.
    pub(crate) async fn join_token(
        &self,
        namespace: &str,
        service_account: &str,
        ttl: &str,
    ) -> Result<Value, Failure> {
        let wanted = json!({ "namespace": namespace, "serviceAccount": service_account, "ttl": ttl });
        let answer = self.send(post("/v1/join-tokens", &wanted, Duration::from_secs(10))).await?;
        if answer.status.is_success() { body(&answer) } else { Err(unexpected(&answer)) }
    }

    /// What would become of a request.
    pub(crate) async fn explain(&self, described: &Value) -> Result<Value, Failure> {
        self.ask("/v1/explain", described).await
    }

    /// Asks for something to be done, and answers what the control plane said of it.
    pub(crate) async fn ask(&self, path: &str, wanted: &Value) -> Result<Value, Failure> {
        let answer = self.send(post(path, wanted, Duration::from_secs(30))).await?;
        if answer.status.is_success() { body(&answer) } else { Err(unexpected(&answer)) }
    }

    async fn read(&self, path: &str) -> Result<Answer, Failure> {
        let answer = self.send(Ask::get(path)).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(unexpected(&answer)) }
    }

    async fn send(&self, asked: Ask<'_>) -> Result<Answer, Failure> {
        ask(self.address, asked).await.map_err(|why| {
            let message = format!("the control plane at http://{}: {why}", self.address);
            let hint = match why {
                NoAnswer::Connect(_) => {
                    "is outrigger-control running? give its admin address with --admin or OUTRIGGER_ADMIN"
                }
                NoAnswer::Broken(_) => {
                    "does something else listen there? give the admin address with --admin or OUTRIGGER_ADMIN"
                }
                NoAnswer::Late(_) => "try again; its log tells what keeps it",
            };
            Failure::new(Exit::Unreachable, message).hint(hint)
        })
    }
}

/// A page has 1,000 objects.
const MOST_PAGES: usize = 200;

fn parse(url: &str) -> Result<SocketAddr, String> {
    let uri: Uri = url.parse().map_err(|e| format!("{e}"))?;
    if uri.scheme_str() != Some("http") {
        return Err("it must begin with http://".into());
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err("it must end after the port".into());
    }
    let host = uri.host().unwrap_or_default();
    let ip = match host.trim_start_matches('[').trim_end_matches(']') {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        other => other.parse().map_err(|_| format!("{other:?} is not an address"))?,
    };
    Ok(SocketAddr::new(ip, uri.port_u16().unwrap_or(80)))
}

fn post<'a>(path: &'a str, value: &Value, within: Duration) -> Ask<'a> {
    Ask { method: Method::POST, body: Some(value.to_string().into_bytes()), within, ..Ask::get(path) }
}

fn body(answer: &Answer) -> Result<Value, Failure> {
    if answer.body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&answer.body).map_err(|e| {
        Failure::failed(format!("the control plane answered with something that is not JSON: {e}"))
    })
}

fn written(answer: Result<Answer, Failure>) -> Result<Answer, NotWritten> {
    let answer = answer.map_err(NotWritten::Failed)?;
    if answer.status.is_success() {
        return Ok(answer);
    }
    match Refusal::read(&answer.body) {
        Some(refusal) if !refusal.problems.is_empty() => Err(NotWritten::Refused(refusal)),
        _ => Err(NotWritten::Failed(unexpected(&answer))),
    }
}

fn unexpected(answer: &Answer) -> Failure {
    let what =
        Refusal::read(&answer.body).map_or_else(|| short(&answer.text()), |refusal| refusal.sentence());
    let status = answer.status;
    let failure = Failure::failed(format!("the control plane answered {}: {what}", status.as_u16()));
    match status {
        StatusCode::PRECONDITION_FAILED => {
            failure.hint("somebody else changed it meanwhile; run the command again")
        }
        StatusCode::NOT_FOUND => failure.hint("`outrigger get services -A` lists what there is"),
        _ => failure,
    }
}

fn short(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() { "nothing".into() } else { text.chars().take(300).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::answers;

    fn admin(address: SocketAddr) -> Admin {
        Admin::at(&format!("http://{address}")).unwrap()
    }

    #[test]
    fn a_url_names_a_host_and_a_port_and_nothing_else() {
        for (url, expected) in [
            ("http://127.0.0.1:15080", Some("127.0.0.1:15080")),
            ("http://localhost:1/", Some("127.0.0.1:1")),
            ("http://[::1]:9", Some("[::1]:9")),
            ("https://127.0.0.1:15080", None),
            ("127.0.0.1:15080", None),
            ("http://127.0.0.1:15080/v1", None),
            ("http://mesh.example:80", None),
        ] {
            assert_eq!(parse(url).ok(), expected.map(|a| a.parse().unwrap()), "{url}");
        }
    }

    #[tokio::test]
    async fn a_refusal_carries_every_problem() {
        let body = json!({"title": "refused", "problems": [
            {"pointer": "/items/0/spec/a", "code": "x", "message": "no", "hint": "yes", "severity": "error"},
            {"pointer": "/items/1", "code": "y", "message": "never", "severity": "error"},
        ]});
        let (address, server) = answers(vec![(422, "", body.to_string())]).await;
        let refused = admin(address).apply(&[json!({"kind": "MeshService"})], true, None).await;
        let Err(NotWritten::Refused(refusal)) = refused else { panic!("{refused:?}") };
        assert_eq!(refusal.problems.len(), 2);
        let asked = server.await.unwrap().remove(0);
        assert!(asked.starts_with("POST /v1/apply?dryRun=true HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("content-type: application/json\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn an_object_is_deleted_only_as_it_was_read() {
        let (address, server) = answers(vec![
            (200, "etag: \"12\"\r\n", json!({"kind": "MeshService"}).to_string()),
            (412, "", json!({"title": "changed", "detail": "it is at 13"}).to_string()),
        ])
        .await;
        let stored = admin(address).object("services", "shop", "cart").await.unwrap().unwrap();
        let refused = admin(address).delete("services", "shop", "cart", &stored).await;
        let Err(NotWritten::Failed(failure)) = refused else { panic!("{refused:?}") };
        assert!(failure.to_string().contains("412: it is at 13"), "{failure}");
        assert!(failure.to_string().contains("run the command again"), "{failure}");
        assert!(server.await.unwrap()[1].contains("if-match: \"12\"\r\n"));
    }

    #[tokio::test]
    async fn a_long_list_is_read_page_by_page() {
        let (address, server) = answers(vec![
            (200, "", json!({"revision": 3, "items": [1, 2], "continue": "shop/b"}).to_string()),
            (200, "", json!({"revision": 3, "items": [3]}).to_string()),
        ])
        .await;
        let list = admin(address).list("services", None).await.unwrap();
        assert_eq!(list["items"], json!([1, 2, 3]));
        assert!(server.await.unwrap()[1].starts_with("GET /v1/services?continue=shop/b HTTP/1.1"));
    }

    #[tokio::test]
    async fn nobody_listening_is_told_with_what_to_do() {
        let failure = Admin::at("http://127.0.0.1:1").unwrap().list("services", None).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Unreachable);
        assert!(failure.to_string().contains("OUTRIGGER_ADMIN"), "{failure}");
    }
}
