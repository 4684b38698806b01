//! Who somebody is and what he may, as the test says.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Who has which token, and who may what.
#[derive(Default)]
pub(super) struct Rules {
    tokens: BTreeMap<String, Holder>,
    allowed: Vec<Allowed>,
    forbidden: Vec<(String, String)>,
}

struct Holder {
    user: String,
    groups: Vec<String>,
    audiences: Vec<String>,
}

/// What somebody may.
pub(super) struct Allowed {
    pub(super) who: String,
    pub(super) verb: String,
    pub(super) group: String,
    pub(super) resource: String,
    pub(super) name: String,
    pub(super) namespace: Option<String>,
}

/// The audience of tokens that are made for nobody else.
const OWN: &str = "https://kubernetes.default.svc.cluster.local";

impl Rules {
    pub(super) fn token(&mut self, token: &str, user: &str, groups: &[&str], audiences: &[&str]) {
        let own = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let audiences = if audiences.is_empty() { vec![OWN.to_owned()] } else { own(audiences) };
        self.tokens.insert(token.into(), Holder { user: user.into(), groups: own(groups), audiences });
    }

    pub(super) fn allow(&mut self, allowed: Allowed) {
        self.allowed.push(allowed);
    }

    pub(super) fn forbid(&mut self, verb: &str, plural: &str) {
        self.forbidden.push((verb.into(), plural.into()));
    }

    pub(super) fn is_forbidden(&self, verb: &str, plural: &str) -> bool {
        self.forbidden.iter().any(|(v, p)| v == verb && p == plural)
    }

    /// Whose the token is that somebody shows.
    pub(super) fn who(&self, authorization: Option<&str>) -> Option<&str> {
        let token = authorization?.strip_prefix("Bearer ")?;
        self.tokens.get(token).map(|holder| holder.user.as_str())
    }

    /// Whether whoever shows this is let in.
    pub(super) fn lets_in(&self, authorization: Option<&str>) -> bool {
        let shown = authorization.and_then(|text| text.strip_prefix("Bearer "));
        let is_own = |holder: &Holder| holder.audiences.iter().any(|a| a == OWN);
        self.tokens.is_empty() || shown.and_then(|token| self.tokens.get(token)).is_some_and(is_own)
    }

    /// A token for a service account (TokenRequest).
    pub(super) fn issue(&mut self, namespace: &str, name: &str, request: &Value) -> Value {
        let asked = request["spec"]["audiences"].as_array().into_iter().flatten();
        let audiences: Vec<&str> = asked.filter_map(Value::as_str).collect();
        let token = format!("eyJh.{namespace}-{name}.planted{}", self.tokens.len());
        self.token(&token, &format!("system:serviceaccount:{namespace}:{name}"), &[], &audiences);
        json!({ "token": token, "expirationTimestamp": "2099-01-01T00:00:00Z" })
    }

    /// The answer to a TokenReview.
    pub(super) fn whose(&self, review: &Value) -> Value {
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        let asked = review["spec"]["audiences"].as_array().filter(|all| !all.is_empty());
        let asked: Vec<&str> =
            asked.map_or_else(|| vec![OWN], |all| all.iter().filter_map(Value::as_str).collect());
        let Some(holder) = self.tokens.get(token) else {
            return json!({ "error": "[invalid bearer token]", "user": {} });
        };
        let good: Vec<_> =
            asked.into_iter().filter(|a| holder.audiences.iter().any(|own| own == a)).collect();
        if good.is_empty() {
            return json!({ "error": "[token audiences are invalid]", "user": {} });
        }
        let user = json!({ "username": holder.user, "groups": holder.groups });
        json!({ "authenticated": true, "user": user, "audiences": good })
    }

    /// The answer to a SubjectAccessReview.
    pub(super) fn may(&self, review: &Value) -> Value {
        let spec = &review["spec"];
        let of = |field: &str| spec["resourceAttributes"][field].as_str().unwrap_or_default();
        let groups = spec["groups"].as_array();
        let allowed = self.allowed.iter().any(|rule| {
            let who = rule.who == spec["user"].as_str().unwrap_or_default()
                || groups.is_some_and(|all| all.iter().any(|g| *g == *rule.who));
            let fits = |rule: &str, asked: &str| rule == "*" || rule == asked;
            let here = rule.namespace.as_deref().is_none_or(|namespace| namespace == of("namespace"));
            who && here
                && fits(&rule.verb, of("verb"))
                && fits(&rule.group, of("group"))
                && fits(&rule.resource, of("resource"))
                && fits(&rule.name, of("name"))
        });
        json!({ "allowed": allowed, "reason": if allowed { "a rule of the test" } else { "" } })
    }
}
