//! The door of the admin API: who asks, and whether he may.
//!
//! Every request comes through here, also those to paths that do not exist. What a route needs is written in `routes`,
//! what a role may in `users::permission`; a route about objects is let through with the least role it could take, and
//! its handler asks again as soon as it knows which object is meant.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use outrigger_certs::{AdminClient, ApiToken};
use outrigger_kube::api::ApiServer;
use outrigger_mesh::{Label, SpiffeId};
use zeroize::Zeroizing;

use super::caller::{Caller, Proof};
use super::guard::Hosts;
use super::problem::{ForbiddenAbout, Invalid};
use super::rates::{A_SECOND, Rates};
use super::refusals::{Refusals, Verdict};
use super::routes::{self, Known, Need};
use super::{Api, ApiError};
use crate::audit::{AuditEntry, Author};
use crate::store::{StoreError, Transaction};
use crate::users::book::{self, NotTaken};
use crate::users::cluster::{ClusterUsers, MOST_NAMESPACES, NotAUser, is_web_token};
use crate::users::permission::Verb;
use crate::users::{ClientId, Grant, Role};

/// How one proves who he is.
#[derive(Debug)]
pub struct Door {
    local: bool,
    certificates: Vec<(ClientId, Grant)>,
    hosts: Hosts,
    refusals: Refusals,
    rates: Rates,
    /// The cluster whose users are ours, too.
    cluster: Option<ClusterUsers>,
}

impl Door {
    /// Whoever reaches it may do everything, as long as he is on this machine.
    pub fn local() -> Self {
        Self { local: true, ..Self::closed() }
    }

    /// Nobody comes in without proof.
    pub fn closed() -> Self {
        Self {
            local: false,
            certificates: vec![],
            hosts: Hosts::default(),
            refusals: Refusals::new(Instant::now()),
            rates: Rates::new(A_SECOND),
            cluster: None,
        }
    }

    /// Takes tokens of the users of a cluster, too, which are for `audience`.
    #[must_use]
    pub fn with_users_of(mut self, api: ApiServer, audience: String) -> Self {
        self.cluster = Some(ClusterUsers::new(api, audience));
        self
    }

    /// Takes client certificates of these. The first that a certificate proves counts.
    #[must_use]
    pub fn with_certificates(mut self, certificates: Vec<(ClientId, Grant)>) -> Self {
        self.certificates = certificates;
        self
    }

    /// Lets each caller ask so much a second.
    #[must_use]
    pub fn with_rate(mut self, a_second: u32) -> Self {
        self.rates = Rates::new(a_second);
        self
    }

    /// Is called by these names.
    #[must_use]
    pub(super) fn with_hosts(mut self, hosts: Hosts) -> Self {
        self.hosts = hosts;
        self
    }

    pub(super) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// What was refused, as text for Prometheus.
    pub(super) fn metrics(&self) -> String {
        self.refusals.metrics() + &self.rates.metrics()
    }

    /// What whoever has a certificate of this workload may here.
    pub(super) fn grant_of(&self, workload: &SpiffeId) -> Option<&Grant> {
        let is = |known: &ClientId| matches!(known, ClientId::Workload(id) if id == workload);
        self.certificates.iter().find(|(known, _)| is(known)).map(|(_, grant)| grant)
    }

    async fn identify(
        &self,
        api: &Api,
        evidence: Evidence,
        namespaces: &BTreeSet<Label>,
    ) -> Result<(Grant, Proof), NoProof> {
        match evidence {
            Evidence::Foreign(token) => {
                let told = match &self.cluster {
                    Some(cluster) => cluster.grant_of(&token, namespaces).await,
                    None => Err(NotAUser::Unknown),
                };
                told.map(|(user, grant)| (grant, Proof::Cluster(user))).map_err(NoProof::of_user)
            }
            Evidence::Token(token) => {
                let card = book::verify(api.state.store(), &token).await.map_err(NoProof::of)?;
                Ok((card.grant.clone(), Proof::Token(Box::new(card))))
            }
            Evidence::Certificate(client) => self.holder(api, &client),
            Evidence::Near if self.local => Ok((Grant::everything(), Proof::Local)),
            Evidence::Near | Evidence::Nothing => {
                let what = "send Authorization: Bearer with a token of this API";
                Err(NoProof::Refused { who: "nobody".into(), what })
            }
        }
    }

