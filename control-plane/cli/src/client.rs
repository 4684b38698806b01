//! The admin API of the control plane, as the commands ask it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, IF_MATCH};
use http::{Method, StatusCode};
use outrigger_certs::ShownCertificate;
use serde_json::{Value, json};

use crate::credentials::Credential;
use crate::events::Events;
use crate::failure::{Exit, Failure};
use crate::http::{Answer, Ask, NoAnswer, ask_server, open_events};
use crate::log_level;
use crate::problems::Refusal;
use crate::server::{Believed, Server};

/// A control plane's admin API.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    server: Server,
    believed: Option<Believed>,
    /// What is sent as proof of who we are.
    bearer: Option<HeaderValue>,
    /// What is shown as proof of who we are.
    shown: Option<ShownCertificate>,
    /// Why something is changed, for the audit log.
    why: Option<HeaderValue>,
    /// What it is about, where no path says it: a role of a cluster may be bound in a namespace.
    namespaces: Option<HeaderValue>,
}

/// A stored object with the tag that a change to it must carry.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) object: Value,
    etag: Option<String>,
}

/// How resources are written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How {
    /// Only checked and told.
    pub(crate) dry_run: bool,
    /// Routes may refer to what is not there.
    pub(crate) dangling: bool,
    /// How long to wait until every sidecar obeys it.
    pub(crate) wait: Option<Duration>,
}

/// What became of the wish to watch.
#[derive(Debug)]
pub(crate) enum Watched {
    /// Changes, as they are made.
    Events(Events),
    /// The changes since then are not kept: list, then watch from there.
    Gone,
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
    /// The API of a control plane of our own at a URL such as `http://127.0.0.1:15080`, without a token.
    pub(crate) fn at(url: &str) -> Result<Self, Failure> {
        let server = Server::parse(url)
            .map_err(|why| Failure::usage(format!("{url:?} is not the URL of an admin API: {why}")))?;
        Self::with(server, None)
    }

    /// The API of `server`, asked by the holder of `credential`. A token is not sent over the network in the clear.
    pub(crate) fn with(server: Server, credential: Option<Credential>) -> Result<Self, Failure> {
        let Some(credential) = credential else {
            if server.is_secure() {
                let url = server.url();
                return Err(Failure::usage(format!("nothing is known of {url}"))
                    .hint(format!("log in there: outrigger login --server {url}")));
            }
            return Ok(Self {
                server,
                believed: None,
                bearer: None,
                shown: None,
                why: None,
                namespaces: None,
            });
        };
        if !server.may_have_a_token() {
            return Err(Failure::usage(format!("{} would get the token in the clear", server.url()))
                .hint("use https://, or http:// on this machine only"));
        }
        if credential.certificate.is_some() && !server.is_secure() {
            return Err(Failure::usage(format!("{} sees no certificate: use https://", server.url())));
        }
        let shown = credential.certificate.map(|files| files.read()).transpose()?;
        let bearer = credential.token.map(|token| HeaderValue::from_str(&token.bearer())).transpose();
        let mut bearer = bearer.map_err(|_| Failure::usage("the token is not text"))?;
        if let Some(bearer) = &mut bearer {
            bearer.set_sensitive(true);
        }
        Ok(Self { server, believed: credential.believed, bearer, shown, why: None, namespaces: None })
    }

    /// The same, with a reason for whatever it will change.
    pub(crate) fn because(mut self, why: Option<&str>) -> Result<Self, Failure> {
        let line = |why: &str| {
            HeaderValue::from_bytes(why.as_bytes())
                .map_err(|_| Failure::usage("--why takes one line of text"))
        };
        self.why = why.map(line).transpose()?;
        Ok(self)
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// The same, for what is about these namespaces.
    pub(crate) fn about<'a>(mut self, namespaces: impl IntoIterator<Item = &'a str>) -> Self {
        let all: BTreeSet<&str> = namespaces.into_iter().collect();
        let said = all.into_iter().collect::<Vec<_>>().join(",");
        // What is no name is refused where it is read.
        self.namespaces = HeaderValue::from_str(&said).ok().filter(|said| !said.is_empty());
        self
    }

