//! Choosing an endpoint: the better of two drawn by weight, by expected cost (peak-EWMA latency times load; a recent
//! failure costs more than both).
//!
//! Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001): two draws are nearly as good as
//! looking at all, cost the same with three endpoints and three thousand, and do not herd as a full scan does.

use std::sync::Arc;

use crate::config::snapshot::{EndpointView, Subset};
use crate::live::Millis;

/// Draws of a second candidate that was not tried yet before all are looked at.
const DRAWS: usize = 4;

/// The endpoint for an attempt: one not `tried` yet while there is one, else the best of all. `draw` gives random
/// numbers. `None` when the subset is empty.
pub fn pick<'a>(
    subset: &'a Subset,
    tried: &[u64],
    now: Millis,
    mut draw: impl FnMut() -> u64,
) -> Option<&'a Arc<EndpointView>> {
    let members = &subset.members;
    match &members[..] {
        [] => return None,
        [only] => return Some(only),
        _ => {}
    }
    if tried.is_empty() {
        let first = drawn(subset, draw());
        let mut second = drawn(subset, draw());
        // Drawn twice where weights differ, it is its weight that speaks: with two endpoints nothing else would.
        let by_weight = subset.uneven && !members[first].live.load.is_shunned(now);
        if first == second && !by_weight {
            second = (first + 1) % members.len();
        }
        let (a, b) = (&members[first], &members[second]);
        return Some(if b.live.load.cost(now) < a.live.load.cost(now) { b } else { a });
    }
    retry_pick(subset, tried, now, draw)
}

/// The same for a retry: rare, so it may look at everything.
fn retry_pick<'a>(
    subset: &'a Subset,
    tried: &[u64],
    now: Millis,
    mut draw: impl FnMut() -> u64,
) -> Option<&'a Arc<EndpointView>> {
    let members = &subset.members;
    let fresh = |view: &&Arc<EndpointView>| !tried.contains(&view.live.id);
    let drawn: Vec<&Arc<EndpointView>> =
        (0..DRAWS).map(|_| &members[drawn(subset, draw())]).filter(fresh).take(2).collect();
    drawn
        .into_iter()
        .min_by_key(|view| view.live.load.cost(now))
        .or_else(|| members.iter().filter(fresh).min_by_key(|view| view.live.load.cost(now)))
        .or_else(|| members.iter().min_by_key(|view| view.live.load.cost(now)))
}

/// An endpoint drawn by weight.
fn drawn(subset: &Subset, chance: u64) -> usize {
    let scaled = |total: u64| {
        let product = u128::from(chance) * u128::from(total);
        u64::try_from(product >> 64).unwrap_or(0)
    };
    let last = subset.members.len() - 1;
    if subset.uneven {
        let at = scaled(subset.total());
        subset.upper.partition_point(|upper| *upper <= at).min(last)
    } else {
        usize::try_from(scaled(subset.members.len() as u64)).unwrap_or(0).min(last)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use outrigger_mesh::{
        Endpoint, EndpointPort, EndpointState, EndpointUid, PortNumber, ServiceName, Transport, Weight,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::config::snapshot::EndpointSet;
    use crate::live::{EndpointLive, Live};

    fn set(weights: &[u16]) -> EndpointSet {
        let live = Live::default();
        let service: ServiceName = "shop/cart".parse().unwrap();
        let view = |(i, weight): (usize, &u16)| {
            let uid = EndpointUid::new(&format!("e{i}")).unwrap();
            let endpoint = Endpoint {
                service: service.clone(),
                uid: uid.clone(),
                ip: std::net::Ipv4Addr::LOCALHOST.into(),
                ports: [EndpointPort { port: PortNumber::HTTP, listen: PortNumber::HTTP, target: None }]
                    .into(),
                version: None,
                zone: None,
                weight: Weight::new(*weight).unwrap(),
                transport: Transport::Plaintext,
                state: EndpointState::Ready,
            };
            Arc::new(EndpointView {
                endpoint,
                live: Arc::new(EndpointLive::new(uid, live.client_traffic(&service, None))),
                resolved: None,
            })
        };
        EndpointSet::new(weights.iter().enumerate().map(view).collect(), true)
    }

    fn shares(set: &EndpointSet, now: Millis, picks: usize) -> HashMap<String, usize> {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut counts = HashMap::new();
        for _ in 0..picks {
            let picked = pick(set.subset(None), &[], now, || rng.u64(..)).unwrap();
            *counts.entry(picked.live.uid.to_string()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn the_faster_of_two_is_chosen() {
        let set = set(&[100, 100]);
        let members = &set.subset(None).members;
        members[0].live.load.succeeded(Duration::from_millis(50), Millis(0));
        members[1].live.load.succeeded(Duration::from_millis(5), Millis(0));
        assert_eq!(shares(&set, Millis(1), 100).get("e1"), Some(&100));
    }

    #[test]
    fn who_fails_instantly_does_not_look_fast() {
        let set = set(&[100, 100, 100]);
        let members = &set.subset(None).members;
        for good in &members[1..] {
            good.live.load.succeeded(Duration::from_millis(50), Millis(0));
        }
        members[0].live.load.failed(Millis(0), 0);
        assert_eq!(shares(&set, Millis(1), 1_000).get("e0"), None);
    }

    #[test]
    fn weights_decide_the_draw_where_the_cost_is_the_same() {
        let set = set(&[300, 100, 100, 100]);
        let counts = shares(&set, Millis(0), 10_000);
        let first = counts["e0"];
        assert!((4_000..7_000).contains(&first), "{counts:?}");
    }

    #[test]
    fn weights_count_between_two_whatever_the_cost() {
        let set = set(&[900, 100]);
        let members = &set.subset(None).members;
        members[0].live.load.succeeded(Duration::from_millis(50), Millis(0));
        members[1].live.load.succeeded(Duration::from_millis(5), Millis(0));
        let counts = shares(&set, Millis(1), 10_000);
        assert!((7_700..8_500).contains(&counts["e0"]), "{counts:?}");
        members[0].live.load.failed(Millis(1), 0);
        assert_eq!(shares(&set, Millis(2), 1_000).get("e0"), None, "but not against a failure");
    }

    proptest! {
        #[test]
        fn a_retry_goes_elsewhere_while_there_is_elsewhere(
            weights in proptest::collection::vec(1_u16..1_000, 1..6), tried in any::<u8>(), seed in any::<u64>(),
        ) {
            let set = set(&weights);
            let subset = set.subset(None);
            let tried: Vec<u64> = subset.members.iter().enumerate()
                .filter(|(i, _)| tried & (1 << i) != 0).map(|(_, v)| v.live.id).collect();
            let mut rng = fastrand::Rng::with_seed(seed);
            let picked = pick(subset, &tried, Millis(0), || rng.u64(..)).unwrap();
            if tried.len() < subset.members.len() {
                prop_assert!(!tried.contains(&picked.live.id));
            }
        }
    }
}
