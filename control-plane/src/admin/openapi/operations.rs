//! What can be done: one entry for each line of the table of routes, in its order.
//!
//! Whoever adds a route adds an entry in [`all`], a few lines: method and path as the table has them, a name for clients, a
//! sentence, what it takes and what it answers. Parameters of the path are known by their names (`paths::parameter`), and
//! errors that any request can meet are added by themselves; `also` has the others. What is below `/v1/{collection}` becomes
//! one operation for each kind, with `{}` in the name standing for it. A new answer is described in `answers`.

use axum::http::Method;
use schemars::JsonSchema;
use serde_json::{Value as Json, json};

use super::super::{
    backup, certs, explain, facts, history, leases, live, log_level, objects, own_api, rollouts, tap, tokens,
    topology, watch, writes,
};
use super::examples;
use super::schemas::Schemas;

/// One operation.
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    /// The schema of its query: an object with a property for each parameter.
    pub(super) query: Option<Json>,
    pub(super) body: Option<Body>,
    pub(super) answers: Vec<(u16, Answer)>,
    /// Errors beside those that any request can meet.
    pub(super) also: Vec<u16>,
    /// What it says of itself in headers.
    pub(super) headers: &'static [&'static str],
}

/// What an operation takes.
#[derive(Clone)]
pub(super) enum Body {
    /// JSON of this schema, with an example.
    Named(&'static str, Json),
    /// The same, which may be left out.
    MayBe(&'static str, Json),
    /// An object of the kind.
    Object,
    /// A merge patch of one.
    Patch,
}

/// What an operation answers.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// JSON of this schema.
    Json(&'static str),
    /// An object of the kind, with its ETag; of a dry run, or when it was waited for, what the change did.
    Written,
    /// An object of the kind, with its ETag.
    Object,
    /// A page of them.
    Page,
    /// Text of this type.
    Text(&'static str),
    /// Nothing.
    Empty,
}

/// Every operation. Their schemas are put into `schemas`.
pub(super) fn all(schemas: &mut Schemas) -> Vec<Operation> {
    use Answer::{Json, Text};
    let mut all = vec![
        get("/healthz", "alive", "Health", "Whether the process lives.").answers(200, Json("Health")),
        get("/readyz", "ready", "Health", "Whether it serves, how its store is, and what it holds back.")
            .answers(200, Json("Health")),
        get("/.well-known/jwks.json", "keys", "Health", "The public keys of the mesh's own tokens.")
            .answers(200, Json("Keys")),
        get("/openapi.json", "document", "Health", "This document.").answers(200, Json("Anything")),
        get("/metrics", "metrics", "Running", "Metrics of the control plane, for Prometheus.")
            .answers(200, Text("text/plain")),
        post("/v1/apply", "apply", "Changes", "Many objects as one transaction and one revision.")
            .query::<writes::WriteOptions>()
            .body(Body::Named("Apply", examples::apply()))
            .answers(200, Json("Applied"))
            .also(&WRITE)
            .headers(&["X-Outrigger-Why", "X-Outrigger-Namespaces"]),
        post("/v1/explain", "explain", "Running", "What would become of a request that is described.")
            .takes::<explain::Described>(
                schemas,
                "DescribedRequest",
                json!({ "host": "cart.shop", "from": "shop/web" }),
            )
            .answers(200, Json("Explanation"))
            .also(&[404]),
        get("/v1/proxies", "listProxies", "Running", "The connected sidecars.")
            .answers(200, Json("ProxyList")),
        get(
            "/v1/proxies/{node}",
            "readProxy",
            "Running",
            "What a sidecar has subscribed to, and what is in force there.",
        )
        .answers(200, Json("ProxyDetails"))
        .also(&[404]),
        get("/v1/proxies/{node}/{page}", "readProxyPage", "Running", "A page of a sidecar, asked of itself.")
            .answers(200, Json("ProxyPage"))
            .also(&[404, 504]),
        get(
            "/v1/breakers",
            "listBreakers",
            "Running",
            "Every breaker, and the sidecars at which it is open.",
        )
        .query::<live::Which>()
        .answers(200, Json("BreakerList")),
        get("/v1/stats", "stats", "Running", "Traffic by service, version and caller.")
            .answers(200, Json("StatsList")),
        get("/v1/topology", "topology", "Running", "Who calls whom, and how it goes.")
            .query::<topology::Wanted>()
            .answers(200, Json("Topology")),
        get(
            "/v1/topology/{namespace}/{name}",
            "topologyOfService",
            "Running",
            "How it goes with one service, step by step: its versions, its callers, whom it calls, what is refused.",
        )
        .query::<topology::WantedOf>()
        .answers(200, Json("ServiceTopology"))
        .also(&[404]),
        get(
            "/v1/tap",
            "tap",
            "Running",
            "Live requests as server-sent events: heads' facts, times and reasons, never bodies, queries or secrets.",
        )
        .query::<tap::Wanted>()
        .answers(200, Text("text/event-stream"))
        .also(&[404, 429])
        .headers(&["X-Outrigger-Why"]),
        get("/v1/revisions", "listRevisions", "History", "What was changed, the newest first.")
            .query::<facts::Page>()
            .answers(200, Json("RevisionList")),
        get("/v1/revisions/{number}", "readRevision", "History", "One change.")
            .answers(200, Json("Revision"))
            .also(&[404]),
        get(
            "/v1/revisions/{number}/diff/{to}",
            "diffRevisions",
            "History",
            "What differs between two revisions.",
        )
        .answers(200, Json("Difference"))
        .also(&[404]),
        get("/v1/watch", "watch", "History", "Changes as they are made, as server-sent events (`Change`).")
            .query::<watch::Wanted>()
            .answers(200, Text("text/event-stream"))
            .also(&[410])
            .headers(&["Last-Event-ID"]),
        post(
            "/v1/rollback",
            "rollback",
            "Changes",
            "Makes the configuration what it was at an earlier revision.",
        )
        .query::<writes::WriteOptions>()
        .takes::<history::Back>(schemas, "Rollback", json!({ "to": 1 }))
        .answers(200, Json("RolledBack"))
        .also(&[404])
        .also(&WRITE)
        .headers(&["X-Outrigger-Why"]),
        get("/v1/audit", "audit", "History", "Who changed what, when, from where and why; the newest first.")
            .query::<facts::Page>()
            .answers(200, Json("AuditList")),
        get("/v1/backup", "backup", "History", "All that is kept, as of one moment.")
            .query::<backup::Wanted>()
            .answers(200, Text(backup::TYPE))
            .also(&[507]),
        get("/v1/issuers", "listIssuers", "Running", "The issuers of tokens and the state of their keys.")
            .answers(200, Json("IssuerList")),
        post(
            "/v1/join-tokens",
            "createJoinToken",
            "Access",
            "A token with which a workload joins the mesh, once.",
        )
        .takes::<facts::TokenRequest>(
            schemas,
            "JoinTokenRequest",
            json!({ "namespace": "shop", "serviceAccount": "cart", "ttl": "10m" }),
        )
        .answers(201, Json("JoinToken"))
        .headers(&["X-Outrigger-Why"]),
        post(
            "/v1/leases/confirm",
            "confirmLoss",
            "Running",
            "Says that the instances whose leases are held back are gone.",
        )
        .takes::<leases::Confirm>(schemas, "LossConfirmation", json!({}))
        .answers(200, Json("ConfirmedLoss"))
        .also(&[409])
        .headers(&["X-Outrigger-Why"]),
        get("/v1/log-level", "readLogLevel", "Running", "What this control plane logs, and for how long.")
            .answers(200, Json("LogLevel"))
            .also(&[404]),
        new(
            Method::PUT,
            "/v1/log-level",
            "setLogLevel",
            "Running",
            "Logs something else for a time; after it the log is as at the start again.",
        )
        .takes::<log_level::Wanted>(
            schemas,
            "LogLevelRequest",
            json!({ "filter": "info,outrigger_control=debug", "for": "10m" }),
        )
        .answers(200, Json("LogLevel"))
        .also(&[404])
        .headers(&["X-Outrigger-Why"]),
        get(
            "/v1/certs",
            "listCertificates",
            "Certificates",
            "The certificates that were signed and are valid.",
        )
        .query::<certs::Whose>()
        .answers(200, Json("CertificateList"))
        .also(&[404]),
        post(
            "/v1/certs/issue",
            "issueCertificate",
            "Certificates",
            "A certificate as a file, for a signing request.",
        )
        .takes::<certs::Issue>(
            schemas,
            "CertificateRequest",
            json!({ "namespace": "shop", "serviceAccount": "edge", "csr": examples::CSR, "ttl": "24h" }),
        )
        .answers(201, Json("IssuedCertificate"))
        .also(&[404])
        .headers(&["X-Outrigger-Why"]),
        get("/v1/certs/rotation", "readRotation", "Certificates", "How far a change of the root is.")
            .answers(200, Json("Rotation"))
            .also(&[404]),
        post("/v1/certs/rotation", "turnRoot", "Certificates", "Changes the root of the mesh, step by step.")
            .takes::<certs::Turn>(schemas, "RotationOrder", json!({ "action": "new-intermediate" }))
            .answers(200, Json("RotationAnswer"))
            .also(&[404, 409])
            .headers(&["X-Outrigger-Why"]),
        get("/v1/tokens", "listTokens", "Access", "The tokens of this API, without their secrets.")
            .answers(200, Json("TokenList")),
        post("/v1/tokens", "createToken", "Access", "A token of this API, told once.")
            .takes::<tokens::Wanted>(
                schemas,
                "TokenRequest",
                json!({ "name": "ci", "role": "editor", "namespaces": ["shop"], "ttl": "720h" }),
            )
            .answers(201, Json("CreatedToken"))
            .headers(&["X-Outrigger-Why"]),
        delete("/v1/tokens/{id}", "revokeToken", "Access", "Revokes a token from the next request on.")
            .answers(200, Json("Token"))
            .also(&[404])
            .headers(&["X-Outrigger-Why"]),
        get("/v1/whoami", "whoami", "Access", "Who one is to this API.")
            .answers(200, Json("WhoAmI"))
            .headers(&["X-Outrigger-Namespaces"]),
        post(
            "/v1/rollouts/{namespace}/{name}/{verb}",
            "orderRollout",
            "Changes",
            "What an operator says of a rollout.",
        )
        .may_take::<rollouts::Wanted>(schemas, "RolloutOrder", json!({}))
        .answers(200, Json("Rollout"))
        .answers(204, Answer::Empty)
        .also(&[404, 409])
        .headers(&["X-Outrigger-Why"]),
        get(
            "/v1/services/{namespace}/{name}/api",
            "readApi",
            "Running",
            "The OpenAPI document of a service, asked of one of its instances.",
        )
        .answers(200, Json("OwnApi"))
        .also(&[404, 502, 504]),
        post(
            "/v1/services/{namespace}/{name}/try",
            "tryApi",
            "Changes",
            "One request to a service that has an API, and what it answers.",
        )
        .takes::<own_api::Tried>(schemas, "TriedRequest", json!({ "method": "GET", "path": "/items/7" }))
        .answers(200, Json("TriedAnswer"))
        .also(&[404, 502, 504])
        .headers(&["X-Outrigger-Why"]),
    ];
    all.extend(of_collections());
    schemas.take(&all);
    all
}

/// The same for every kind.
fn of_collections() -> [Operation; 6] {
    const OBJECT: &str = "/v1/{collection}/{namespace}/{name}";
    [
        get("/v1/{collection}", "list{}", "{}", "Those of all namespaces.")
            .query::<objects::Selector>()
            .answers(200, Answer::Page),
        get("/v1/{collection}/{namespace}", "list{}InNamespace", "{}", "Those of one namespace.")
            .query::<objects::Selector>()
            .answers(200, Answer::Page),
        get(OBJECT, "read{}", "{}", "One of them.")
            .query::<objects::Fresh>()
            .answers(200, Answer::Object)
            .also(&[404]),
        new(Method::PUT, OBJECT, "write{}", "{}", "Creates it, or replaces the version that was read.")
            .query::<writes::WriteOptions>()
            .body(Body::Object)
            .answers(200, Answer::Written)
            .answers(201, Answer::Written)
            .also(&WRITE)
            .also(&[428])
            .headers(&["If-Match", "If-None-Match", "X-Outrigger-Why"]),
        new(
            Method::PATCH,
            OBJECT,
            "patch{}",
            "{}",
            "Changes the fields that are named (JSON merge patch, RFC 7396).",
        )
        .query::<writes::WriteOptions>()
        .body(Body::Patch)
        .answers(200, Answer::Written)
        .answers(201, Answer::Written)
        .also(&WRITE)
        .also(&[404, 428])
        .headers(&["If-Match", "If-None-Match", "X-Outrigger-Why"]),
        delete(OBJECT, "delete{}", "{}", "Deletes the version that was read.")
            .query::<writes::WriteOptions>()
            .answers(200, Answer::Json("Applied"))
            .also(&WRITE)
            .also(&[404, 428])
            .headers(&["If-Match", "If-None-Match", "X-Outrigger-Why"]),
    ]
}

/// What a change of objects can meet: somebody else was there first, the object is another by now, it is too large, or it
/// does not hold.
const WRITE: [u16; 4] = [409, 412, 413, 422];

fn get(path: &'static str, id: &'static str, tag: &'static str, summary: &'static str) -> Operation {
    new(Method::GET, path, id, tag, summary)
}

fn post(path: &'static str, id: &'static str, tag: &'static str, summary: &'static str) -> Operation {
    new(Method::POST, path, id, tag, summary)
}

fn delete(path: &'static str, id: &'static str, tag: &'static str, summary: &'static str) -> Operation {
    new(Method::DELETE, path, id, tag, summary)
}

fn new(
    method: Method,
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
) -> Operation {
    let (answers, also) = (vec![], vec![]);
    Operation { method, path, id, tag, summary, query: None, body: None, answers, also, headers: &[] }
}

impl Operation {
    fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(super::schemas::read::<T>());
        self
    }

    fn body(mut self, body: Body) -> Self {
        self.body = Some(body);
        self
    }

    fn takes<T: JsonSchema>(self, schemas: &mut Schemas, name: &'static str, example: Json) -> Self {
        schemas.add(name, super::schemas::read::<T>());
        self.body(Body::Named(name, example))
    }

    fn may_take<T: JsonSchema>(self, schemas: &mut Schemas, name: &'static str, example: Json) -> Self {
        schemas.add(name, super::schemas::read::<T>());
        self.body(Body::MayBe(name, example))
    }

    fn answers(mut self, status: u16, answer: Answer) -> Self {
        self.answers.push((status, answer));
        self
    }

    fn also(mut self, errors: &[u16]) -> Self {
        self.also.extend(errors);
        self
    }

    fn headers(mut self, headers: &'static [&'static str]) -> Self {
        self.headers = headers;
        self
    }
}