    /// Whoever has a certificate. It was good when the connection began, which may be a while ago.
    fn holder(&self, api: &Api, client: &AdminClient) -> Result<(Grant, Proof), NoProof> {
        let (proves, not_after): (Vec<ClientId>, _) = match client {
            AdminClient::Workload(peer) => (vec![ClientId::Workload(peer.id().clone())], peer.not_after()),
            AdminClient::Named(named) => {
                (named.names().iter().cloned().map(ClientId::Named).collect(), named.not_after())
            }
        };
        let refused = |what| {
            let who = proves.iter().map(ClientId::to_string).collect::<Vec<_>>().join(" ");
            Err(NoProof::Refused { who: format!("certificate {who}"), what })
        };
        if not_after <= SystemTime::now() {
            return refused("the certificate has expired");
        }
        if let AdminClient::Workload(peer) = client
            && api.observed.is_revoked(peer.id())
        {
            return refused("the identity is revoked");
        }
        match self.certificates.iter().find(|(known, _)| proves.contains(known)) {
            Some((known, grant)) => Ok((grant.clone(), Proof::Certificate(known.to_string()))),
            None => refused("the certificate is of nobody who has a role here; --admin-client gives one"),
        }
    }
}

/// What a request shows of whoever sends it. A token counts before a certificate, and either before being near: whoever
/// shows one wants to be nobody else.
enum Evidence {
    Token(ApiToken),
    /// A token that is none of ours, and may be the cluster's.
    Foreign(Zeroizing<String>),
    Certificate(AdminClient),
    Near,
    Nothing,
}

impl Evidence {
    fn of(request: &Request) -> Result<Self, NoProof> {
        if let Some(token) = bearer(request.headers())? {
            return Ok(token);
        }
        if let Some(client) = request.extensions().get::<AdminClient>() {
            return Ok(Self::Certificate(client.clone()));
        }
        let near = from(request).is_some_and(|at| at.ip().to_canonical().is_loopback());
        Ok(if near { Self::Near } else { Self::Nothing })
    }
}

/// Lets through whoever proves who he is and may do what he asks for.
pub(super) async fn door(
    State(api): State<Api>,
    matched: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = matched.as_ref().map(MatchedPath::as_str);
    let known = path.map(|path| routes::known(path, request.method()));
    if known == Some(Known::Needs(Need::Nothing)) {
        return next.run(request).await;
    }
    let tries = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "dryRun=true"));
    let asked = Asked { from: from(&request), act: act(request.method(), path), changes: !tries };
    let proven = match Evidence::of(&request) {
        Ok(evidence) => {
            let named = path.and_then(|path| namespace_of(path, request.uri().path()));
            let namespaces = named.map_or_else(|| namespaces_of(request.headers()), |one| [one].into());
            api.door.identify(&api, evidence, &namespaces).await
        }
        Err(no_proof) => Err(no_proof),
    };
    let (grant, proof) = match proven {
        Ok(proven) => proven,
        Err(no_proof) => return unauthenticated(&api, &asked, no_proof).await,
    };
    let caller = Caller { author: author(&proof, asked.from, request.headers()), grant, proof };
    // Of paused time in tests, of the clock elsewhere.
    if let Err(seconds) = api.door.rates.take(&caller.author.who, tokio::time::Instant::now().into_std()) {
        return too_much(seconds);
    }
    if let Err(error) = known.map_or(Ok(()), |known| admitted(&caller, known)) {
        return forbidden(&api, &caller, &asked, error.into_response()).await;
    }
    request.extensions_mut().insert(caller.clone());
    let response = next.run(request).await;
    forbidden(&api, &caller, &asked, response).await
}

