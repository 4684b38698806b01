//! Whether what is said of tokens holds together: services that exist and have no other policy for tokens, issuers with
//! keys that can be read or fetched, rules that mean issuers that are there.

use std::sync::Arc;
use std::time::Duration;

use outrigger_certs::certificates_from_pem;
use outrigger_mesh::{
    AcceptedIssuer, ClaimHeader, ClaimPath, IssuerKeys, IssuerName, Label, RouteMatch, ServiceName,
    ToApplication, TokenNeed, TokenRule, TokenRules, TokenTravel,
};

use super::settings::no_service;
use super::{Found, route};
use crate::jwks::{Place, Source, read_keys};
use crate::spec::{
    self, Code, Given, Kind, Object, Problem, Propagation, Requirement, TokenPolicy, Unavailable,
};
use crate::world::World;

/// A policy for tokens that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedTokenPolicy {
    /// The services it holds for.
    pub services: Vec<ServiceName>,
    /// The issuers it names.
    pub issuers: Vec<CheckedIssuer>,
    /// What is wanted of tokens, with those of the mesh for the first service in the place of each.
    rules: TokenRules,
    /// What goes along on calls.
    pub(crate) travel: TokenTravel,
    /// What goes on when tokens are exchanged, where they are.
    pub(crate) exchange: Option<CheckedExchange>,
}

/// What of a token goes on when it is exchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedExchange {
    /// The words of the scope; `None` for all.
    pub(crate) scopes: Option<Vec<Arc<str>>>,
    /// Other claims.
    pub(crate) claims: Vec<Arc<str>>,
}

impl CheckedTokenPolicy {
    /// Has nobody's token be good: the keys of no issuer are known, and none are looked for.
    pub(crate) fn has_no_keys(&mut self) {
        for issuer in &mut self.issuers {
            (issuer.source, issuer.inline) = (None, IssuerKeys::Missing);
        }
    }

    /// What one of the services wants of tokens: those of the mesh are good for it alone.
    pub(crate) fn rules_of(&self, service: &ServiceName) -> TokenRules {
        let mut rules = self.rules.clone();
        if self.exchange.is_some() {
            let (mesh, own) = (IssuerName::of_the_mesh(), AcceptedIssuer::of_the_mesh(service));
            for issuer in rules.rules.iter_mut().flat_map(|rule| &mut rule.issuers) {
                if issuer.issuer == mesh {
                    issuer.clone_from(&own);
                }
            }
        }
        rules
    }
}

/// An issuer, and where its keys come from.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedIssuer {
    /// Its name in the mesh.
    pub name: IssuerName,
    /// The value of `iss`.
    pub iss: Arc<str>,
    /// Where its keys are published; `None` where they were written.
    pub source: Option<Source>,
    /// The keys that were written.
    pub(crate) inline: IssuerKeys,
}

