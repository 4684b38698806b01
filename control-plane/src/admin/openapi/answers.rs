//! What is told: the answers of operations by their names, and errors, which all have one form.
//!
//! Where an answer is made of a type, its schema is, too; what handlers put together by hand is described by hand, and
//! held to it by the tests that ask a real control plane (control-plane/tests/openapi).

mod topology;

use serde_json::{Map, Value as Json, json};

use super::schemas::{reference, told};
use crate::ca::ledger::Leaf;
use crate::history::FieldChange;
use crate::push::{Affected, ProxyStatus};
use crate::spec::{self, Kind, MAX_DOCUMENTS};
use crate::store::{AuditLine, Revision};

/// What is there beside the answers of operations.
pub(super) const EVERYWHERE: [&str; 11] = [
    "Apply",
    "MergePatch",
    "Problem",
    "Mistake",
    "Change",
    "Affected",
    "Proxy",
    "FieldChange",
    "ObjectChange",
    "Waited",
    "AuditLine",
];

/// The schema of an answer; null for a name that is none.
pub(super) fn schema(name: &str) -> Json {
    match name {
        "Apply" => {
            let kinds: Vec<Json> = Kind::ALL.into_iter().map(|kind| reference(kind.as_str())).collect();
            let items = json!({ "type": "array", "items": { "anyOf": kinds }, "maxItems": MAX_DOCUMENTS });
            json!({
                "type": "object",
                "properties": { "items": items },
                "required": ["items"],
                "additionalProperties": false,
            })
        }
        "MergePatch" => described("The fields that change; null takes one away.", object()),
        "Anything" => json!({ "type": "object" }),
        "Health" => record(
            &[
                ("status", text_of(&["ok", "degraded", "failed"])),
                ("revision", count()),
                ("generation", count()),
            ],
            &[
                ("store", object()),
                ("leases", object()),
                ("panics", count()),
                ("fallen", list(text())),
                ("conditions", list(object())),
            ],
        ),
        "Keys" => record(&[("keys", list(object()))], &[]),
        "Applied" => applied(&[], &[]),
        "RolledBack" => applied(&[("to", count()), ("stays", list(text()))], &[]),
        "ObjectChange" => record(
            &[("object", text()), ("action", text_of(&["created", "updated", "deleted", "unchanged"]))],
            &[("fields", list(reference("FieldChange")))],
        ),
        "FieldChange" => told::<FieldChange>(),
        "Affected" => told::<Affected>(),
        "Waited" => record(
            &[
                ("acknowledged", count()),
                ("proxies", count()),
                ("missing", list(record(&[("proxy", text()), ("reason", text())], &[]))),
            ],
            &[],
        ),
        "Explanation" => explanation(),
        "Proxy" => told::<ProxyStatus>(),
        "ProxyList" => record(&[("revision", count()), ("items", list(reference("Proxy")))], &[]),
        "ProxyDetails" => proxy_details(),
        "ProxyPage" => {
            let one = record(&[("identity", text()), ("node", text())], &[("failure", text())]);
            record(&[("items", list(one))], &[])
        }
        "BreakerList" => {
            record(&[("items", list(breaker())), ("proxies", count()), ("silent", list(silent()))], &[])
        }
        "StatsList" => record(&[("items", list(stats()))], &[]),
        "Topology" => topology::all(),
        "ServiceTopology" => topology::of_service(),
        "Revision" => told::<Revision>(),
        "RevisionList" => record(&[("revision", count()), ("items", list(reference("Revision")))], &[]),
        "Difference" => {
            record(&[("from", count()), ("to", count()), ("changes", list(reference("ObjectChange")))], &[])
        }
        "Change" => change(),
        "AuditLine" => told::<AuditLine>(),
        "AuditList" => record(&[("items", list(reference("AuditLine")))], &[]),
        "IssuerList" => record(&[("items", list(issuer()))], &[]),
        "JoinToken" => record(
            &[
                ("token", text()),
                ("id", text()),
                ("namespace", text()),
                ("serviceAccount", text()),
                ("ttlSeconds", count()),
            ],
            &[],
        ),
        "LogLevel" => record(&[("filter", text()), ("atStart", text())], &[("endsInSeconds", count())]),
        "ConfirmedLoss" => record(
            &[("confirmed", json!({ "type": "boolean" })), ("instances", count()), ("of", count())],
            &[],
        ),
        "CertificateList" => record(&[("total", count()), ("items", list(told::<Leaf>()))], &[]),
        "IssuedCertificate" => record(
            &[
                ("identity", text()),
                ("serial", text()),
                ("chain", list(text())),
                ("roots", list(text())),
                ("lifetimeSeconds", count()),
            ],
            &[],
        ),
        "Rotation" => rotation(),
        "RotationAnswer" => json!({ "anyOf": [
            reference("Rotation"),
            record(&[("needsYes", json!({ "type": "boolean" })), ("detail", text()), ("casualties", list(json!({})))], &[]),
        ] }),
        "Token" => token(&[]),
        "CreatedToken" => token(&[("token", text())]),
        "TokenList" => record(&[("items", list(reference("Token")))], &[]),
        "WhoAmI" => record(
            &[
                ("who", text()),
                ("by", text_of(&["local", "token", "certificate", "kubernetes"])),
                ("role", role()),
            ],
            &[("namespaces", list(text())), ("expires", moment())],
        ),
        "OwnApi" => record(&[("instance", text()), ("document", json!({}))], &[]),
        "TriedAnswer" => record(
            &[
                ("instance", text()),
                ("status", count()),
                ("headers", list(list(text()))),
                ("body", text()),
                ("cut", json!({ "type": "boolean", "description": "Whether there was more." })),
                ("ms", json!({ "type": "number" })),
            ],
            &[],
        ),
        "Problem" => problem(),
        "Mistake" => told::<spec::Problem>(),
        _ => Json::Null,
    }
}