/// Whether the route lets him in at all.
fn admitted(caller: &Caller, known: Known) -> Result<(), ApiError> {
    match known {
        Known::Needs(Need::Act(verb, what)) => caller.may(verb, what, None),
        Known::Needs(Need::Objects(Verb::Change)) if caller.grant.role() < Role::Editor => {
            let have = caller.grant.role();
            let told = format!(
                "changing objects needs the role {} of their namespace; yours is {have}",
                Role::Editor
            );
            Err(ApiError::new(StatusCode::FORBIDDEN, told).forbidden("objects"))
        }
        Known::Needs(Need::Nothing | Need::Objects(_)) => Ok(()),
        Known::OtherMethods => {
            Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this does not take that method"))
        }
        Known::Nothing => {
            let told = "nobody may: no permission is written for this route";
            Err(ApiError::new(StatusCode::FORBIDDEN, told).forbidden("a route without permissions"))
        }
    }
}

/// What is asked, as far as it may be written down: nothing that a caller chose.
struct Asked {
    from: Option<SocketAddr>,
    act: String,
    /// Whether anything could have come of it.
    changes: bool,
}

fn act(method: &Method, path: Option<&str>) -> String {
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let method = if known.contains(method) { method.as_str() } else { "another method" };
    format!("{method} {}", path.unwrap_or("a path that does not exist"))
}

fn from(request: &Request) -> Option<SocketAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|from| from.0)
}

/// Who asks, from where, and the reason that was given.
fn author(proof: &Proof, from: Option<SocketAddr>, headers: &HeaderMap) -> Author {
    let mut author = Author::new(proof.who(), from.map(|from| from.to_string()).unwrap_or_default());
    author.why = headers.get("x-outrigger-why").map(|why| {
        let why = String::from_utf8_lossy(why.as_bytes());
        why.chars().filter(|c| !c.is_control()).take(MAX_WHY).collect()
    });
    author
}

async fn unauthenticated(api: &Api, asked: &Asked, no_proof: NoProof) -> Response {
    let (who, what) = match no_proof {
        NoProof::Store(e) => return ApiError::from(e).into_response(),
        NoProof::Refused { who, what } => (who, what),
    };
    let (door, now) = (&api.door, Instant::now());
    let near = asked.from.map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |from| from.ip());
    if door.refusals.unauthenticated(near, now) == Verdict::ComeBack {
        let told = ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many tries without a good token; come back later",
        );
        return ([(header::RETRY_AFTER, HeaderValue::from_static("6"))], told).into_response();
    }
    let author = Author::new(who, asked.from.map(|from| from.to_string()).unwrap_or_default());
    write_down(api, None, author, &asked.act, what).await;
    let told = ApiError::new(StatusCode::UNAUTHORIZED, format!("{what}; `outrigger login` keeps one"));
    ([(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"outrigger\""))], told)
        .into_response()
}

fn too_much(seconds: u64) -> Response {
    let told = format!("you ask more than one caller may (--admin-rate); come back in {seconds}s");
    let told = ApiError::new(StatusCode::TOO_MANY_REQUESTS, told);
    ([(header::RETRY_AFTER, HeaderValue::from(seconds))], told).into_response()
}

/// Writes a refusal down, if the response is one.
async fn forbidden(api: &Api, caller: &Caller, asked: &Asked, response: Response) -> Response {
    if let Some(ForbiddenAbout(about)) = response.extensions().get() {
        api.door.refusals.forbidden();
        let what = format!("{} may not: {about}", caller.grant);
        let known = caller.author.who.as_str();
        write_down(api, Some(known), caller.author.clone(), &asked.act, &what).await;
    }
    if let Some(invalid) = response.extensions().get::<Invalid>().filter(|_| asked.changes) {
        api.door.refusals.invalid();
        // From a budget of its own: whoever writes what does not hold must not hide what he may not.
        let known = format!("{} (not valid)", caller.author.who);
        write_down(api, Some(&known), caller.author.clone(), &asked.act, &invalid.to_string()).await;
    }
    response
}

