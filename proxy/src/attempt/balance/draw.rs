//! Drawing by weight, and passing over those that may not be used.
//!
//! Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001): two draws are nearly as good as
//! looking at all, cost the same with three endpoints and three thousand, and do not herd as a full scan does.

use std::sync::Arc;

use super::standing::{self, Known, Share};
use crate::config::snapshot::{EndpointView, Subset};
use crate::live::Millis;

/// Who may be chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule<'a> {
    /// Those that health checks found unwell, too.
    pub(super) any_health: bool,
    /// Those whose breaker is open, too.
    pub(super) any_breaker: bool,
    /// None of these.
    pub(super) tried: &'a [u64],
    pub(super) now: Millis,
}

/// What a rule says of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It may be used, with this share of its weight in percent.
    For(u32),
    /// It may be used for one request, if nobody else is doing so.
    Probe,
    No,
}

impl Rule<'_> {
    fn fit(&self, view: &EndpointView) -> Fit {
        let live = &view.live;
        let unwell = !self.any_health && live.health.known() == Known::Unwell;
        if unwell || self.tried.contains(&live.id) || !standing::has_room(live) {
            return Fit::No;
        }
        match standing::share(live, self.now) {
            Share::Full => Fit::For(100),
            Share::Part(percent) => Fit::For(percent.clamp(1, 100)),
            Share::Probe | Share::Shut if self.any_breaker => Fit::For(100),
            Share::Probe => Fit::Probe,
            Share::Shut => Fit::No,
        }
    }
}

/// The cheaper of two drawn by weight.
pub(super) fn better_of_two(
    group: &Subset,
    rule: &Rule<'_>,
    draw: &mut impl FnMut() -> u64,
    cost: impl Fn(&Arc<EndpointView>) -> u64,
) -> Option<usize> {
    let members = &group.members;
    let first = match look(group, rule, drawn(group, draw()), draw) {
        Looked::Take(at) => return Some(at),
        Looked::Fits(at) => at,
        Looked::No => return two_of_all(group, rule, draw, cost),
    };
    let mut second = drawn(group, draw());
    // Drawn twice where weights differ, it is its weight that speaks: with two endpoints nothing else would.
    if first == second {
        if group.uneven {
            return Some(first);
        }
        second = (first + 1) % members.len();
    }
    match look(group, rule, second, draw) {
        Looked::Take(at) => Some(at),
        Looked::Fits(second) if cost(&members[second]) < cost(&members[first]) => Some(second),
        Looked::Fits(_) => Some(first),
        Looked::No => match by_weight(group, rule, draw) {
            Some(second) if second != first && cost(&members[second]) < cost(&members[first]) => Some(second),
            _ => Some(first),
        },
    }
}

/// The same when the first that was drawn may not be used.
fn two_of_all(
    group: &Subset,
    rule: &Rule<'_>,
    draw: &mut impl FnMut() -> u64,
    cost: impl Fn(&Arc<EndpointView>) -> u64,
) -> Option<usize> {
    let first = by_weight(group, rule, draw)?;
    let second = by_weight(group, rule, draw)?;
    let members = &group.members;
    Some(if cost(&members[second]) < cost(&members[first]) { second } else { first })
}

/// One drawn by weight.
pub(super) fn by_weight(group: &Subset, rule: &Rule<'_>, draw: &mut impl FnMut() -> u64) -> Option<usize> {
    for _ in 0..DRAWS {
        let at = drawn(group, draw());
        match look(group, rule, at, draw) {
            Looked::Take(at) | Looked::Fits(at) => return Some(at),
            Looked::No => {}
        }
    }
    of_all(group, rule, draw)
}

/// The first of `order` that may be used, else one of all by weight.
pub(super) fn first_fit(
    group: &Subset,
    rule: &Rule<'_>,
    draw: &mut impl FnMut() -> u64,
    order: impl Iterator<Item = usize>,
) -> Option<usize> {
    for at in order {
        match look(group, rule, at, draw) {
            Looked::Take(at) | Looked::Fits(at) => return Some(at),
            Looked::No => {}
        }
    }
    of_all(group, rule, draw)
}

enum Looked {
    /// This one: the permit to probe it has been taken.
    Take(usize),
    Fits(usize),
    No,
}

/// Looks at one. An endpoint that is coming back is let through as often as its share says.
fn look(group: &Subset, rule: &Rule<'_>, at: usize, draw: &mut impl FnMut() -> u64) -> Looked {
    let Some(view) = group.members.get(at) else { return Looked::No };
    match rule.fit(view) {
        Fit::For(100) => Looked::Fits(at),
        Fit::For(percent) if scale(draw(), 100) < u64::from(percent) => Looked::Fits(at),
        Fit::Probe if standing::try_probe(&view.live, rule.now) => Looked::Take(at),
        Fit::For(_) | Fit::Probe | Fit::No => Looked::No,
    }
}

/// One by weight of all that may be used, looking at each.
fn of_all(group: &Subset, rule: &Rule<'_>, draw: &mut impl FnMut() -> u64) -> Option<usize> {
    let mut total = 0;
    let mut chosen = None;
    for (at, view) in group.members.iter().enumerate() {
        let Fit::For(percent) = rule.fit(view) else { continue };
        let weight = u64::from(view.endpoint.weight.get()) * u64::from(percent);
        total += weight;
        if scale(draw(), total) < weight {
            chosen = Some(at);
        }
    }
    chosen.or_else(|| {
        let probe = |view: &Arc<EndpointView>| {
            rule.fit(view) == Fit::Probe && standing::try_probe(&view.live, rule.now)
        };
        group.members.iter().position(probe)
    })
}

/// An endpoint drawn by weight.
fn drawn(group: &Subset, chance: u64) -> usize {
    let last = group.members.len().saturating_sub(1);
    if group.uneven {
        let at = scale(chance, group.total());
        group.upper.partition_point(|upper| *upper <= at).min(last)
    } else {
        usize::try_from(scale(chance, group.members.len() as u64)).unwrap_or(0).min(last)
    }
}

/// Maps the whole range of `chance` evenly onto `0..total`, without a division.
pub(super) fn scale(chance: u64, total: u64) -> u64 {
    let product = u128::from(chance) * u128::from(total);
    u64::try_from(product >> 64).unwrap_or(0)
}

/// Draws before all are looked at.
const DRAWS: usize = 4;
