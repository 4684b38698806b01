//! What a token of the mesh says: a pure function of the token it is exchanged for and of what the policy lets through.

use outrigger_mesh::{ClaimPath, ClaimValue, Claims, EXCHANGED_LIFETIME, ORIGIN, ServiceName, SpiffeId};
use serde_json::{Map, Number, Value as Json, json};

use crate::check::CheckedExchange;

/// What is asked for.
pub(super) struct Wanted<'a> {
    /// The token that is exchanged, verified.
    pub(super) subject: &'a Claims,
    /// Its end, in seconds since 1970.
    pub(super) expires: u64,
    /// Whether it is itself a token of the mesh.
    pub(super) of_the_mesh: bool,
    /// Who asks, proven.
    pub(super) caller: &'a SpiffeId,
    /// Where the new one shall be good.
    pub(super) service: &'a ServiceName,
    /// What of the old one goes on.
    pub(super) policy: &'a CheckedExchange,
    /// Who issues it.
    pub(super) iss: &'a str,
    /// Its name.
    pub(super) jti: String,
    /// Seconds since 1970.
    pub(super) now: u64,
}

/// The claims of the new token, and its end.
pub(super) fn claims(wanted: &Wanted<'_>) -> Result<(Json, u64), &'static str> {
    let subject = wanted.subject;
    let sub = subject.text("sub").ok_or("the token names nobody: it has no sub")?;
    let expires = wanted.expires.min(wanted.now + EXCHANGED_LIFETIME.as_secs());
    if expires <= wanted.now {
        return Err("the token's time is over");
    }
    let mut claims = Map::new();
    for name in &wanted.policy.claims {
        if let Some(value) = subject.top(name) {
            claims.insert(name.to_string(), to_json(value));
        }
    }
    let scope = scope(wanted);
    if !scope.is_empty() {
        claims.insert("scope".into(), scope.into());
    }
    claims.insert("iss".into(), wanted.iss.into());
    claims.insert("aud".into(), wanted.service.to_string().into());
    claims.insert("sub".into(), sub.into());
    claims.insert("iat".into(), wanted.now.into());
    claims.insert("exp".into(), expires.into());
    claims.insert("jti".into(), wanted.jti.clone().into());
    claims.insert("act".into(), act(wanted)?);
    claims.insert(ORIGIN.into(), origin(wanted));
    Ok((claims.into(), expires))
}

/// The words of the scope that the policy lets through.
fn scope(wanted: &Wanted<'_>) -> String {
    let words =
        |name: &str| ClaimPath::new(name).map(|path| wanted.subject.values(&path)).unwrap_or_default();
    let mut words = [words("scope"), words("scp")].concat();
    if let Some(allowed) = &wanted.policy.scopes {
        words.retain(|word| allowed.iter().any(|a| **a == **word));
    }
    let mut seen = std::collections::HashSet::new();
    words.retain(|word| seen.insert(word.clone()));
    words.join(" ")
}

/// Who acts: the caller, for whom acted before it (RFC 8693, section 4.1). What another issuer says of that is not of the
/// mesh, and ends here.
fn act(wanted: &Wanted<'_>) -> Result<Json, &'static str> {
    let mut act = json!({"sub": wanted.caller.to_string()});
    if wanted.of_the_mesh
        && let Some(before @ ClaimValue::Object(_)) = wanted.subject.top("act")
    {
        if depth(before) >= MAX_CHAIN {
            return Err("the chain of calls is too long");
        }
        act["act"] = to_json(before);
    }
    Ok(act)
}

fn depth(act: &ClaimValue) -> usize {
    let ClaimValue::Object(members) = act else { return 0 };
    let before = members.iter().find(|(name, _)| &**name == "act");
    1 + before.map_or(0, |(_, before)| depth(before))
}

/// By what a denylist may name the token that a user began with.
fn origin(wanted: &Wanted<'_>) -> Json {
    if wanted.of_the_mesh
        && let Some(origin) = wanted.subject.top(ORIGIN)
    {
        return to_json(origin);
    }
    let kept = ["iss", "jti", "iat"].into_iter();
    kept.filter_map(|name| Some((name.to_owned(), to_json(wanted.subject.top(name)?))))
        .collect::<Map<_, _>>()
        .into()
}

fn to_json(value: &ClaimValue) -> Json {
    match value {
        ClaimValue::Null => Json::Null,
        ClaimValue::Bool(is) => (*is).into(),
        ClaimValue::Integer(number) => (*number).into(),
        ClaimValue::Float(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
        ClaimValue::Text(text) => (&**text).into(),
        ClaimValue::List(all) => all.iter().map(to_json).collect(),
        ClaimValue::Object(members) => members
            .iter()
            .map(|(name, value)| (name.to_string(), to_json(value)))
            .collect::<Map<_, _>>()
            .into(),
    }
}

/// So many act at most; what reads tokens has a bound of its own.
const MAX_CHAIN: usize = 6;
