//! What users may by their roles, and what of it they have used: whoever has a role is held to it.

use std::collections::{BTreeMap, BTreeSet};

use super::question::Question;

/// What each user with a role may.
#[derive(Default)]
pub(super) struct Grants {
    of: BTreeMap<String, Vec<Granted>>,
    denied: BTreeSet<String>,
}

/// One verb on one sort of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// In this namespace; `None`: in all, and on what is in none.
    pub namespace: Option<String>,
    /// The group, empty for the core.
    pub group: String,
    /// The plural, with a subresource.
    pub resource: String,
    /// The verb.
    pub verb: String,
    /// The name of the one object that is meant; `None`: any.
    pub name: Option<String>,
}

struct Granted {
    grant: Grant,
    used: bool,
}

impl std::fmt::Display for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.name.as_deref().unwrap_or("*");
        write!(f, "{} {} {} {name}", self.verb, of_group(&self.resource, &self.group), self.place())
    }
}

impl Grant {
    fn place(&self) -> String {
        self.namespace.as_ref().map_or_else(|| "everywhere".into(), |namespace| format!("in {namespace}"))
    }

    /// As RBAC has it: a role in a namespace covers nothing beyond it, and a name nothing that is asked of many or not made yet.
    fn covers(&self, asked: &Question) -> bool {
        let named = match &self.name {
            None => true,
            Some(name) => asked.verb != "create" && asked.name() == Some(name),
        };
        named
            && self.verb == asked.verb
            && self.group == asked.resource.group
            && self.resource == asked.on()
            && self.namespace.as_ref().is_none_or(|namespace| asked.namespace.as_ref() == Some(namespace))
    }
}

impl Grants {
    pub(super) fn give(&mut self, user: &str, grant: Grant) {
        self.of.entry(user.to_owned()).or_default().push(Granted { grant, used: false });
    }

    /// Whether somebody may do what he asks for, which is noted; in words why not.
    pub(super) fn judge(&mut self, asked: &Question) -> Result<(), String> {
        let found = asked.who.as_ref().and_then(|user| Some((user, self.of.get_mut(user)?)));
        let Some((user, all)) = found else { return Ok(()) };
        let mut may = false;
        for granted in all.iter_mut().filter(|granted| granted.grant.covers(asked)) {
            (granted.used, may) = (true, true);
        }
        if may {
            return Ok(());
        }
        let place = match &asked.namespace {
            Some(namespace) => format!("in the namespace {namespace:?}"),
            None => "at the cluster scope".into(),
        };
        let (on, group, verb) = (asked.on(), &asked.resource.group, asked.verb);
        let name = asked.name().map(|name| format!(" {name:?}")).unwrap_or_default();
        self.denied.insert(format!("{verb} {}{name} {place}", of_group(&on, group)));
        Err(format!(
            "{}{name} is forbidden: User {user:?} cannot {verb} resource {on:?} in API group {group:?} {place}",
            of_group(&on, group)
        ))
    }

    pub(super) fn unused(&self, user: &str) -> Vec<String> {
        let all = self.of.get(user).into_iter().flatten();
        all.filter(|granted| !granted.used).map(|granted| granted.grant.to_string()).collect()
    }

    pub(super) fn denied(&self) -> BTreeSet<String> {
        self.denied.clone()
    }

    /// Whether a user may do something that he only asks about.
    pub(super) fn allows(&self, user: &str, is: impl Fn(&Grant) -> bool) -> bool {
        self.of.get(user).is_none_or(|all| all.iter().any(|granted| is(&granted.grant)))
    }
}

fn of_group(resource: &str, group: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}
