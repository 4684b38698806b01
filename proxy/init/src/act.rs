//! What the subcommands do: apply, check, remove, print.

use crate::args::{Chosen, Remove, Wanted};
use crate::backend::{self, Backend, Held, Rulesets};
use crate::network::Family;
use crate::plan::{InboundMode, Plan};
use crate::routing::{Placed, Routing};
use crate::tool::ToolError;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The flags are wrong: every mistake, one a line.
    #[error("{0}")]
    Usage(String),
    /// What is in place is not what is wanted: every difference.
    #[error("{}", .0.join("\n"))]
    Differs(Vec<String>),
    /// It can not be done here.
    #[error("{0}")]
    Impossible(String),
}

impl From<ToolError> for Failed {
    fn from(error: ToolError) -> Self {
        Self::Impossible(error.to_string())
    }
}

/// Puts the redirection in place and proves it. Returns what to tell.
pub fn apply(wanted: &Wanted) -> Result<String, Failed> {
    let plan = proven(wanted)?;
    let families = backend::families_of_host();
    let (backend, before) = choose(wanted.backend, &plan, &families)?;
    let routing = routing(&plan);
    let routed_before = routing_in_place(routing, &families);
    if let Err(error) = put(backend, &plan, &before, &families) {
        let undone = undo(backend, &before, &families, routing, &routed_before);
        let end = match undone {
            Ok(()) if before.is_empty() => "Nothing of it is left in place.".to_owned(),
            Ok(()) => "What was in place before was put back.".to_owned(),
            Err(why) => format!("It could not be undone either, and part of it may be in place: {why}"),
        };
        return Err(Failed::Impossible(format!("{error}\n{end}")));
    }
    let mut told = vec![format!("in place with {backend}: {}", described(&plan))];
    for (other, held) in elsewhere(backend, &families) {
        let none = Rulesets::new();
        other.put(&none, &held).map_err(|e| {
            Failed::Impossible(format!("in place with {backend}, but an older one is with {other}, too: {e}"))
        })?;
        told.push(format!("removed an older one that was with {other}"));
    }
    // What an earlier apply needed and this one does not.
    for (family, placed) in &routed_before {
        let needed = plan.inbound == InboundMode::Tproxy && plan.families.contains(family);
        if !needed && *placed != Placed::default() {
            routing.remove(*family)?;
        }
    }
    Ok(told.join("\n"))
}

/// Proves that what is wanted is in place, and nothing else of ours. Returns what to tell.
pub fn check(wanted: &Wanted) -> Result<String, Failed> {
    let plan = proven(wanted)?;
    let families = backend::families_of_host();
    let mut holding = Vec::new();
    let mut unread = Vec::new();
    for backend in Backend::ALL {
        match backend.read(&families) {
            Ok(held) if held.is_empty() => {}
            Ok(held) => holding.push((backend, held)),
            Err(e) if e.is_missing() => {}
            Err(e) => unread.push(e.to_string()),
        }
    }
    let chosen = Backend::candidates(wanted.backend);
    let at = holding.iter().position(|(backend, _)| chosen.contains(backend));
    let Some((backend, held)) = at.map(|at| holding.remove(at)) else {
        let mut told = vec![match wanted.backend {
            Chosen::Auto => "nothing is in place".to_owned(),
            _ => format!("nothing is in place with {}", chosen[0]),
        }];
        told.extend(holding.iter().map(|(other, _)| format!("something is in place with {other}")));
        told.extend(unread.into_iter().map(|why| format!("could not look: {why}")));
        return Err(Failed::Differs(told));
    };
    let mut told = differences(backend, &held, &plan, &families)?;
    told.extend(holding.iter().map(|(other, _)| format!("something is in place with {other}, too")));
    if told.is_empty() {
        let rules: usize = held.rules().iter().flat_map(|(_, r)| &r.0).map(|(_, rules)| rules.len()).sum();
        return Ok(format!("in place with {backend}, all {rules} rules proven: {}", described(&plan)));
    }
    Err(Failed::Differs(told))
}

/// Removes whatever is ours. Returns what to tell.
pub fn remove(remove: &Remove) -> Result<String, Failed> {
    let routing = Plan::routing(&remove.tproxy_mark, &remove.tproxy_table).map_err(Failed::Usage)?;
    let families = backend::families_of_host();
    let (mut told, mut failed) = (Vec::new(), Vec::new());
    for backend in Backend::ALL {
        let removed = match backend.read(&families) {
            Ok(held) if held.is_empty() => continue,
            Ok(held) => backend.put(&Rulesets::new(), &held),
            Err(e) if e.is_missing() => continue,
            Err(e) => Err(e),
        };
        match removed.and_then(|()| backend.read(&families)) {
            Ok(left) if left.is_empty() => told.push(format!("removed what was with {backend}")),
            Ok(_) => failed.push(format!("{backend} still holds something of ours")),
            Err(e) => failed.push(e.to_string()),
        }
    }
    for (family, placed) in routing_in_place(routing, &families) {
        if placed != Placed::default() {
            match routing.remove(family) {
                Ok(()) => told.push(format!("removed the {family} routing for TPROXY")),
                Err(e) => failed.push(e.to_string()),
            }
        }
    }
    match (failed.is_empty(), told.is_empty()) {
        (false, _) => Err(Failed::Impossible([told, failed].concat().join("\n"))),
        (true, true) => Ok("nothing was in place".into()),
        (true, false) => Ok(told.join("\n")),
    }
}