    /// Who the control plane takes us for.
    pub(crate) async fn whoami(&self) -> Result<Value, Failure> {
        self.told("/v1/whoami").await
    }

    /// A page of the audit log before a line of it.
    pub(crate) async fn audit(&self, before: Option<u64>) -> Result<Value, Failure> {
        let before = before.map(|line| format!("&before={line}")).unwrap_or_default();
        self.told(&format!("/v1/audit?limit=1000{before}")).await
    }

    /// A new token of this API.
    pub(crate) async fn create_token(&self, wanted: &Value) -> Result<Value, Failure> {
        self.done(post("/v1/tokens", wanted, Duration::from_secs(10))).await
    }

    /// Ends a token of this API.
    pub(crate) async fn revoke_token(&self, id: &str) -> Result<Value, Failure> {
        if !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Failure::usage("that is not the id of a token: `outrigger token list` shows them"));
        }
        let path = format!("/v1/tokens/{id}");
        self.done(Ask { method: Method::DELETE, ..Ask::get(&path) }).await
    }

    async fn done(&self, asked: Ask<'_>) -> Result<Value, Failure> {
        let answer = self.send(asked).await?;
        if answer.status.is_success() { body(&answer) } else { Err(unexpected(&answer)) }
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

    /// Deletes an object as it was read, and only so; what the control plane said of it. `dangling`: routes may be left
    /// that refer to it.
    pub(crate) async fn delete(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
        stored: &Stored,
        dangling: bool,
    ) -> Result<Value, NotWritten> {
        let mut headers = HeaderMap::new();
        let tag = stored.etag.as_deref().and_then(|tag| HeaderValue::from_str(tag).ok());
        headers.insert(IF_MATCH, tag.unwrap_or(HeaderValue::from_static("*")));
        let more = if dangling { "?dangling=allow" } else { "" };
        let path = format!("/v1/{plural}/{namespace}/{name}{more}");
        let asked = Ask { method: Method::DELETE, headers, ..Ask::get(&path) };
        let answer = written(self.send(asked).await)?;
        body(&answer).map_err(NotWritten::Failed)
    }

    /// Writes all of these or none.
    pub(crate) async fn apply(&self, items: &[Value], how: How) -> Result<Value, NotWritten> {
        let names = items.iter().filter_map(|item| item["metadata"]["namespace"].as_str());
        self.clone().about(names).change("/v1/apply", &json!({ "items": items }), how).await
    }

    /// Makes the configuration what it was at a revision.
    pub(crate) async fn rollback(&self, to: u64, how: How) -> Result<Value, NotWritten> {
        self.change("/v1/rollback", &json!({ "to": to }), how).await
    }

    async fn change(&self, path: &str, wanted: &Value, how: How) -> Result<Value, NotWritten> {
        let mut query = Vec::new();
        if how.dry_run {
            query.push("dryRun=true".to_owned());
        }
        if how.dangling {
            query.push("dangling=allow".to_owned());
        }
        if let Some(wait) = how.wait {
            query.push(format!("wait=applied&timeout={}ms", wait.as_millis()));
        }
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) };
        let within = Duration::from_secs(30) + how.wait.unwrap_or_default();
        let answer = written(self.send(post(&path, wanted, within)).await)?;
        body(&answer).map_err(NotWritten::Failed)
    }

    /// The changes after a count; `of`: `config` or `instances`.
    pub(crate) async fn watch(&self, of: &str, since: u64) -> Result<Watched, Failure> {
        let path = format!("/v1/watch?of={of}&since={since}");
        let mut asked = Ask::get(&path);
        asked.headers.extend(self.bearer.clone().map(|bearer| (AUTHORIZATION, bearer)));
        let opened = open_events(&self.server, self.believed.as_ref(), self.shown.as_ref(), asked).await;
        match opened.map_err(|why| self.unreachable(&why))? {
            Ok(events) => Ok(Watched::Events(events)),
            Err(answer) if answer.status == StatusCode::GONE => Ok(Watched::Gone),
            Err(answer) => Err(unexpected(&answer)),
        }
    }

    /// Live requests, as this query wants them.
    pub(crate) async fn tap(&self, query: &str) -> Result<Events, Failure> {
        let path = format!("/v1/tap?{query}");
        let mut asked = Ask::get(&path);
        asked.headers.extend(self.bearer.clone().map(|bearer| (AUTHORIZATION, bearer)));
        asked.headers.extend(self.why.clone().map(|why| (HeaderName::from_static("x-outrigger-why"), why)));
        let opened = open_events(&self.server, self.believed.as_ref(), self.shown.as_ref(), asked).await;
        opened.map_err(|why| self.unreachable(&why))?.map_err(|answer| unexpected(&answer))
    }

    /// What is told at a path.
    pub(crate) async fn told(&self, path: &str) -> Result<Value, Failure> {
        body(&self.read(path).await?)
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

    /// Has the control plane log something else for a time, and answers what holds then.
    pub(crate) async fn set_log_level(&self, wanted: &Value) -> Result<Value, Failure> {
        let asked = Ask { method: Method::PUT, ..post(log_level::PATH, wanted, Duration::from_secs(10)) };
        let answer = self.send(asked).await?;
        if answer.status.is_success() { body(&answer) } else { Err(unexpected(&answer)) }
    }

    /// Everything that is kept. `progress` hears how many bytes have come.
    pub(crate) async fn backup(&self, keys: bool, progress: Option<fn(usize)>) -> Result<Bytes, Failure> {
        let path = if keys { "/v1/backup?keys=true" } else { "/v1/backup" };
        let (within, largest) = (Duration::from_secs(600), LARGEST_BACKUP);
        let answer = self.send(Ask { within, largest, progress, ..Ask::get(path) }).await?;
        if answer.status.is_success() { Ok(answer.body) } else { Err(unexpected(&answer)) }
    }

    async fn read(&self, path: &str) -> Result<Answer, Failure> {
        let answer = self.send(Ask::get(path)).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(unexpected(&answer)) }
    }

    async fn send(&self, mut asked: Ask<'_>) -> Result<Answer, Failure> {
        if let Some(bearer) = &self.bearer {
            asked.headers.insert(AUTHORIZATION, bearer.clone());
        }
        if let Some(why) = self.why.as_ref().filter(|_| asked.method != Method::GET) {
            asked.headers.insert("x-outrigger-why", why.clone());
        }
        if let Some(namespaces) = &self.namespaces {
            asked.headers.insert("x-outrigger-namespaces", namespaces.clone());
        }
        let answer = ask_server(&self.server, self.believed.as_ref(), self.shown.as_ref(), asked).await;
        answer.map_err(|why| self.unreachable(&why))
    }

    fn unreachable(&self, why: &NoAnswer) -> Failure {
        let message = format!("the control plane at {}: {why}", self.server.url());
        let hint = match why {
            NoAnswer::Connect(_) => {
                "is outrigger-control running? give its admin address with --server or OUTRIGGER_SERVER"
            }
            NoAnswer::Broken(_) => {
                "does something else listen there? give the admin address with --server or OUTRIGGER_SERVER"
            }
            NoAnswer::Unproven(_) => {
                "is it another mesh, or was the root turned? `outrigger login` takes --ca-pin or --ca-file"
            }
            NoAnswer::Late(_) => "try again; its log tells what keeps it",
        };
        Failure::new(Exit::Unreachable, message).hint(hint)
    }
}