pub(super) fn check(
    object: &Object,
    spec: &TokenPolicy,
    world: &World,
    found: &mut Found,
) -> Option<CheckedTokenPolicy> {
    let services = services(object, spec, world, found);
    let policy = Label::new(object.metadata.name.as_str());
    let policy = policy.map_err(|e| found.add(bad("/metadata/name", e.to_string()))).ok();
    let mut issuers = vec![];
    let mut accepted: Vec<(String, AcceptedIssuer)> = vec![];
    let exchanged = spec.propagation == Some(Propagation::Exchange);
    if spec.issuers.is_empty() && !exchanged {
        found.add(Problem::error("/spec/issuers", Code::MissingField, "it names no issuer"));
    }
    for (i, written) in spec.issuers.iter().enumerate() {
        let at = format!("/spec/issuers/{i}");
        if spec.issuers[..i].iter().any(|other| other.name == written.name) {
            let message = format!("the issuer {:?} is there twice", written.name);
            found.add(Problem::error(format!("{at}/name"), Code::Duplicate, message));
        }
        let keys = keys(&format!("{at}/jwks"), &written.jwks, found);
        if written.audiences.is_empty() {
            let problem =
                Problem::error(format!("{at}/audiences"), Code::MissingField, "it accepts no audience");
            found.add(problem.hint("list what stands in `aud` of tokens for this service; without it tokens that were meant for others would pass"));
        }
        let name =
            Label::new(&written.name).map_err(|e| found.add(bad(&format!("{at}/name"), e.to_string())));
        let (Ok(name), Some(policy), Some((source, inline))) = (name, &policy, keys) else { continue };
        let name = IssuerName::new(object.metadata.namespace.clone(), policy.clone(), name);
        let max_lifetime = written.max_lifetime.map_or(TokenRules::MAX_LIFETIME, spec::Duration::get);
        let audiences = written.audiences.iter().map(|a| Arc::from(a.as_str())).collect();
        if name == IssuerName::of_the_mesh() || (exchanged && written.name == MESH) {
            let problem = bad(&format!("{at}/name"), "this name is that of the mesh itself".into());
            found.add(problem.hint("give it another name"));
        }
        accepted
            .push((written.name.clone(), AcceptedIssuer { issuer: name.clone(), audiences, max_lifetime }));
        issuers.push(CheckedIssuer { name, iss: written.issuer.as_str().into(), source, inline });
    }
    let exchange = exchange(spec, found);
    if let (Some(_), Some(service)) = (&exchange, services.first()) {
        accepted.push((MESH.into(), AcceptedIssuer::of_the_mesh(service)));
    }
    let rules = token_rules(spec, &accepted, found);
    let travel = match spec.propagation {
        None | Some(Propagation::None) => TokenTravel::Keep,
        Some(Propagation::Attach) => TokenTravel::Attach,
        Some(Propagation::Exchange) => {
            let unavailable = spec.exchange.as_ref().and_then(|e| e.unavailable);
            TokenTravel::Exchange { or_original: unavailable == Some(Unavailable::Original) }
        }
    };
    if found.is_fatal() {
        return None;
    }
    if let Err(what) = rules.check() {
        found.add(Problem::error("/spec", Code::Contradiction, what));
        return None;
    }
    Some(CheckedTokenPolicy { services, issuers, rules, travel, exchange })
}

fn exchange(spec: &TokenPolicy, found: &mut Found) -> Option<CheckedExchange> {
    const AT: &str = "/spec/exchange";
    if spec.propagation != Some(Propagation::Exchange) {
        if spec.exchange.is_some() {
            let message = "it means nothing without propagation: exchange";
            found.add(Problem::error(AT, Code::Contradiction, message));
        }
        return None;
    }
    let written = spec.exchange.clone().unwrap_or_default();
    for (i, claim) in written.claims.iter().enumerate() {
        if OWN_CLAIMS.contains(&claim.as_str()) {
            let message = format!("the mesh itself says what {claim} is");
            found.add(bad(&format!("{AT}/claims/{i}"), message));
        }
    }
    if written.unavailable == Some(Unavailable::Original) && spec.issuers.is_empty() {
        let message = "the original would be refused: the policy takes no tokens but those of the mesh";
        let problem = Problem::error(format!("{AT}/unavailable"), Code::Contradiction, message);
        found.add(problem.hint("list its issuer under issuers"));
    }
    let texts = |all: Vec<String>| all.into_iter().map(Arc::from).collect();
    Some(CheckedExchange { scopes: written.scopes.map(texts), claims: texts(written.claims) })
}

fn bad(pointer: &str, message: String) -> Problem {
    Problem::error(pointer, Code::BadValue, message)
}