async fn write_down(api: &Api, known: Option<&str>, mut author: Author, act: &str, what: &str) {
    let Some(left_out) = api.door.refusals.line(known, Instant::now()) else { return };
    let more =
        if left_out > 0 { format!(" (and {left_out} more refusals since the last)") } else { String::new() };
    let said = author.why.take().map(|why| format!("; asked for because: {why}")).unwrap_or_default();
    author.why = Some(format!("{what}{said}{more}"));
    tracing::warn!(
        who = author.who,
        from = author.from,
        act,
        what,
        left_out,
        "refused a request to the admin API"
    );
    let audit = vec![AuditEntry::new(&author, "refused", act)];
    if let Err(e) = api.state.store().commit(Transaction { author, writes: vec![], audit }).await {
        tracing::warn!(error = %e, "a refusal is not in the audit log");
    }
}

/// Why nobody is known.
enum NoProof {
    Refused { who: String, what: &'static str },
    Store(StoreError),
}

impl NoProof {
    fn of_user(why: NotAUser) -> Self {
        match why {
            NotAUser::Unknown => Self::Refused { who: "nobody".into(), what: NO_TOKEN },
            NotAUser::WithoutRole(user) => Self::Refused {
                who: format!("kubernetes {user}"),
                what: "the cluster gives this user no role here: bind him outrigger-viewer, -editor, -operator or -admin (docs/kubernetes.md)",
            },
            NotAUser::Away(e) => Self::Store(e),
        }
    }

    fn of(why: NotTaken) -> Self {
        match why {
            NotTaken::Unknown => Self::Refused { who: "nobody".into(), what: "the token is not known here" },
            NotTaken::Expired { id } => {
                Self::Refused { who: format!("token {id}"), what: "the token has expired" }
            }
            NotTaken::Revoked { id } => {
                Self::Refused { who: format!("token {id}"), what: "the token was revoked" }
            }
            NotTaken::Store(e) => Self::Store(e),
        }
    }
}

/// The token of a request, if it has any. What is there and is none is not passed over: it was meant as proof.
fn bearer(headers: &HeaderMap) -> Result<Option<Evidence>, NoProof> {
    let refused = |what| Err(NoProof::Refused { who: "nobody".into(), what });
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return refused("give Authorization once");
    }
    let Ok(text) = value.to_str() else { return refused("Authorization is not text") };
    let Some((scheme, token)) = text.split_once(' ') else {
        return refused("write Authorization: Bearer TOKEN");
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return refused("Authorization is only understood as Bearer");
    }
    // Why it is none is not told: the error of the parser could quote it.
    match token.parse() {
        Ok(token) => Ok(Some(Evidence::Token(token))),
        Err(_) if is_web_token(token) => Ok(Some(Evidence::Foreign(Zeroizing::new(token.to_owned())))),
        Err(_) => refused(NO_TOKEN),
    }
}

const NO_TOKEN: &str = "that is not a token of this API; was it copied whole?";

/// The namespace in a path, where the route has one.
fn namespace_of(route: &str, path: &str) -> Option<Label> {
    let at = route.split('/').position(|part| part == "{namespace}")?;
    Label::new(path.split('/').nth(at)?).ok()
}

/// The namespaces that a request says it is about, where its path has none. They only narrow what is asked of the cluster: what is
/// beyond them is refused.
fn namespaces_of(headers: &HeaderMap) -> BTreeSet<Label> {
    let said = headers.get("x-outrigger-namespaces").and_then(|said| said.to_str().ok()).unwrap_or_default();
    said.split(',').take(MOST_NAMESPACES).filter_map(|name| Label::new(name.trim()).ok()).collect()
}

impl fmt::Debug for NoProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { what, .. } => f.write_str(what),
            Self::Store(e) => write!(f, "{e}"),
        }
    }
}

/// A reason is a sentence, not a document.
const MAX_WHY: usize = 500;
