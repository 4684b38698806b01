//! Finding the rules that a request meets, and what comes of them.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::paths::{Paths, Reading};
use super::{Access, AccessAction, AccessDefault, AccessHeader, AccessPolicyName, AccessRule, CallerMatch};
use crate::identity::SpiffeId;
use crate::name::PortNumber;
use crate::route::RequestHead;

/// The rules of a service, arranged so that the cost of a request does not grow with their number: by caller and port,
/// which are settled once for a connection, then by path. Only rules that share all three are tried one after the other.
#[derive(Debug, Default)]
pub struct AccessIndex {
    default: AccessDefault,
    /// Whether any allow policy is there.
    allows: bool,
    rules: Vec<Compiled>,
    tables: Vec<Table>,
    /// Where the rules about a caller (`None`: anybody) at a port (`None`: any) are.
    places: HashMap<(Option<CallerMatch>, Option<PortNumber>), usize>,
    policies: Vec<(AccessPolicyName, AccessAction)>,
}

/// The rules about one caller at one port.
#[derive(Debug, Default)]
struct Table {
    deny: Paths,
    audit: Paths,
    allow: Paths,
}

#[derive(Debug)]
struct Compiled {
    conditions: AccessRule,
    name: RuleName,
}

/// Which rule of which policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleName {
    /// The policy.
    pub policy: AccessPolicyName,
    /// The rule within it.
    pub rule: Arc<str>,
    /// The place of the policy among those of the service.
    pub number: usize,
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {}, rule {}", self.policy, self.rule)
    }
}

/// The rules that one caller can meet at one port. Settled once for a connection, and again when the rules change.
#[derive(Clone, Copy, Debug)]
pub struct AskedBy {
    tables: [usize; MOST_TABLES],
    count: usize,
}

/// Five ways to mean a caller, at a port or at any.
const MOST_TABLES: usize = 10;

/// What comes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Whether it passes.
    pub allowed: bool,
    /// Why.
    pub because: Because<'a>,
}

/// Why a request passes or is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because<'a> {
    /// This rule holds for it.
    Rule(&'a RuleName),
    /// There are allow policies, and none of them allows it.
    NoneAllows,
    /// No policy says anything of it.
    Default,
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.allowed { "allowed" } else { "denied" };
        match (self.because, self.allowed) {
            (Because::Rule(name), _) => write!(f, "{word} by {name}"),
            (Because::NoneAllows, _) => write!(f, "{word}: no policy allows it"),
            (Because::Default, true) => write!(f, "{word}: no policy says otherwise"),
            (Because::Default, false) => {
                write!(f, "{word}: no policy allows it, and the mesh denies by default")
            }
        }
    }
}

impl AccessIndex {
    /// Arranges the rules of a service.
    pub fn new(access: &Access) -> Self {
        let mut index = Self { default: access.default, ..Self::default() };
        for (number, policy) in access.policies.iter().enumerate() {
            index.allows |= policy.action == AccessAction::Allow;
            index.policies.push((policy.name.clone(), policy.action));
            for rule in &policy.rules {
                let name = RuleName { policy: policy.name.clone(), rule: Arc::clone(&rule.name), number };
                index.add(rule, name, policy.action);
            }
        }
        index
    }

    fn add(&mut self, rule: &AccessRule, name: RuleName, action: AccessAction) {
        let Ok(number) = u32::try_from(self.rules.len()) else { return };
        for caller in each(&rule.from) {
            for port in each(&rule.ports) {
                let free = self.tables.len();
                let place = *self.places.entry((caller.clone(), port)).or_insert(free);
                if place == free {
                    self.tables.push(Table::default());
                }
                let table = &mut self.tables[place];
                match action {
                    AccessAction::Deny => table.deny.add(number, &rule.paths, Reading::Wide),
                    AccessAction::Audit => table.audit.add(number, &rule.paths, Reading::Wide),
                    AccessAction::Allow => table.allow.add(number, &rule.paths, Reading::Narrow),
                }
            }
        }
        self.rules.push(Compiled { conditions: rule.clone(), name });
    }

    /// Whether everything passes and nothing is counted.
    pub fn is_open(&self) -> bool {
        self.default == AccessDefault::Allow && self.policies.is_empty()
    }

    /// The policies, in the order in which [`RuleName::number`] counts them.
    pub fn policies(&self) -> &[(AccessPolicyName, AccessAction)] {
        &self.policies
    }

    /// The rules that `caller`, who has proven nothing where that is `None`, can meet at `port`.
    pub fn asked_by(&self, caller: Option<&SpiffeId>, port: PortNumber) -> AskedBy {
        let mut found = AskedBy { tables: [0; MOST_TABLES], count: 0 };
        let mut look = |whom: Option<CallerMatch>| {
            for port in [Some(port), None] {
                if let Some(table) = self.places.get(&(whom.clone(), port)) {
                    found.tables[found.count] = *table;
                    found.count += 1;
                }
            }
        };
        if self.places.is_empty() {
            return found;
        }
        match caller {
            Some(id) => {
                let domain = id.trust_domain();
                look(Some(CallerMatch::Id(id.clone())));
                look(Some(CallerMatch::Namespace(domain.clone(), id.namespace().clone())));
                look(Some(CallerMatch::TrustDomain(domain.clone())));
                look(Some(CallerMatch::Authenticated));
            }
            None => look(Some(CallerMatch::Unauthenticated)),
        }
        look(None);
        found
    }