fn services(object: &Object, spec: &TokenPolicy, world: &World, found: &mut Found) -> Vec<ServiceName> {
    let (own, mut all) = (object.key(), vec![]);
    if spec.target_refs.is_empty() {
        found.add(Problem::error("/spec/targetRefs", Code::MissingField, "it holds for no service"));
    }
    let some_are = spec.target_refs.iter().any(|target| {
        let label = Label::new(&target.name).ok();
        let name = label.map(|label| ServiceName::new(object.metadata.namespace.clone(), label));
        name.is_some_and(|name| world.service(&name).is_some())
    });
    for (i, target) in spec.target_refs.iter().enumerate() {
        let at = format!("/spec/targetRefs/{i}");
        let right = target.kind.group();
        if target.group.as_deref().is_some_and(|group| group != right) {
            let problem =
                Problem::error(format!("{at}/group"), Code::Contradiction, "this kind is not in this group");
            found.add(problem.hint(format!("write group: {right:?}")));
        }
        let label = match Label::new(&target.name) {
            Ok(label) => label,
            Err(e) => {
                found.add(bad(&format!("{at}/name"), e.to_string()));
                continue;
            }
        };
        let name = ServiceName::new(object.metadata.namespace.clone(), label);
        match world.service(&name) {
            None => {
                found.one_is_gone(no_service(&format!("{at}/name"), &name, world), some_are);
                continue;
            }
            Some(entry) if entry.object.kind() == Kind::EgressService => {
                let message = format!("{name} is outside the mesh: nobody there verifies tokens for us");
                found.add(Problem::error(format!("{at}/name"), Code::Reference, message));
            }
            Some(_) => {}
        }
        if let Some(other) = world.token_policy_of(&name).filter(|e| e.object.key() != own) {
            let key = other.object.key();
            let problem = Problem::error(
                at.clone(),
                Code::Conflict,
                format!("{name} has a policy for tokens already, {key}"),
            );
            found.add(problem.hint(format!("write it there, or delete {key} together with this")));
        }
        if all.contains(&name) {
            found.add(Problem::error(at, Code::Duplicate, format!("{name} is there twice")));
        } else {
            all.push(name);
        }
    }
    all
}

/// Where keys come from, or the keys themselves.
fn keys(at: &str, jwks: &spec::Jwks, found: &mut Found) -> Option<(Option<Source>, IssuerKeys)> {
    let said = [jwks.inline.is_some(), jwks.file.is_some(), jwks.uri.is_some()];
    if said.iter().filter(|said| **said).count() != 1 {
        let message = "the keys are inline, in a file or at a uri: one of them";
        found.add(Problem::error(at, Code::Contradiction, message).hint("write inline, file or uri"));
        return None;
    }
    let only_uri = [("caBundle", jwks.ca_bundle.is_some()), ("allowPrivate", jwks.allow_private.is_some())];
    for (field, _) in only_uri.into_iter().filter(|(_, said)| *said && jwks.uri.is_none()) {
        let message = format!("{field} means nothing without uri");
        found.add(Problem::error(format!("{at}/{field}"), Code::Contradiction, message));
    }
    if let Some(text) = &jwks.inline {
        return match read_keys(text.as_bytes()) {
            Ok(keys) => Some((None, IssuerKeys::Known(keys))),
            Err(why) => {
                let problem = bad(&format!("{at}/inline"), why);
                found.add(problem.hint("write the set as its issuer publishes it: {\"keys\": [...]}"));
                None
            }
        };
    }
    let refresh = jwks.refresh.map_or(REFRESH, spec::Duration::get);
    if refresh < SHORTEST_REFRESH {
        found.add(bad(&format!("{at}/refresh"), "it is at least 10s".into()));
    }
    if let Some(path) = &jwks.file {
        return Some((Some(Source { place: Place::File(path.into()), refresh }), IssuerKeys::Missing));
    }
    let uri = jwks.uri.as_deref().unwrap_or_default();
    let allow_private = jwks.allow_private.unwrap_or_default();
    if !uri.starts_with("https://") && !allow_private {
        let problem = bad(&format!("{at}/uri"), "keys that come in plaintext could be anybody's".into());
        found.add(problem.hint("write https://, or allowPrivate: true for a server of your own network"));
    }
    let parsed: Option<http::Uri> = uri.parse().ok();
    if parsed.as_ref().and_then(|u| u.authority()).is_none_or(|a| a.as_str().contains('@')) {
        found.add(bad(&format!("{at}/uri"), "it names no host, or carries a user's name".into()));
    }
    let roots = match jwks.ca_bundle.as_deref().map(certificates_from_pem).transpose() {
        Ok(roots) => roots.unwrap_or_default(),
        Err(message) => {
            found.add(bad(&format!("{at}/caBundle"), message));
            return None;
        }
    };
    Some((
        Some(Source { place: Place::Uri { uri: uri.into(), roots, allow_private }, refresh }),
        IssuerKeys::Missing,
    ))
}

