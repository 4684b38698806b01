use std::collections::HashMap;
use std::time::Duration;

use outrigger_mesh::{
    Endpoint, EndpointPort, EndpointState, EndpointUid, HashKey, PortNumber, ServiceName, Transport, Weight,
};
use proptest::prelude::*;

use super::*;
use crate::config::snapshot::EndpointSet;
use crate::live::{EndpointLive, Live};

fn zoned(members: &[(u16, Option<&str>)], own: Option<&str>) -> EndpointSet {
    let live = Live::default();
    let service: ServiceName = "shop/cart".parse().unwrap();
    let view = |(i, (weight, zone)): (usize, &(u16, Option<&str>))| {
        let uid = EndpointUid::new(&format!("e{i}")).unwrap();
        let endpoint = Endpoint {
            service: service.clone(),
            uid: uid.clone(),
            ip: std::net::Ipv4Addr::LOCALHOST.into(),
            ports: [EndpointPort { port: PortNumber::HTTP, listen: PortNumber::HTTP, target: None }].into(),
            version: None,
            zone: zone.map(Arc::from),
            weight: Weight::new(*weight).unwrap(),
            transport: Transport::Plaintext,
            state: EndpointState::Ready,
        };
        let live = Arc::new(EndpointLive::new(uid, live.client_traffic(&service, None)));
        Arc::new(EndpointView { endpoint, live, resolved: None })
    };
    EndpointSet::new(members.iter().enumerate().map(view).collect(), true).seen_from(own)
}

fn set(weights: &[u16]) -> EndpointSet {
    zoned(&weights.iter().map(|w| (*w, None)).collect::<Vec<_>>(), None)
}

fn by(algorithm: Algorithm) -> Balance {
    Balance { algorithm, ..Balance::default() }
}

fn asked(balance: &Balance, now: Millis) -> Asked<'_> {
    Asked { balance, allow_all_open: false, key: None, tried: &[], now }
}

fn shares_by(set: &EndpointSet, balance: &Balance, now: Millis, picks: usize) -> HashMap<String, usize> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut counts = HashMap::new();
    let with_keys = matches!(balance.algorithm, Algorithm::Maglev(_));
    for number in 0..picks {
        let key = with_keys.then(|| hash(format!("key-{number}").as_bytes()));
        let asked = Asked { key, ..asked(balance, now) };
        let picked = pick(set.subset(None), &asked, || rng.u64(..)).unwrap();
        *counts.entry(picked.view.live.uid.to_string()).or_default() += 1;
    }
    counts
}

fn shares(set: &EndpointSet, now: Millis, picks: usize) -> HashMap<String, usize> {
    shares_by(set, &Balance::default(), now, picks)
}

fn unwell(set: &EndpointSet, which: &[usize]) {
    for at in which {
        set.subset(None).members[*at].live.health.set(Known::Unwell);
    }
}

