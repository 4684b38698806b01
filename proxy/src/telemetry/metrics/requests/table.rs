//! All counts of requests, by who asked whom and along which route.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use arc_swap::ArcSwap;
use outrigger_mesh::{RouteName, ServiceName, Side, SpiffeId, Version, label_value};

use super::series::Series;

/// All counts of requests.
#[derive(Debug)]
pub struct RequestTable {
    entries: RwLock<Entries>,
    room: Arc<AtomicUsize>,
    /// For what there is no room for, by side.
    rest: [Arc<Series>; 2],
}

/// By who counts and by the labels.
type Entries = BTreeMap<(Side, Box<str>), Arc<Series>>;

/// Who asks whom. What is `None` is not known.
#[derive(Clone, Copy, Debug)]
pub struct Parties<'a> {
    /// Who counts it.
    pub side: Side,
    /// Who is asked.
    pub service: Option<&'a ServiceName>,
    /// Which version of it.
    pub version: Option<&'a Version>,
    /// Who asks.
    pub caller: Option<&'a SpiffeId>,
    /// Along which route.
    pub route: Option<&'a RouteName>,
}

impl Default for RequestTable {
    fn default() -> Self {
        let room = Arc::new(AtomicUsize::new(MOST_OUTCOMES_IN_ALL));
        let rest = [(); 2].map(|()| Arc::new(Series::new(&room)));
        Self { entries: RwLock::default(), room, rest }
    }
}

impl RequestTable {
    /// The counts of `who`, to be kept by whoever counts often.
    pub fn of(&self, who: Parties<'_>) -> Arc<Series> {
        let exact = (who.side, labels(who));
        if let Some(found) = self.entries.read().unwrap_or_else(PoisonError::into_inner).get(&exact) {
            return Arc::clone(found);
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() < MOST - RESERVE || entries.contains_key(&exact) {
            return Arc::clone(entries.entry(exact).or_insert_with(|| Arc::new(Series::new(&self.room))));
        }
        // There is room for services alone, as long as they are not too many by themselves.
        let service = who.service.map(ToString::to_string).unwrap_or_default();
        let coarse = (who.side, labels_of([&service, OTHER, OTHER, OTHER]));
        if entries.len() < MOST || entries.contains_key(&coarse) {
            return Arc::clone(entries.entry(coarse).or_insert_with(|| Arc::new(Series::new(&self.room))));
        }
        Arc::clone(&self.rest[usize::from(who.side == Side::Server)])
    }

    /// Those of one side with their labels.
    pub(super) fn all(&self, side: Side) -> Vec<(String, Arc<Series>)> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let of_side = entries.iter().filter(|((of, _), _)| *of == side);
        let mut all: Vec<_> =
            of_side.map(|((_, labels), series)| (labels.to_string(), Arc::clone(series))).collect();
        let rest = labels_of([OTHER; 4]).into_string();
        all.push((rest, Arc::clone(&self.rest[usize::from(side == Side::Server)])));
        all
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn labels(who: Parties<'_>) -> Box<str> {
    fn text(value: Option<&impl std::fmt::Display>) -> String {
        value.map(ToString::to_string).unwrap_or_default()
    }
    let (service, caller, route) = (text(who.service), text(who.caller), text(who.route));
    let version = who.version.map(Version::as_str).unwrap_or_default();
    labels_of([&service, version, &caller, &route])
}

fn labels_of(values: [&str; 4]) -> Box<str> {
    let mut out = String::new();
    for (name, value) in ["service", "version", "caller", "route"].iter().zip(values) {
        let comma = if out.is_empty() { "" } else { "," };
        let _never = write!(out, "{comma}{name}=\"{}\"", label_value(value));
    }
    out.into()
}

/// The counts of what goes along one route, by where it arrives. Kept by the route, so that a request finds them without a
/// lock.
#[derive(Debug, Default)]
pub struct OfRoute {
    known: ArcSwap<Vec<Known>>,
    rest: OnceLock<Arc<Series>>,
}

/// The counts of one version of a service.
type Known = (Option<ServiceName>, Option<Version>, Arc<Series>);

impl OfRoute {
    /// The counts of what goes to a version of a service, if anything went there before.
    pub fn known(&self, service: Option<&ServiceName>, version: Option<&Version>) -> Option<Arc<Series>> {
        let known = self.known.load();
        let found = known.iter().find(|(to, its, _)| its.as_ref() == version && to.as_ref() == service);
        match found {
            Some((.., series)) => Some(Arc::clone(series)),
            None => self.rest.get().map(Arc::clone),
        }
    }

    /// The same, where nothing may have gone there.
    pub fn to(&self, table: &RequestTable, who: Parties<'_>) -> Arc<Series> {
        if let Some(known) = self.known(who.service, who.version) {
            return known;
        }
        if self.known.load().len() >= MOST_VERSIONS {
            let whoever = Parties { version: None, ..who };
            return Arc::clone(self.rest.get_or_init(|| table.of(whoever)));
        }
        let series = table.of(who);
        let entry = (who.service.cloned(), who.version.cloned(), Arc::clone(&series));
        self.known.rcu(|known| {
            let others = known.iter().filter(|(to, version, _)| (to, version) != (&entry.0, &entry.1));
            others.cloned().chain([entry.clone()]).collect::<Vec<_>>()
        });
        series
    }
}

const OTHER: &str = "other";
/// How many there may be, and how many of them are kept for services of which there is no room for more.
pub(super) const MOST: usize = 1_024;
const RESERVE: usize = 128;
/// How many outcomes all of them together may have.
const MOST_OUTCOMES_IN_ALL: usize = 4_096;
/// How many versions one route leads to, beyond which they are counted together.
const MOST_VERSIONS: usize = 32;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::method::MethodClass;
    use super::super::{Ended, Outcome};
    use super::*;

    fn who<'a>(service: &'a ServiceName, version: Option<&'a Version>) -> Parties<'a> {
        Parties { side: Side::Client, service: Some(service), version, caller: None, route: None }
    }

    fn outcome(status: u16) -> Outcome {
        Outcome { method: MethodClass::default(), status, grpc: None, reason: None, ended: Ended::Whole }
    }

    #[test]
    fn there_is_a_bound_and_nothing_is_lost_beyond_it() {
        let table = RequestTable::default();
        for n in 0..3 * MOST {
            let service: ServiceName = format!("shop/s{}", n % 300).parse().unwrap();
            let version = Version::new(&format!("v{n}")).unwrap();
            table.of(who(&service, Some(&version))).record(outcome(200), Duration::ZERO, None);
        }
        assert_eq!(table.len(), MOST);
        let mut text = String::new();
        table.write(&mut text);
        let counted: usize = text
            .lines()
            .filter(|line| line.starts_with("http_client_request_duration_seconds_count"))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap())
            .sum();
        assert_eq!(counted, 3 * MOST);
        assert!(text.contains("service=\"other\",version=\"other\",caller=\"other\",route=\"other\""));
    }

