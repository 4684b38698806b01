//! Routes that refer to what a change puts or takes away, and are not part of it themselves.

use std::sync::Arc;

use super::Write;
use super::stage::Stage;
use crate::check::{Checked, check_stored};
use crate::routes;
use crate::spec::{Code, Key, Kind, ObjectName, Problem, Severity};
use crate::world::{Entry, World};
use outrigger_mesh::{Label, ServiceName};

impl Stage {
    /// Checks a route again. What it says of itself must still hold; what it refers to is a state of it, but one that a
    /// change makes worse is refused, unless that is allowed or somebody takes back what was granted.
    pub(super) fn dependent_route(
        &mut self,
        old: &World,
        key: &Key,
        write: &Write,
        problems: &mut Vec<Problem>,
    ) {
        let Some(entry) = self.world.route(key).map(Arc::clone) else { return };
        let checked = match check_stored(&entry.object, &self.world) {
            Ok((Checked::Route(checked), _)) => checked,
            Ok(_) => return,
            Err(found) => {
                let errors = found.into_iter().filter(|p| p.severity == Severity::Error);
                problems.extend(errors.map(|wrong| no_longer(key, &wrong.message, write)));
                return;
            }
        };
        // What it names can be something else now: the port behind a name.
        let entry =
            Entry { object: entry.object.clone(), created: entry.created, changed: entry.changed, checked };
        let known = old.route(key).map(|before| routes::dangling(old, before)).unwrap_or_default();
        let lenient = self.dangling || write.key().kind == Kind::ReferenceGrant;
        for (at, wrong) in routes::dangling(&self.world, &entry).difference(&known) {
            if lenient {
                let message = format!("{key} leads nowhere at {at} from now on: {}", wrong.message);
                self.warnings.push(Problem::warning("", Code::Reference, message));
            } else {
                problems.push(no_longer(key, &wrong.message, write));
            }
        }
        self.world.put_route(entry);
        self.touched.routes.insert(key.clone());
    }
}

/// The routes that refer to the object of `key`.
pub(super) fn routes_on(world: &World, key: &Key) -> impl Iterator<Item = Key> {
    let name = name_of(&key.name).map(|name| ServiceName::new(key.namespace.clone(), name));
    let routes: Vec<Key> = match (key.kind, name) {
        (Kind::ReferenceGrant, _) => world.routes_into(&key.namespace).cloned().collect(),
        (Kind::RouteFilter, _) => world.routes_with(key).cloned().collect(),
        (Kind::Gateway, Some(name)) => world.routes_at(&name).iter().map(|r| r.object.key()).collect(),
        (kind, Some(name)) if kind.is_service() => {
            world.routes_naming(&name).chain(world.routes_to(&name)).cloned().collect()
        }
        _ => vec![],
    };
    routes.into_iter()
}

/// What is no longer so because of a write.
pub(super) fn no_longer(key: &Key, why: &str, write: &Write) -> Problem {
    let problem = Problem::error("", Code::Reference, format!("{key} would no longer hold: {why}"));
    match write {
        Write::Put { document, .. } => document.located(problem),
        Write::Delete { .. } => problem.hint("delete or change that first, or together with it"),
    }
}

fn name_of(name: &ObjectName) -> Option<Label> {
    Label::new(name.as_str()).ok()
}