/// As much history as is kept, at its largest.
const LARGEST_BACKUP: usize = 2 << 30;
/// A page has 1,000 objects.
const MOST_PAGES: usize = 200;

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
        StatusCode::UNAUTHORIZED => {
            failure.hint("`outrigger login --server URL` keeps a token; OUTRIGGER_TOKEN shows one")
        }
        StatusCode::FORBIDDEN => failure
            .hint("`outrigger whoami` shows your role; an admin gives another with `outrigger token create`"),
        StatusCode::NOT_FOUND => {
            failure.hint("`outrigger get services -A` lists services, `outrigger proxy status` sidecars")
        }
        _ => failure,
    }
}

fn short(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() { "nothing".into() } else { text.chars().take(300).collect() }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::http::tests::answers;

    fn admin(address: SocketAddr) -> Admin {
        Admin::at(&format!("http://{address}")).unwrap()
    }

    #[tokio::test]
    async fn a_refusal_carries_every_problem() {
        let body = json!({"title": "refused", "problems": [
            {"pointer": "/items/0/spec/a", "code": "x", "message": "no", "hint": "yes", "severity": "error"},
            {"pointer": "/items/1", "code": "y", "message": "never", "severity": "error"},
        ]});
        let (address, server) = answers(vec![(422, "", body.to_string())]).await;
        let refused = admin(address)
            .apply(&[json!({"kind": "MeshService"})], How { dry_run: true, ..How::default() })
            .await;
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
        let refused = admin(address).delete("services", "shop", "cart", &stored, false).await;
        let Err(NotWritten::Failed(failure)) = refused else { panic!("{refused:?}") };
        assert!(failure.to_string().contains("412: it is at 13"), "{failure}");
        assert!(failure.to_string().contains("run the command again"), "{failure}");
        assert!(server.await.unwrap()[1].contains("if-match: \"12\"\r\n"));
    }

    #[tokio::test]
    async fn who_is_refused_is_told_what_to_do_and_nothing_of_the_token() {
        let forbidden = json!({"detail": "changing join tokens needs the role operator; yours is viewer"});
        let (address, server) = answers(vec![
            (401, "", json!({"detail": "expired"}).to_string()),
            (403, "", forbidden.to_string()),
        ])
        .await;
        let token =
            outrigger_certs::ApiToken::generate(outrigger_certs::RootHash::of(b"root")).unwrap().expose();
        let credential = Credential {
            token: crate::credentials::Token::read(&token).ok(),
            certificate: None,
            believed: None,
        };
        let admin =
            Admin::with(Server::parse(&format!("http://{address}")).unwrap(), Some(credential)).unwrap();
        let told = admin.whoami().await.unwrap_err().to_string();
        assert!(told.contains("401: expired") && told.contains("outrigger login"), "{told}");
        let told = admin.join_token("shop", "cart", "1m").await.unwrap_err().to_string();
        assert!(told.contains("needs the role operator") && told.contains("whoami"), "{told}");
        assert!(!format!("{admin:?} {told}").contains("oat1."), "{admin:?}");
        let asked = server.await.unwrap();
        assert!(
            asked
                .iter()
                .all(|asked| asked.contains(&format!("authorization: Bearer {}\r\n", token.as_str())))
        );
    }

    #[test]
    fn a_token_is_not_sent_in_the_clear_to_another_machine_and_a_server_is_not_believed_for_nothing() {
        let token =
            outrigger_certs::ApiToken::generate(outrigger_certs::RootHash::of(b"root")).unwrap().expose();
        let credential = || Credential {
            token: crate::credentials::Token::read(&token).ok(),
            certificate: None,
            believed: None,
        };
        let with = |url: &str, credential| Admin::with(Server::parse(url).unwrap(), credential).map(|_| ());
        assert!(
            with("http://10.0.0.1:1", Some(credential())).unwrap_err().to_string().contains("in the clear")
        );
        assert!(with("https://10.0.0.1:1", None).unwrap_err().to_string().contains("log in there"));
        assert!(with("http://127.0.0.1:1", Some(credential())).is_ok());
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
        assert!(failure.to_string().contains("OUTRIGGER_SERVER"), "{failure}");
    }
}