    #[test]
    fn outcomes_are_bounded_for_one_and_for_all_and_none_is_lost() {
        let table = RequestTable::default();
        let mut recorded = 0;
        for n in 0..200 {
            let service: ServiceName = format!("shop/s{n}").parse().unwrap();
            let series = table.of(who(&service, None));
            for status in 200..240 {
                series.record(outcome(status), Duration::ZERO, None);
                recorded += 1;
            }
        }
        let mut text = String::new();
        table.write(&mut text);
        let counts: Vec<usize> = text
            .lines()
            .filter(|line| line.starts_with("http_client_request_duration_seconds_count"))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert_eq!(counts.iter().sum::<usize>(), recorded);
        assert_eq!(counts.len(), MOST_OUTCOMES_IN_ALL + 200);
    }

    #[test]
    fn a_route_finds_the_same_counts_again() {
        let (table, route) = (RequestTable::default(), OfRoute::default());
        let service: ServiceName = "shop/cart".parse().unwrap();
        let version = Version::new("v1").unwrap();
        let first = route.to(&table, who(&service, Some(&version)));
        assert!(Arc::ptr_eq(&first, &route.to(&table, who(&service, Some(&version)))));
        assert!(!Arc::ptr_eq(&first, &route.to(&table, who(&service, None))));
        assert!(Arc::ptr_eq(&first, &OfRoute::default().to(&table, who(&service, Some(&version)))));
        for n in 0..100 {
            route.to(&table, who(&service, Some(&Version::new(&format!("w{n}")).unwrap())));
        }
        assert_eq!(route.known.load().len(), MOST_VERSIONS);
    }
}