fn all_algorithms() -> Vec<Algorithm> {
    vec![
        Algorithm::PeakEwma,
        Algorithm::RoundRobin,
        Algorithm::LeastRequest,
        Algorithm::Random,
        Algorithm::Maglev(HashKey::SourceAddress),
    ]
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
fn one_of_very_many_that_is_well_counts() {
    let set = set(&[100; 1_001]);
    unwell(&set, &(1..1_001).collect::<Vec<_>>());
    let well = set.subset(None).well_now(Millis(0));
    assert_eq!((well.count, well.weight), (1, 1));
    unwell(&set, &[0]);
    assert_eq!(set.subset(None).well_now(Millis(0)).count, 0);
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
}

#[test]
fn shares_follow_the_weights_for_every_algorithm_that_draws_one() {
    let set = set(&[500, 300, 100, 100]);
    for algorithm in [Algorithm::Random, Algorithm::Maglev(HashKey::SourceAddress)] {
        let counts = shares_by(&set, &by(algorithm.clone()), Millis(0), 20_000);
        for (uid, due) in [("e0", 10_000_f64), ("e1", 6_000.0), ("e2", 2_000.0), ("e3", 2_000.0)] {
            // Five standard deviations of that many independent draws.
            let bound = 5.0 * (due * (1.0 - due / 20_000.0)).sqrt();
            assert!((counts[uid] as f64 - due).abs() < bound, "{algorithm:?}: {counts:?}");
        }
    }
    let counts = shares_by(&set, &by(Algorithm::RoundRobin), Millis(0), 20_000);
    assert_eq!([counts["e0"], counts["e1"], counts["e2"], counts["e3"]], [10_000, 6_000, 2_000, 2_000]);
}

#[test]
fn where_all_are_alike_the_better_of_two_gives_each_the_same() {
    let set = set(&[100; 5]);
    for algorithm in [Algorithm::PeakEwma, Algorithm::LeastRequest] {
        let counts = shares_by(&set, &by(algorithm), Millis(0), 20_000);
        assert!(counts.values().all(|n| (3_600..4_400).contains(n)), "{counts:?}");
    }
}

#[test]
fn least_request_levels_what_is_under_way() {
    let set = set(&[100, 100, 100]);
    let balance = by(Algorithm::LeastRequest);
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..300 {
        pick(set.subset(None), &asked(&balance, Millis(0)), || rng.u64(..)).unwrap().view.live.load.begin();
    }
    for member in &set.subset(None).members {
        assert!((95..=105).contains(&member.live.load.in_flight()), "{}", member.live.load.in_flight());
    }
}

#[test]
fn round_robin_gives_the_turns_of_one_that_is_unwell_to_the_others_evenly() {
    let set = set(&[100, 100, 100]);
    unwell(&set, &[1]);
    let counts = shares_by(&set, &by(Algorithm::RoundRobin), Millis(0), 1_000);
    assert_eq!((counts["e0"], counts["e2"], counts.get("e1")), (500, 500, None));
}

#[test]
fn a_key_stays_where_it_is_while_another_endpoint_is_unwell_and_comes_back_to_its_own() {
    let set = set(&[100; 5]);
    let balance = by(Algorithm::Maglev(HashKey::SourceAddress));
    let at = |number: u64| {
        let asked = Asked { key: Some(mix(number + 1)), ..asked(&balance, Millis(0)) };
        pick(set.subset(None), &asked, || panic!("nothing is left to chance"))
            .unwrap()
            .view
            .live
            .uid
            .to_string()
    };
    let before: Vec<String> = (0..500).map(at).collect();
    unwell(&set, &[2]);
    let during: Vec<String> = (0..500).map(at).collect();
    for (was, is) in before.iter().zip(&during) {
        assert!(is != "e2" && (was == is || was == "e2"));
    }
    set.subset(None).members[2].live.health.set(Known::Well);
    assert_eq!((0..500).map(at).collect::<Vec<_>>(), before);
}

#[test]
fn the_own_zone_takes_all_while_it_carries_the_load() {
    let here = Some("here");
    let set = zoned(&[(100, here), (100, here), (100, Some("there")), (100, None)], here);
    let counts = shares(&set, Millis(0), 2_000);
    assert_eq!(counts.get("e2").or(counts.get("e3")), None, "{counts:?}");
    let off = Balance { locality: Locality::Off, ..Balance::default() };
    assert!(shares_by(&set, &off, Millis(0), 2_000).len() == 4);
}

#[test]
fn what_the_own_zone_does_not_carry_spills_over_in_proportion() {
    let (here, there) = (Some("here"), Some("there"));
    let members = [(100, here), (100, here), (100, here), (100, here), (100, there), (100, there)];
    let set = zoned(&members, here);
    unwell(&set, &[0, 1]);
    // Half of the zone is well: it keeps 50 % x 1.4 = 70 %.
    for algorithm in all_algorithms() {
        let counts = shares_by(&set, &by(algorithm.clone()), Millis(0), 20_000);
        let kept = counts["e2"] + counts["e3"];
        assert!((13_500..14_500).contains(&kept), "{algorithm:?}: {counts:?}");
        assert_eq!(counts.get("e0").or(counts.get("e1")), None);
    }
    unwell(&set, &[2]);
    let balance = Balance { panic_percent: 0, ..Balance::default() };
    let counts = shares_by(&set, &balance, Millis(60), 20_000);
    assert!((6_500..7_500).contains(&counts["e3"]), "{counts:?}");
}

#[test]
fn when_too_few_are_well_all_are_chosen_from_unless_that_is_off() {
    for algorithm in all_algorithms() {
        let set = set(&[100; 4]);
        unwell(&set, &[0, 1, 2]);
        let balance = by(algorithm.clone());
        let counts = shares_by(&set, &balance, Millis(0), 2_000);
        assert_eq!(counts.len(), 4, "{algorithm:?}: {counts:?}");
        assert!(pick(set.subset(None), &asked(&balance, Millis(0)), || 7).unwrap().panic);
        let off = Balance { panic_percent: 0, ..balance };
        assert_eq!(shares_by(&set, &off, Millis(0), 2_000).get("e3"), Some(&2_000));
        unwell(&set, &[3]);
        assert_eq!(pick(set.subset(None), &asked(&off, Millis(60)), || 7).unwrap_err(), Nobody::Unwell);
        set.subset(None).members.iter().for_each(|m| m.live.health.set(Known::Well));
        assert!(!pick(set.subset(None), &asked(&off, Millis(120)), || 7).unwrap().panic);
    }
}

proptest! {
    /// Whatever the weights, zones and health: a choice is one that may be used while there is one, and one not tried
    /// while there is one of these.
    #[test]
    fn nobody_is_chosen_who_may_not_be_while_another_may(
        members in proptest::collection::vec((1_u16..1_000, any::<bool>(), any::<bool>()), 1..8),
        tried in any::<u8>(), seed in any::<u64>(), which in 0_usize..5, panic_percent in prop_oneof![Just(0_u32), Just(50)],
    ) {
        let placed: Vec<_> =
            members.iter().map(|(w, here, _)| (*w, Some(if *here { "here" } else { "there" }))).collect();
        let set = zoned(&placed, Some("here"));
        let subset = set.subset(None);
        let sick: Vec<usize> = (0..members.len()).filter(|i| members[*i].2).collect();
        unwell(&set, &sick);
        let tried: Vec<u64> = subset.members.iter().enumerate()
            .filter(|(i, _)| tried & (1 << i) != 0).map(|(_, v)| v.live.id).collect();
        let algorithm = all_algorithms()[which].clone();
        let balance = Balance { panic_percent, ..by(algorithm) };
        let mut rng = fastrand::Rng::with_seed(seed);
        let asked = Asked { key: Some(seed), tried: &tried, ..asked(&balance, Millis(9)) };
        let well = members.len() - sick.len();
        let panic = well * 100 < members.len() * panic_percent as usize;
        let may = |v: &EndpointView| panic || v.live.health.known() != Known::Unwell;
        match pick(subset, &asked, || rng.u64(..)) {
            Err(why) => prop_assert!(why == Nobody::Unwell && well == 0 && !panic),
            Ok(picked) => {
                prop_assert!(may(picked.view) && picked.panic == panic);
                if subset.members.iter().any(|v| may(v) && !tried.contains(&v.live.id)) {
                    prop_assert!(!tried.contains(&picked.view.live.id));
                }
            }
        }
    }
}
