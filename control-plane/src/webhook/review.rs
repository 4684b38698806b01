//! AdmissionReview of `admission.k8s.io/v1`: read from what the API server sends, and its answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_inject::{Decision, Injection, Problem, Skip, SkipReason};
use serde_json::{Value as Json, json};

/// A call, proven as far as it is used.
#[derive(Debug)]
pub(super) struct Review {
    /// What the answer must carry.
    pub(super) uid: String,
    /// Where the pod is made. The pod itself may not say.
    pub(super) namespace: String,
    /// Whether it is about a pod that is being made.
    pub(super) pod_is_made: bool,
    /// Whether nothing will come of it.
    pub(super) dry_run: bool,
    /// What is to be made.
    pub(super) object: Json,
}

const VERSION: &str = "admission.k8s.io/v1";

impl Review {
    /// Reads a call. The error says what is not as it must be, for a person who calls by hand.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let mut review: Json =
            serde_json::from_slice(body).map_err(|e| format!("the body is no JSON: {e}"))?;
        if review["kind"] != "AdmissionReview" {
            return Err("the body is no AdmissionReview".into());
        }
        if review["apiVersion"] != VERSION {
            let version = review["apiVersion"].as_str().unwrap_or("missing");
            return Err(format!(
                "apiVersion is {version:.80}, not {VERSION}: set admissionReviewVersions to v1"
            ));
        }
        let request = review.get_mut("request").filter(|request| request.is_object());
        let Some(request) = request else { return Err("it has no request".into()) };
        let text = |name: &str| request.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        let (uid, namespace) = (text("uid"), text("namespace"));
        if uid.is_empty() || uid.len() > MOST_UID {
            return Err("its request has no uid".into());
        }
        let (kind, operation) = (&request["kind"], &request["operation"]);
        let is_pod = kind["group"] == "" && kind["version"] == "v1" && kind["kind"] == "Pod";
        let whole = request["subResource"].as_str().is_none_or(str::is_empty);
        let pod_is_made = is_pod && whole && operation == "CREATE";
        let dry_run = request["dryRun"] == true;
        let object = request.get_mut("object").map(Json::take).unwrap_or_default();
        Ok(Self { uid, namespace, pod_is_made, dry_run, object })
    }

    /// That the pod stays as it is because it is none, or not being made.
    pub(super) fn unsupported() -> Skip {
        let message = "only pods that are being made are changed".into();
        Skip { reason: SkipReason::UnsupportedKind, message }
    }

    /// The answer that tells what was decided.
    pub(super) fn answer(&self, decision: &Decision) -> Json {
        let mut response = json!({"uid": self.uid, "allowed": true});
        match decision {
            Decision::Inject(injection) => injected(injection, &mut response),
            Decision::Skip(skip) => {
                response["auditAnnotations"] = json!({"outcome": "skipped", "reason": skip.reason.code()});
                if is_surprising(skip.reason) {
                    response["warnings"] = json!([cut(&format!("not injected: {skip}"))]);
                }
            }
            Decision::Refuse(problems) => {
                response["allowed"] = json!(false);
                response["status"] = json!({"code": 422, "reason": "Invalid", "message": in_words(problems)});
            }
        }
        json!({"apiVersion": VERSION, "kind": "AdmissionReview", "response": response})
    }

    /// The answer that nothing can be decided now: whoever makes the pod tries again.
    pub(super) fn not_now(&self, why: &str) -> Json {
        let message = format!("the mesh can not decide over this pod now, try again: {why}");
        let status = json!({"code": 503, "reason": "ServiceUnavailable", "message": cut(&message)});
        json!({"apiVersion": VERSION, "kind": "AdmissionReview",
            "response": {"uid": self.uid, "allowed": false, "status": status}})
    }
}

fn injected(injection: &Injection, response: &mut Json) {
    let steps = injection.patch();
    if !steps.is_empty()
        && let Ok(patch) = serde_json::to_vec(steps)
    {
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(STANDARD.encode(patch));
    }
    response["auditAnnotations"] = json!({"outcome": "injected"});
    let warnings: Vec<String> =
        injection.warnings().iter().take(MOST_WARNINGS).map(|warning| cut(&warning.message)).collect();
    if !warnings.is_empty() {
        response["warnings"] = json!(warnings);
    }
}

/// The API server makes UUIDs; whatever is longer is not its.
const MOST_UID: usize = 256;
const MOST_WARNINGS: usize = 10;
/// Longer ones are cut by the API server, at a place that it chooses.
const MOST_LETTERS: usize = 240;

/// Whether somebody asked for a member and gets none.
pub(super) fn is_surprising(reason: SkipReason) -> bool {
    !matches!(
        reason,
        SkipReason::NotAsked
            | SkipReason::DisabledByPod
            | SkipReason::DisabledByNamespace
            | SkipReason::SystemNamespace
            | SkipReason::UnsupportedKind
    )
}

/// All mistakes as one text, a line each.
pub(super) fn in_words(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    format!("outrigger can not make this pod a member of the mesh:\n{}", lines.join("\n"))
}

fn cut(text: &str) -> String {
    text.chars().take(MOST_LETTERS).collect()
}