/// The errors that operations refer to, by name.
pub(super) fn errors() -> Json {
    let one = |(status, name, said): (u16, &str, &str)| {
        let mut error = json!({
            "description": said,
            "content": { "application/problem+json": { "schema": reference("Problem") } },
        });
        let headers: &[&str] = match status {
            401 => &["WWW-Authenticate"],
            412 => &["ETag"],
            429 | 503 => &["Retry-After"],
            _ => &[],
        };
        if !headers.is_empty() {
            let refer =
                |name: &&str| ((*name).to_owned(), json!({ "$ref": format!("#/components/headers/{name}") }));
            error["headers"] = Json::Object(headers.iter().map(refer).collect());
        }
        (name.to_owned(), error)
    };
    Json::Object(ERRORS.into_iter().map(one).collect())
}

/// The name of an error.
pub(super) fn error_name(status: u16) -> &'static str {
    ERRORS.iter().find(|(of, ..)| *of == status).map_or("", |(_, name, _)| name)
}

/// The headers that answers have.
pub(super) fn headers() -> Json {
    let header = |said: &str, schema: Json| json!({ "description": said, "schema": schema });
    json!({
        "ETag": header("The version of the object, for If-Match.", json!({ "type": "string" })),
        "Retry-After": header("When to come back, in seconds.", json!({ "type": "integer" })),
        "WWW-Authenticate": header("How to prove who one is.", json!({ "type": "string" })),
    })
}

const ERRORS: [(u16, &str, &str); 17] = [
    (400, "BadRequest", "Not understood: a parameter, a header or the form of the body."),
    (401, "Unauthenticated", "Nobody has proven who he is."),
    (403, "Forbidden", "It takes another role, which is named; or a page of another origin asked."),
    (404, "NotFound", "There is no such thing."),
    (409, "Conflict", "It can not be done as things are, or they have changed meanwhile."),
    (410, "Gone", "The changes since are not kept: list, then watch from `position`."),
    (
        412,
        "PreconditionFailed",
        "It is not as it was read. `current` is what it is now, the ETag its version.",
    ),
    (413, "TooLarge", "The body, or what is to be kept, is too large."),
    (415, "UnsupportedMediaType", "What changes something is sent as application/json."),
    (421, "Misdirected", "This API is not called that."),
    (
        422,
        "Invalid",
        "What was written does not hold. `problems` has every mistake with its place, and nothing was changed.",
    ),
    (428, "PreconditionRequired", "A write says what it expects: If-Match or If-None-Match."),
    (429, "TooMany", "Too many requests, or too many of what was asked for."),
    (502, "Unreachable", "The service could not be asked, or what it said is none."),
    (503, "Unavailable", "The store does not answer, or every connection is at work."),
    (504, "NoAnswer", "The sidecar was asked and did not answer."),
    (507, "Full", "The store has no room for more; nothing was changed."),
];

fn problem() -> Json {
    record(
        &[
            ("type", text()),
            ("title", text()),
            ("status", json!({ "type": "integer", "minimum": 400, "maximum": 599 })),
            ("detail", text()),
        ],
        &[
            ("problems", described("Of 422: every mistake.", list(reference("Mistake")))),
            ("current", described("Of 412: the object as it is now.", object())),
            ("position", described("Of 410: from where to watch.", count())),
        ],
    )
}

fn applied(more: &[(&str, Json)], optional: &[(&str, Json)]) -> Json {
    let fields = [
        ("revision", count()),
        ("generation", count()),
        ("changes", list(reference("ObjectChange"))),
        ("warnings", list(reference("Mistake"))),
    ];
    let seldom = [
        (
            "affected",
            described(
                "Of a dry run: the sidecars that would be sent something.",
                list(reference("Affected")),
            ),
        ),
        ("wait", described("Where it was waited for: who has acknowledged it.", reference("Waited"))),
    ];
    record(&[&fields[..], more].concat(), &[&seldom[..], optional].concat())
}

