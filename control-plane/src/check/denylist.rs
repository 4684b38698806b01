//! Whether each entry of a denylist says something, and no more than it may.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use outrigger_mesh::{DeniedToken, Denylist as Compiled, Label, ServiceName, SpiffeId};

use super::Found;
use crate::spec::{Code, Denylist, Object, Problem};
use crate::world::World;

pub(super) fn check(object: &Object, spec: &Denylist, world: &World, found: &mut Found) -> Option<Compiled> {
    let namespace = &object.metadata.namespace;
    let mut bad = |pointer: String, message: String, hint: &str| {
        let problem = Problem::error(pointer, Code::BadValue, message);
        found.add(if hint.is_empty() { problem } else { problem.hint(hint) });
    };
    let text = |text: &Option<String>| text.as_deref().map(Arc::from);
    let mut tokens = vec![];
    for (i, written) in spec.tokens.iter().enumerate() {
        let seconds = written.issued_before.map(|t| t.get().duration_since(UNIX_EPOCH).unwrap_or_default());
        let denied = DeniedToken {
            iss: text(&written.issuer),
            jti: text(&written.jti),
            sub: text(&written.sub),
            issued_before: seconds.map(|s| s.as_secs()),
        };
        match denied.check() {
            Ok(()) => tokens.push(denied),
            Err(why) => bad(format!("/spec/tokens/{i}"), why.into(), "else it would mean every token"),
        }
    }
    let mut identities: Vec<SpiffeId> = vec![];
    for (i, text) in spec.identities.iter().enumerate() {
        let account = |label| SpiffeId::new(world.trust_domain().clone(), namespace.clone(), label);
        let read = if text.contains(':') { text.parse() } else { Label::new(text).map(account) };
        match read {
            Ok(id) => identities.push(id),
            Err(e) => bad(format!("/spec/identities/{i}"), e.to_string(), ""),
        }
    }
    let name = Label::new(object.metadata.name.as_str());
    let name = name.map_err(|e| bad("/metadata/name".into(), e.to_string(), "")).ok()?;
    if found.is_fatal() {
        return None;
    }
    let list = Compiled { name: ServiceName::new(namespace.clone(), name), tokens, identities };
    match list.checked() {
        Ok(list) => Some(list),
        Err(e) => {
            found.add(Problem::error("/spec", Code::TooLarge, e.to_string()));
            None
        }
    }
}
