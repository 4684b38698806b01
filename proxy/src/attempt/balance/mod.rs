//! Choosing an endpoint for an attempt. The order of narrowing: those of the subset; of these the ones that are well and
//! whose breaker and bulkhead let something through; of these the own zone's as far as they carry the load; of these by
//! the service's algorithm; and never one that was tried already while there is another.
//!
//! The usual case looks at two endpoints, however many there are. Only when one that was drawn may not be used is more
//! looked at. What callers are known by (keys, sticky sessions) is elsewhere: `affinity`.

mod counts;
mod draw;
mod maglev;
mod standing;
mod turns;

use std::sync::Arc;

use outrigger_mesh::{Algorithm, Balance, Locality};

pub use counts::{Counts, Table};
pub use maglev::{Maglev, hash, mix};
pub use standing::{Health, Known, Share, has_room, is_well, share};
pub use turns::Turns;

use crate::config::snapshot::{EndpointView, Subset, Zones};
use crate::live::Millis;
use draw::Rule;

/// What is asked of a choice.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// How the service wants it.
    pub balance: &'a Balance,
    /// Whether breakers count even when so many are open that panic would pass over them.
    pub allow_all_open: bool,
    /// The hash of what the request is known by, where the algorithm wants it and the request has it.
    pub key: Option<u64>,
    /// Where it was tried before.
    pub tried: &'a [u64],
    /// This moment.
    pub now: Millis,
}

/// An endpoint that was chosen.
#[derive(Clone, Copy, Debug)]
pub struct Picked<'a> {
    /// The endpoint.
    pub view: &'a Arc<EndpointView>,
    /// Whether so few are well that all were chosen from.
    pub panic: bool,
    /// Whether it is in another zone, although the own one has endpoints.
    pub spilled: bool,
}

/// Why nobody can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nobody {
    /// There is no endpoint.
    Empty,
    /// There are, and breakers or health checks keep all of them out.
    Unwell,
    /// There are, and those that are well have as much as they may.
    Full,
}

/// The endpoint for an attempt: one not tried yet while there is one, else one of all. `draw` gives random numbers.
pub fn pick<'a>(
    subset: &'a Subset,
    asked: &Asked<'_>,
    mut draw: impl FnMut() -> u64,
) -> Result<Picked<'a>, Nobody> {
    if subset.members.is_empty() {
        return Err(Nobody::Empty);
    }
    let panic = panics(asked.balance, subset.well(asked.now).count);
    if let Some(picked) = pick_as(subset, asked, panic, &mut draw) {
        return Ok(picked);
    }
    // What was known of the whole may be some milliseconds old.
    if !panic
        && panics(asked.balance, subset.well_now(asked.now).count)
        && let Some(picked) = pick_as(subset, asked, true, &mut draw)
    {
        return Ok(picked);
    }
    let well = |v: &Arc<EndpointView>| is_well(&v.live, asked.now);
    Err(if subset.members.iter().any(well) { Nobody::Full } else { Nobody::Unwell })
}

/// Whether `view` may be used by somebody who has a claim to it, and not to another.
pub fn may_use(view: &EndpointView, now: Millis) -> bool {
    is_well(&view.live, now)
        && has_room(&view.live)
        && (share(&view.live, now) != Share::Probe || standing::try_probe(&view.live, now))
}

/// Whether so few are well that all are chosen from.
fn panics(balance: &Balance, well_of_thousand: u32) -> bool {
    well_of_thousand < balance.panic_percent * 10
}

fn pick_as<'a>(
    subset: &'a Subset,
    asked: &Asked<'_>,
    panic: bool,
    draw: &mut impl FnMut() -> u64,
) -> Option<Picked<'a>> {
    let untried = Rule {
        any_health: panic,
        any_breaker: panic && !asked.allow_all_open,
        tried: asked.tried,
        now: asked.now,
    };
    let picked = |view, spilled| Picked { view, panic, spilled };
    match &subset.zones {
        Some(zones) if asked.balance.locality == Locality::PreferZone && !panic => {
            let [first, second] = in_order(zones, asked, draw);
            for zone in [first, second] {
                if let Some(view) = in_group(zone, asked, &untried, draw) {
                    return Some(picked(view, std::ptr::eq(zone, &raw const zones.elsewhere)));
                }
            }
        }
        _ => {
            if let Some(view) = in_group(subset, asked, &untried, draw) {
                return Some(picked(view, false));
            }
        }
    }
    if asked.tried.is_empty() {
        return None;
    }
    let again = Rule { tried: &[], ..untried };
    in_group(subset, asked, &again, draw).map(|view| picked(view, false))
}

/// The zones in the order in which they are looked at.
fn in_order<'a>(zones: &'a Zones, asked: &Asked<'_>, draw: &mut impl FnMut() -> u64) -> [&'a Subset; 2] {
    let (here, elsewhere) = (zones.here.well(asked.now).weight, zones.elsewhere.well(asked.now).weight);
    let kept = (here * OVERPROVISIONING_PERCENT / 100).min(1_000);
    if kept == 1_000 {
        return [&zones.here, &zones.elsewhere];
    }
    let spilled = (elsewhere * OVERPROVISIONING_PERCENT / 100).min(1_000 - kept);
    // The same key spills over as long as the shares are the same.
    let chance = asked.key.map_or_else(draw, |key| mix(key.rotate_left(17)));
    if draw::scale(chance, u64::from(kept + spilled)) < u64::from(kept) {
        [&zones.here, &zones.elsewhere]
    } else {
        [&zones.elsewhere, &zones.here]
    }
}

/// By the algorithm, among the members of `group` that `rule` lets through.
fn in_group<'a>(
    group: &'a Subset,
    asked: &Asked<'_>,
    rule: &Rule<'_>,
    draw: &mut impl FnMut() -> u64,
) -> Option<&'a Arc<EndpointView>> {
    let now = asked.now;
    let at = match &asked.balance.algorithm {
        Algorithm::PeakEwma => draw::better_of_two(group, rule, draw, |v| v.live.load.cost(now)),
        Algorithm::LeastRequest => {
            draw::better_of_two(group, rule, draw, |v| u64::from(v.live.load.in_flight()))
        }
        Algorithm::RoundRobin => {
            let turns = group.turns();
            let most = (2 * group.members.len()).min(MOST_TURNS);
            draw::first_fit(group, rule, draw, (0..most).map(|_| turns.take()))
        }
        Algorithm::Maglev(_) if asked.key.is_some() => {
            let (key, table) = (asked.key.unwrap_or(0), group.maglev());
            let places = (0..MOST_PLACES).filter_map(|again| table.member(key, again));
            // What is drawn beside comes from the key, so that the same key is let through by one that is coming back.
            let mut beside = key;
            let mut draw = || {
                beside = mix(beside.wrapping_add(1));
                beside
            };
            return draw::first_fit(group, rule, &mut draw, places).map(|at| &group.members[at]);
        }
        Algorithm::Random | Algorithm::Maglev(_) => draw::by_weight(group, rule, draw),
    };
    at.map(|at| &group.members[at])
}

/// A zone whose well endpoints have this share of its weight, the other way round, still carries all of its load.
const OVERPROVISIONING_PERCENT: u32 = 140;
/// Turns that are passed over before all endpoints are looked at.
const MOST_TURNS: usize = 64;
/// Places that are passed over before all endpoints are looked at.
const MOST_PLACES: u32 = 64;

#[cfg(test)]
mod tests;