fn explanation() -> Json {
    record(
        &[("caller", nullable(text())), ("host", text()), ("revision", count())],
        &[
            ("service", text()),
            ("port", record(&[("number", count()), ("protocol", text())], &[])),
            ("path", text()),
            ("policy", object()),
            ("route", nullable(object())),
            ("to", list(object())),
            ("access", list(object())),
            ("refused", record(&[("reason", text()), ("why", text())], &[])),
            ("unknown", record(&[("why", text())], &[])),
        ],
    )
}

fn proxy_details() -> Json {
    let resource =
        record(&[("kind", text()), ("name", text()), ("version", text()), ("bytes", count())], &[]);
    let one = record(
        &[("proxy", reference("Proxy")), ("subscriptions", list(text())), ("resources", list(resource))],
        &[],
    );
    record(&[("revision", count()), ("items", list(one))], &[])
}

/// A breaker, as all sidecars say.
fn breaker() -> Json {
    let states = json!({ "type": "object", "additionalProperties": count() });
    record(
        &[
            ("service", text()),
            ("over", text_of(&["service", "route", "version", "endpoint"])),
            ("name", nullable(text())),
            ("mode", nullable(text())),
            ("override", nullable(text())),
            ("states", described("At how many sidecars it is so.", states)),
            ("at", described("Where it is not closed, a hundred at most.", list(object()))),
        ],
        &[],
    )
}

/// A sidecar that did not answer.
fn silent() -> Json {
    record(&[("identity", text()), ("node", text()), ("failure", text())], &[])
}

fn stats() -> Json {
    let number = || json!({ "type": "number" });
    let figures = [
        ("rps", number()),
        ("success", number()),
        ("p50Ms", nullable(number())),
        ("p99Ms", nullable(number())),
        ("requests", count()),
        ("failed", count()),
    ];
    let caller = record(&[&figures[..], &[("caller", text())]].concat(), &[]);
    let of = [
        ("namespace", text()),
        ("service", text()),
        ("version", nullable(text())),
        ("callers", list(caller)),
    ];
    record(&[&figures[..], &of].concat(), &[])
}

fn issuer() -> Json {
    record(
        &[
            ("name", text()),
            ("issuer", text()),
            ("keys", count()),
            ("state", text()),
            ("source", nullable(text())),
        ],
        &[
            ("error", nullable(text())),
            ("failures", nullable(count())),
            ("lastAskedSeconds", nullable(count())),
        ],
    )
}

/// What an event of a watch has as its data.
fn change() -> Json {
    let one = record(
        &[("object", text()), ("action", text_of(&["created", "updated", "deleted"]))],
        &[("resource", object())],
    );
    described(
        "What an event of a watch has as its data.",
        record(&[("position", count()), ("changes", list(one))], &[]),
    )
}

fn rotation() -> Json {
    let rest = ["from", "to", "began", "stepBegan", "waitsFor", "gateEnds"].map(|name| (name, text()));
    record(
        &[("step", text_of(&["none", "distribute", "sign", "retire", "withdraw"])), ("authority", object())],
        &[
            &rest[..],
            &[
                ("timeoutSeconds", count()),
                ("paused", json!({ "type": "boolean" })),
                ("forced", list(object())),
                ("missingCount", count()),
                ("missing", list(object())),
                ("last", object()),
            ],
        ]
        .concat(),
    )
}

fn token(more: &[(&str, Json)]) -> Json {
    let fields = [
        ("id", text()),
        ("name", text()),
        ("role", role()),
        ("namespaces", nullable(list(text()))),
        ("state", text_of(&["live", "expired", "revoked"])),
        ("createdBy", text()),
        ("created", moment()),
        ("expires", moment()),
        ("revoked", nullable(moment())),
        ("lastUsed", nullable(moment())),
    ];
    record(&[&fields[..], more].concat(), &[])
}

/// An object with these fields, and others that may be there.
fn record(required: &[(&str, Json)], optional: &[(&str, Json)]) -> Json {
    let each = required.iter().chain(optional).map(|(name, schema)| ((*name).to_owned(), schema.clone()));
    let names: Vec<&str> = required.iter().map(|(name, _)| *name).collect();
    json!({ "type": "object", "properties": each.collect::<Map<_, _>>(), "required": names })
}

fn object() -> Json {
    json!({ "type": "object" })
}

#[allow(clippy::needless_pass_by_value, reason = "made right there each time")]
fn list(of: Json) -> Json {
    json!({ "type": "array", "items": of })
}

fn text() -> Json {
    json!({ "type": "string" })
}

fn text_of(words: &[&str]) -> Json {
    json!({ "type": "string", "enum": words })
}

fn moment() -> Json {
    json!({ "type": "string", "format": "date-time" })
}

fn count() -> Json {
    json!({ "type": "integer", "format": "int64", "minimum": 0 })
}

fn role() -> Json {
    text_of(&["viewer", "editor", "operator", "admin"])
}

fn nullable(mut schema: Json) -> Json {
    let of = schema["type"].take();
    schema["type"] = json!([of, "null"]);
    schema
}

fn described(said: &str, mut schema: Json) -> Json {
    schema["description"] = said.into();
    schema
}