    /// What comes of a request.
    pub fn decide(&self, by: &AskedBy, request: &RequestHead<'_>) -> Decision<'_> {
        let denied = self.first(by, |t| &t.deny, Reading::Wide, request);
        if let Some(name) = denied {
            return Decision { allowed: false, because: Because::Rule(name) };
        }
        self.concluded(self.first(by, |t| &t.allow, Reading::Narrow, request))
    }

    /// What comes of a connection whose bytes nobody looks into. Of a deny the caller and the port count, whatever else it
    /// says: what can not be seen is not given the benefit of the doubt. An allow that asks for more allows nothing here.
    pub fn decide_connection(&self, by: &AskedBy) -> Decision<'_> {
        if let Some(rule) = self.tables(by).find_map(|t| t.deny.all.first()) {
            return Decision { allowed: false, because: Because::Rule(self.name(*rule)) };
        }
        let whole = |rule: &&u32| self.rule(**rule).is_some_and(|r| !r.conditions.is_about_http());
        let allowed = self.tables(by).find_map(|t| t.allow.anywhere.iter().find(whole));
        self.concluded(allowed.map(|rule| self.name(*rule)))
    }

    fn concluded<'a>(&'a self, allowed: Option<&'a RuleName>) -> Decision<'a> {
        match allowed {
            Some(name) => Decision { allowed: true, because: Because::Rule(name) },
            None if self.allows => Decision { allowed: false, because: Because::NoneAllows },
            None => Decision { allowed: self.default == AccessDefault::Allow, because: Because::Default },
        }
    }

    /// The rules that would refuse a request if they were not on trial, one of each policy.
    pub fn audited(&self, by: &AskedBy, request: &RequestHead<'_>) -> Vec<&RuleName> {
        let mut found = vec![];
        if self.tables(by).all(|t| t.audit.is_empty()) {
            return found;
        }
        let path = Reading::Wide.of(request.path);
        for table in self.tables(by) {
            let _to_the_end = table.audit.visit(&path, &mut |rule| {
                if self.holds(rule, Reading::Wide, request) {
                    self.note(rule, &mut found);
                }
                ControlFlow::Continue(())
            });
        }
        found
    }

    /// The same of a connection whose bytes nobody looks into.
    pub fn audited_connection(&self, by: &AskedBy) -> Vec<&RuleName> {
        let mut found = vec![];
        self.tables(by).flat_map(|t| &t.audit.all).for_each(|rule| self.note(*rule, &mut found));
        found
    }

    fn note<'a>(&'a self, rule: u32, found: &mut Vec<&'a RuleName>) {
        let name = self.name(rule);
        if found.iter().all(|other| other.number != name.number) {
            found.push(name);
        }
    }

    fn first(
        &self,
        by: &AskedBy,
        of: impl Fn(&Table) -> &Paths,
        reading: Reading,
        request: &RequestHead<'_>,
    ) -> Option<&RuleName> {
        let mut read = None;
        for table in self.tables(by) {
            let paths = of(table);
            if paths.is_empty() {
                continue;
            }
            let mut found = None;
            let mut look = |rule| {
                if self.holds(rule, reading, request) {
                    found = Some(rule);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            };
            let _found_or_not = if paths.look_at_paths() {
                let path = read.get_or_insert_with(|| reading.of(request.path));
                paths.visit(path, &mut look)
            } else {
                paths.anywhere.iter().try_for_each(|rule| look(*rule))
            };
            if let Some(rule) = found {
                return Some(self.name(rule));
            }
        }
        None
    }

    /// Whether the conditions hold by which rules are not found.
    fn holds(&self, rule: u32, reading: Reading, request: &RequestHead<'_>) -> bool {
        let Some(rule) = self.rule(rule) else { return false };
        let AccessRule { methods, headers, claims, .. } = &rule.conditions;
        let method = |m: &http::Method| match reading {
            Reading::Narrow => m == request.method,
            Reading::Wide => m.as_str().eq_ignore_ascii_case(request.method.as_str()),
        };
        (methods.is_empty() || methods.iter().any(method))
            && headers.iter().all(|wanted| header(wanted, reading, request.headers))
            && claims.iter().all(|wanted| wanted.holds(request.claims))
    }

    fn tables<'a>(&'a self, by: &'a AskedBy) -> impl Iterator<Item = &'a Table> {
        by.tables[..by.count].iter().filter_map(|place| self.tables.get(*place))
    }

    fn rule(&self, number: u32) -> Option<&Compiled> {
        self.rules.get(number as usize)
    }

    fn name(&self, number: u32) -> &RuleName {
        &self.rules[number as usize].name
    }
}

/// Each of them; where there are none, one that stands for all.
fn each<T: Clone>(all: &[T]) -> impl Iterator<Item = Option<T>> {
    let none = all.is_empty().then_some(None);
    all.iter().cloned().map(Some).chain(none)
}

/// Each value by itself. Read widely, each member of a list within a value too, whatever its case: applications take
/// `a, b` for the two values it may have been joined from (RFC 9110, section 5.3).
fn header(wanted: &AccessHeader, reading: Reading, headers: &http::HeaderMap) -> bool {
    let one_of = |given: &[u8]| wanted.values.iter().any(|v| v.as_bytes() == given);
    let in_any_case =
        |given: &[u8]| wanted.values.iter().any(|v| v.as_bytes().eq_ignore_ascii_case(given.trim_ascii()));
    headers.get_all(&wanted.name).iter().map(http::HeaderValue::as_bytes).any(|given| {
        wanted.values.is_empty()
            || match reading {
                Reading::Narrow => one_of(given),
                Reading::Wide => in_any_case(given) || given.split(|b| *b == b',').any(in_any_case),
            }
    })
}