/// The rules, without touching anything.
pub fn print(wanted: &Wanted) -> Result<String, Failed> {
    let plan = proven(wanted)?;
    let backend = Backend::candidates(wanted.backend)[0];
    let mut text = backend.script(&plan);
    if plan.inbound == InboundMode::Tproxy {
        text.push_str("# routing\n");
        for family in &plan.families {
            text.push_str(&routing(&plan).written(*family));
        }
    }
    Ok(text.trim_end().to_owned())
}

/// What the flags want, on this host.
pub fn proven(wanted: &Wanted) -> Result<Plan, Failed> {
    Plan::new(wanted, backend::host_has_ipv6()).map_err(Failed::Usage)
}

/// The first packet filter that takes the rules, and what it holds now.
fn choose(chosen: Chosen, plan: &Plan, families: &[Family]) -> Result<(Backend, Held), Failed> {
    let mut why = Vec::new();
    for backend in Backend::candidates(chosen) {
        let tried = backend.read(families).and_then(|now| {
            backend.try_out(&backend.rules(plan), &now)?;
            Ok(now)
        });
        match tried {
            Ok(now) => return Ok((backend, now)),
            Err(e) => why.push(format!("{backend}: {e}")),
        }
    }
    if !rustix::process::geteuid().is_root() {
        why.push("hint: this wants root, or the capability NET_ADMIN".into());
    }
    let told = format!("no packet filter takes the rules; nothing was changed\n  {}", why.join("\n  "));
    Err(Failed::Impossible(told))
}

fn put(backend: Backend, plan: &Plan, before: &Held, families: &[Family]) -> Result<(), Failed> {
    if plan.inbound == InboundMode::Tproxy {
        for family in &plan.families {
            routing(plan).put(*family).map_err(|e| {
                Failed::Impossible(format!("the {family} routing for TPROXY: {e} (is the interface lo up?)"))
            })?;
        }
    }
    backend.put(&backend.rules(plan), before)?;
    let after = backend.read(families)?;
    let told = differences(backend, &after, plan, families)?;
    if told.is_empty() {
        return Ok(());
    }
    Err(Failed::Impossible(format!("{backend} took the rules, and lists others:\n  {}", told.join("\n  "))))
}

fn undo(
    backend: Backend,
    before: &Held,
    families: &[Family],
    routing: Routing,
    routed_before: &[(Family, Placed)],
) -> Result<(), ToolError> {
    let now = backend.read(families)?;
    backend.put(&before.rules(), &now)?;
    for (family, placed) in routed_before {
        if *placed == Placed::default() {
            routing.remove(*family)?;
        }
    }
    Ok(())
}

fn differences(
    backend: Backend,
    held: &Held,
    plan: &Plan,
    families: &[Family],
) -> Result<Vec<String>, ToolError> {
    let mut told = held.differences(&backend.rules(plan), backend);
    for family in families {
        let wanted = plan.inbound == InboundMode::Tproxy && plan.families.contains(family);
        let placed = match routing(plan).read(*family) {
            Ok(placed) => placed,
            // Who does not want it does not need the program.
            Err(e) if e.is_missing() && !wanted => continue,
            Err(e) => return Err(e),
        };
        if wanted && placed != Placed::WHOLE {
            let rule = if placed.rules == 1 { "" } else { " the rule for the mark" };
            let route = if placed.route { "" } else { " the route of the table" };
            told.push(format!("{family}: missing or there more than once, for TPROXY:{rule}{route}"));
        }
    }
    Ok(told)
}

/// Other packet filters that hold something of ours.
fn elsewhere(backend: Backend, families: &[Family]) -> Vec<(Backend, Held)> {
    Backend::ALL
        .into_iter()
        .filter(|other| *other != backend)
        .filter_map(|other| other.read(families).ok().map(|held| (other, held)))
        .filter(|(_, held)| !held.is_empty())
        .collect()
}

fn routing(plan: &Plan) -> Routing {
    Routing { mark: plan.tproxy_mark, table: plan.tproxy_table }
}

/// A host without the program has no such routing of ours either.
fn routing_in_place(routing: Routing, families: &[Family]) -> Vec<(Family, Placed)> {
    families.iter().filter_map(|family| routing.read(*family).ok().map(|placed| (*family, placed))).collect()
}

fn described(plan: &Plan) -> String {
    let families: Vec<String> = plan.families.iter().map(ToString::to_string).collect();
    let inbound = match plan.inbound {
        InboundMode::Redirect => format!("inbound to {}", plan.inbound_port),
        InboundMode::Tproxy => format!("inbound to {} by TPROXY", plan.inbound_port),
        InboundMode::Off => "inbound as it is".into(),
    };
    let dns = plan.dns.map(|port| format!(", DNS to {port}")).unwrap_or_default();
    format!("{}, outbound to {}, {inbound}{dns}", families.join(" and "), plan.outbound_port)
}