fn token_rules(spec: &TokenPolicy, accepted: &[(String, AcceptedIssuer)], found: &mut Found) -> TokenRules {
    let all = || accepted.iter().map(|(_, issuer)| issuer.clone()).collect::<Vec<_>>();
    let mut rules = vec![];
    for (i, written) in spec.rules.iter().enumerate() {
        let at = format!("/spec/rules/{i}");
        if written.matches.is_empty() {
            let problem = Problem::error(
                format!("{at}/matches"),
                Code::MissingField,
                "it is for every request, and no later rule for any",
            );
            found.add(problem.hint("say it as the policy's own requirement"));
        }
        let matches: Vec<RouteMatch> = (written.matches.iter().enumerate())
            .filter_map(|(j, m)| route::conditions(&format!("{at}/matches/{j}"), m, found))
            .collect();
        let mut issuers = vec![];
        for (j, name) in written.issuers.iter().enumerate() {
            let Some((_, issuer)) = accepted.iter().find(|(own, _)| own == name) else {
                let message = format!("the policy has no issuer {name:?}");
                let problem = Problem::error(format!("{at}/issuers/{j}"), Code::Reference, message);
                let near = spec::nearest(name, accepted.iter().map(|(own, _)| own.as_str()));
                found.add(match near {
                    Some(near) => problem.hint(format!("did you mean {near:?}?")),
                    None => problem,
                });
                continue;
            };
            issuers.push(issuer.clone());
        }
        let issuers = if written.issuers.is_empty() { all() } else { issuers };
        rules.push(TokenRule { matches, need: need(written.requirement), issuers });
    }
    let need = need(spec.requirement.unwrap_or(Requirement::Required));
    rules.push(TokenRule { matches: vec![], need, issuers: all() });
    let (to_application, claim_headers) = to_application(spec, found);
    let max_bytes = spec.max_size.map_or(u64::from(TokenRules::MAX_BYTES), spec::Size::get);
    let max_bytes = u32::try_from(max_bytes).ok().filter(|n| (256..=32_768).contains(n));
    if max_bytes.is_none() {
        found.add(bad("/spec/maxSize", "it is from 256 bytes to 32Ki".into()));
    }
    let max_bytes = max_bytes.unwrap_or(TokenRules::MAX_BYTES);
    TokenRules { rules, to_application, claim_headers, max_bytes }
}

fn to_application(spec: &TokenPolicy, found: &mut Found) -> (ToApplication, Vec<ClaimHeader>) {
    const AT: &str = "/spec/toApplication";
    let Some(written) = &spec.to_application else { return (ToApplication::Keep, vec![]) };
    let given = match (written.token.unwrap_or(Given::Keep), &written.header) {
        (Given::Replace, Some(header)) => ToApplication::Replace(header.get().clone()),
        (Given::Replace, None) => {
            let message = "the token is to be replaced, and no header says by what";
            found.add(
                Problem::error(format!("{AT}/header"), Code::MissingField, message)
                    .hint("write header: x-token-claims"),
            );
            ToApplication::Strip
        }
        (_, Some(_)) => {
            let message = "header means nothing without token: replace";
            found.add(Problem::error(format!("{AT}/header"), Code::Contradiction, message));
            ToApplication::Keep
        }
        (Given::Keep, None) => ToApplication::Keep,
        (Given::Strip, None) => ToApplication::Strip,
    };
    let mut claims = vec![];
    for (i, written) in written.claims.iter().enumerate() {
        match ClaimPath::new(&written.claim) {
            Ok(claim) => claims.push(ClaimHeader { claim, header: written.header.get().clone() }),
            Err(e) => found.add(bad(&format!("{AT}/claims/{i}/claim"), e.to_string())),
        }
    }
    (given, claims)
}

fn need(written: Requirement) -> TokenNeed {
    match written {
        Requirement::Required => TokenNeed::Required,
        Requirement::Optional => TokenNeed::Optional,
        Requirement::None => TokenNeed::Nothing,
    }
}

/// By what rules name the mesh as an issuer.
const MESH: &str = "mesh";
/// What no policy lets through as it was.
const OWN_CLAIMS: [&str; 13] =
    ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "act", "may_act", "cnf", "scope", "scp", "origin"];
const REFRESH: Duration = Duration::from_secs(300);
const SHORTEST_REFRESH: Duration = Duration::from_secs(10);
