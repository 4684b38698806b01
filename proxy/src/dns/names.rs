//! What name servers said of one service's targets, and what is to be asked next. No I/O and no clock of its own.
//!
//! Every name is asked again when its time to live is over. What can not be asked stays as it was last told, for
//! [`STALE_FOR`]; what a name server says is not there is gone at once.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use outrigger_mesh::{DnsTarget, Hostname, PortNumber, SrvName, Weight};
use tokio::time::Instant;

/// Something to ask a name server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// The IPv4 addresses of a name.
    A(Hostname),
    /// Its IPv6 addresses.
    Aaaa(Hostname),
    /// The hosts behind an SRV name.
    Srv(SrvName),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Addresses, and how long they hold.
    Addresses(Vec<IpAddr>, Duration),
    /// Hosts, and how long they hold.
    Hosts(Vec<SrvHost>, Duration),
    /// There is nothing of the kind, says who must know.
    Nothing(Duration),
    /// Nobody who knows could be asked.
    Failed(String),
}

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvHost {
    /// The lower, the sooner it is chosen.
    pub priority: u16,
    /// Its share among those of the same priority.
    pub weight: u16,
    /// The port.
    pub port: PortNumber,
    /// The host.
    pub host: Hostname,
}

/// Where a service can be reached, as far as names tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The address to try first.
    pub ip: IpAddr,
    /// One of the other family, of the same host.
    pub alternate: Option<IpAddr>,
    /// The port; `None` for the service's own.
    pub port: Option<PortNumber>,
    /// Its share.
    pub weight: Weight,
    /// The name that stands for it: what it has to prove to be.
    pub host: Option<Hostname>,
}

/// What name servers said of the targets of one service.
#[derive(Debug)]
pub struct Names {
    targets: Vec<DnsTarget>,
    known: BTreeMap<Question, Known>,
}

#[derive(Debug)]
struct Known {
    records: Records,
    /// When to ask again.
    next: Instant,
    /// Until when the records hold.
    fresh_until: Instant,
    failures: u32,
    error: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Records {
    None,
    Addresses(Vec<IpAddr>),
    Hosts(Vec<SrvHost>),
}

impl Names {
    /// Nothing was asked yet.
    pub fn new(targets: Vec<DnsTarget>) -> Self {
        Self { targets, known: BTreeMap::new() }
    }

    /// Other targets from now on; what is known of names that stay is kept.
    pub fn aim_at(&mut self, targets: &[DnsTarget]) {
        if self.targets != targets {
            self.targets = targets.to_vec();
            self.forget_others();
        }
    }

    /// What is to be asked at `now`. Hosts behind an SRV name follow once that is answered.
    pub fn due(&self, now: Instant) -> Vec<Question> {
        let mut due = self.needed();
        due.retain(|question| self.known.get(question).is_none_or(|known| known.next <= now));
        due
    }

    /// When the next question is due; `None` when there will never be one.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.needed().iter().map(|question| self.known.get(question).map_or(now, |known| known.next)).min()
    }

    /// Takes in an answer. `chance`, 0 to 1, spreads the questions of sidecars that asked together.
    pub fn learn(&mut self, question: Question, outcome: Outcome, now: Instant, chance: f64) {
        let old = self.known.remove(&question);
        let fresh = |records, ttl: Duration, longest| {
            let holds = ttl.clamp(SHORTEST, longest);
            // A little early rather than late: what is in use should not grow old.
            let next = now + holds.mul_f64(1.0 - chance / 10.0);
            Known { records, next, fresh_until: now + holds, failures: 0, error: None }
        };
        let known = match outcome {
            Outcome::Addresses(mut addresses, ttl) => {
                addresses.sort_unstable();
                addresses.dedup();
                addresses.truncate(MAX_ADDRESSES);
                fresh(Records::Addresses(addresses), ttl, LONGEST)
            }
            Outcome::Hosts(mut hosts, ttl) => {
                hosts.sort_by(|a, b| (a.priority, &a.host, a.port).cmp(&(b.priority, &b.host, b.port)));
                hosts.truncate(MAX_ADDRESSES);
                fresh(Records::Hosts(hosts), ttl, LONGEST)
            }
            Outcome::Nothing(ttl) => fresh(Records::None, ttl, LONGEST_NOTHING),
            Outcome::Failed(error) => failed(old, error, now, chance),
        };
        self.known.insert(question, known);
        self.forget_others();
    }

    /// Where the service can be reached.
    pub fn found(&self) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        for target in &self.targets {
            match target {
                DnsTarget::Address { ip, port } => {
                    found.push(Found {
                        ip: *ip,
                        alternate: None,
                        port: *port,
                        weight: Weight::default(),
                        host: None,
                    });
                }
                DnsTarget::Host { name, port } => {
                    found.extend(self.of_host(name, *port, Weight::default(), name));
                }
                DnsTarget::Srv(name) => found.extend(self.of_srv(name)),
            }
        }
        let mut seen = HashSet::new();
        found.retain(|f| seen.insert((f.ip, f.port)));
        found.truncate(MAX_FOUND);
        found
    }

    /// Whether something in use is older than its time to live, since nobody could be asked.
    pub fn is_stale(&self, now: Instant) -> bool {
        self.known.values().any(|k| k.failures > 0 && k.records != Records::None && k.fresh_until <= now)
    }

    /// What went wrong last, if something did.
    pub fn error(&self) -> Option<&str> {
        self.known.values().find_map(|known| known.error.as_deref())
    }

    fn needed(&self) -> Vec<Question> {
        let both = |name: &Hostname| [Question::A(name.clone()), Question::Aaaa(name.clone())];
        let mut needed = Vec::new();
        for target in &self.targets {
            match target {
                DnsTarget::Address { .. } => {}
                DnsTarget::Host { name, .. } => needed.extend(both(name)),
                DnsTarget::Srv(name) => {
                    needed.push(Question::Srv(name.clone()));
                    needed.extend(self.hosts(name).iter().flat_map(|h| both(&h.host)));
                }
            }
        }
        let mut seen = HashSet::new();
        needed.retain(|question| seen.insert(question.clone()));
        needed.truncate(MAX_QUESTIONS);
        needed
    }

    fn forget_others(&mut self) {
        let needed: HashSet<Question> = self.needed().into_iter().collect();
        self.known.retain(|question, _| needed.contains(question));
    }

    fn hosts(&self, name: &SrvName) -> &[SrvHost] {
        match self.known.get(&Question::Srv(name.clone())) {
            Some(Known { records: Records::Hosts(hosts), .. }) => hosts,
            _ => &[],
        }
    }

    fn addresses(&self, question: &Question) -> &[IpAddr] {
        match self.known.get(question) {
            Some(Known { records: Records::Addresses(addresses), .. }) => addresses,
            _ => &[],
        }
    }

    /// The endpoints of a host: where it has both families, each address has one of the other beside it, IPv6 leading
    /// (RFC 8305, section 4).
    fn of_host(
        &self,
        name: &Hostname,
        port: Option<PortNumber>,
        weight: Weight,
        proves: &Hostname,
    ) -> Vec<Found> {
        let six = self.addresses(&Question::Aaaa(name.clone()));
        let four = self.addresses(&Question::A(name.clone()));
        let of = |ip, alternate| Found { ip, alternate, port, weight, host: Some(proves.clone()) };
        let around = |all: &[IpAddr], at: usize| (!all.is_empty()).then(|| all[at % all.len()]);
        let paired = six.iter().enumerate().map(|(i, ip)| of(*ip, around(four, i)));
        let rest = four.iter().enumerate().skip(six.len()).map(|(i, ip)| of(*ip, around(six, i)));
        paired.chain(rest).collect()
    }

    /// The hosts of the lowest priority that has any address (RFC 2782).
    fn of_srv(&self, name: &SrvName) -> Vec<Found> {
        // The certificate has to be for the name that was configured: the hosts are what an unproven answer says.
        let Some(proves) = name.as_str().splitn(3, '.').nth(2).and_then(|n| Hostname::new(n).ok()) else {
            return vec![];
        };
        let hosts = self.hosts(name);
        for group in hosts.chunk_by(|a, b| a.priority == b.priority) {
            let heaviest = group.iter().map(|h| u32::from(h.weight)).max().unwrap_or(0);
            let scale = u32::from(u16::MAX).checked_div(heaviest).unwrap_or(1).min(SCALE);
            let mut found = Vec::new();
            for host in group {
                let of_host = self.of_host(&host.host, Some(host.port), Weight::default(), &proves);
                let share = u32::from(host.weight) * scale / u32::try_from(of_host.len()).unwrap_or(1).max(1);
                // A weight of 0 among others means hardly ever; among zeros it means nothing.
                let share = if heaviest == 0 { SCALE } else { share.max(1) };
                let weight = u16::try_from(share).ok().and_then(Weight::new).unwrap_or_default();
                found.extend(of_host.into_iter().map(|f| Found { weight, ..f }));
            }
            if !found.is_empty() {
                return found;
            }
        }
        vec![]
    }
}

/// What is known after nobody could be asked.
fn failed(old: Option<Known>, error: String, now: Instant, chance: f64) -> Known {
    let (records, fresh_until, failures) = match old {
        Some(old) if now < old.fresh_until + STALE_FOR => (old.records, old.fresh_until, old.failures + 1),
        Some(old) => (Records::None, old.fresh_until, old.failures + 1),
        None => (Records::None, now, 1),
    };
    let wait = (FIRST_WAIT * 2_u32.saturating_pow(failures.min(16) - 1)).min(LONGEST_WAIT);
    let next = now + wait.mul_f64(1.0 - chance / 2.0);
    Known { records, next, fresh_until, failures, error: Some(error) }
}

/// A shorter time to live would have us ask for every request.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// A longer one would have us hold on to what has moved.
pub const LONGEST: Duration = Duration::from_mins(5);
/// How long it is believed that there is nothing: what comes into being should be seen soon.
pub const LONGEST_NOTHING: Duration = Duration::from_secs(30);
/// How long answers are used beyond their time to live while nobody can be asked.
pub const STALE_FOR: Duration = Duration::from_hours(1);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Addresses of one name, and hosts of one SRV name.
const MAX_ADDRESSES: usize = 64;
/// Endpoints of one service.
const MAX_FOUND: usize = 256;
const MAX_QUESTIONS: usize = 256;
/// Weights of SRV records are small numbers; times this, they can be divided among the addresses of a host.
const SCALE: u32 = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(name: &str) -> Hostname {
        name.parse().unwrap()
    }

    fn of_host(name: &str) -> Names {
        Names::new(vec![DnsTarget::Host { name: host(name), port: None }])
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn a(name: &str) -> Question {
        Question::A(host(name))
    }

    fn aaaa(name: &str) -> Question {
        Question::Aaaa(host(name))
    }

    fn found(names: &Names) -> Vec<String> {
        let text = |f: &Found| {
            let other = f.alternate.map(|ip| format!("|{ip}")).unwrap_or_default();
            let port = f.port.map(|p| format!(":{p}")).unwrap_or_default();
            format!("{}{other}{port}", f.ip)
        };
        names.found().iter().map(text).collect()
    }

    #[test]
    fn a_name_is_asked_again_when_its_time_is_over_within_bounds() {
        let now = Instant::now();
        for (ttl, expected) in [(0, 1), (7, 7), (86_400, 300)] {
            let mut names = of_host("db.example");
            assert_eq!(names.due(now), [a("db.example"), aaaa("db.example")]);
            names.learn(a("db.example"), Outcome::Addresses(ips(&["192.0.2.1"]), secs(ttl)), now, 0.0);
            names.learn(aaaa("db.example"), Outcome::Nothing(secs(900)), now, 0.0);
            assert_eq!(names.due(now), []);
            assert_eq!(names.next(now), Some(now + secs(expected.min(30))));
            assert!(names.due(now + secs(expected)).contains(&a("db.example")));
            assert!(!names.due(now + secs(expected) - Duration::from_millis(1)).contains(&a("db.example")));
        }
    }

    #[test]
    fn answers_outlive_the_name_server_for_a_while_but_not_for_ever() {
        let start = Instant::now();
        let mut names = of_host("db.example");
        names.learn(a("db.example"), Outcome::Addresses(ips(&["192.0.2.1"]), secs(10)), start, 0.0);
        names.learn(aaaa("db.example"), Outcome::Nothing(secs(10)), start, 0.0);
        let mut now = start;
        while now < start + secs(10) + STALE_FOR {
            assert_eq!(found(&names), ["192.0.2.1"], "after {:?}", now - start);
            now = names.next(now).unwrap().max(now);
            for question in names.due(now) {
                names.learn(question, Outcome::Failed("SERVFAIL".into()), now, 0.0);
            }
            let long_ago = now >= start + secs(10) + STALE_FOR;
            assert_eq!(names.is_stale(now), now >= start + secs(10) && !long_ago);
        }
        assert_eq!((found(&names).len(), names.error()), (0, Some("SERVFAIL")));
        let recovered = Outcome::Addresses(ips(&["192.0.2.2"]), secs(10));
        names.learn(a("db.example"), recovered, now, 0.0);
        names.learn(aaaa("db.example"), Outcome::Nothing(secs(10)), now, 0.0);
        assert_eq!(
            (found(&names), names.is_stale(now), names.error()),
            (vec!["192.0.2.2".into()], false, None)
        );
    }

    #[test]
    fn what_is_said_to_be_gone_is_gone_and_another_familys_failure_takes_nothing_away() {
        let now = Instant::now();
        let mut names = of_host("db.example");
        names.learn(a("db.example"), Outcome::Addresses(ips(&["192.0.2.1"]), secs(10)), now, 0.0);
        names.learn(aaaa("db.example"), Outcome::Failed("SERVFAIL".into()), now, 0.0);
        assert_eq!(found(&names), ["192.0.2.1"]);
        names.learn(a("db.example"), Outcome::Nothing(secs(10)), now + secs(10), 0.0);
        assert_eq!(found(&names).len(), 0);
    }

    #[test]
    fn an_address_of_each_family_stands_beside_one_of_the_other() {
        let now = Instant::now();
        for (six, four, expected) in [
            (&["2001:db8::1"][..], &["192.0.2.1"][..], &["2001:db8::1|192.0.2.1"][..]),
            (
                &["2001:db8::1"],
                &["192.0.2.1", "192.0.2.2"],
                &["2001:db8::1|192.0.2.1", "192.0.2.2|2001:db8::1"],
            ),
            (
                &["2001:db8::1", "2001:db8::2"],
                &["192.0.2.1"],
                &["2001:db8::1|192.0.2.1", "2001:db8::2|192.0.2.1"],
            ),
            (&[], &["192.0.2.1"], &["192.0.2.1"]),
            (&["2001:db8::1"], &[], &["2001:db8::1"]),
        ] {
            let mut names = of_host("db.example");
            names.learn(aaaa("db.example"), Outcome::Addresses(ips(six), secs(10)), now, 0.0);
            names.learn(a("db.example"), Outcome::Addresses(ips(four), secs(10)), now, 0.0);
            assert_eq!(found(&names), expected);
        }
    }

    fn srv(priority: u16, weight: u16, port: u16, name: &str) -> SrvHost {
        SrvHost { priority, weight, port: PortNumber::new(port).unwrap(), host: host(name) }
    }

    fn of_srv(records: Vec<SrvHost>) -> Names {
        let name = SrvName::new("_db._tcp.shop.example").unwrap();
        let mut names = Names::new(vec![DnsTarget::Srv(name.clone())]);
        names.learn(Question::Srv(name), Outcome::Hosts(records, secs(10)), Instant::now(), 0.0);
        names
    }

    #[test]
    fn the_lowest_priority_that_has_an_address_is_used_with_its_weights() {
        let now = Instant::now();
        let mut names = of_srv(vec![
            srv(20, 1, 3, "c.example"),
            srv(10, 30, 1, "a.example"),
            srv(10, 10, 2, "b.example"),
            srv(10, 0, 2, "z.example"),
        ]);
        assert_eq!(names.due(now).len(), 8, "both families of four hosts");
        let one = |ip: &str| Outcome::Addresses(ips(&[ip]), secs(10));
        names.learn(a("c.example"), one("192.0.2.3"), now, 0.0);
        assert_eq!(found(&names), ["192.0.2.3:3"], "the others have no address");
        let two = Outcome::Addresses(ips(&["192.0.2.1", "192.0.2.11"]), secs(10));
        names.learn(a("a.example"), two, now, 0.0);
        names.learn(a("b.example"), one("192.0.2.2"), now, 0.0);
        names.learn(a("z.example"), one("192.0.2.9"), now, 0.0);
        let weights: Vec<_> = names.found().iter().map(|f| (f.ip.to_string(), f.weight.get())).collect();
        let expected = [("192.0.2.1", 1500), ("192.0.2.11", 1500), ("192.0.2.2", 1000), ("192.0.2.9", 1)];
        assert_eq!(weights, expected.map(|(ip, w)| (ip.to_owned(), w)));
        assert!(names.found().iter().all(|f| f.host == Some(host("shop.example"))));
    }

    #[test]
    fn weights_that_are_all_zero_are_all_the_same() {
        let mut names = of_srv(vec![srv(0, 0, 1, "a.example"), srv(0, 0, 1, "b.example")]);
        let now = Instant::now();
        names.learn(a("a.example"), Outcome::Addresses(ips(&["192.0.2.1"]), secs(10)), now, 0.0);
        names.learn(a("b.example"), Outcome::Addresses(ips(&["192.0.2.2"]), secs(10)), now, 0.0);
        assert!(names.found().iter().all(|f| f.weight == Weight::default()));
    }

    #[test]
    fn hosts_that_an_srv_name_no_longer_has_are_forgotten() {
        let now = Instant::now();
        let mut names = of_srv(vec![srv(0, 0, 1, "a.example")]);
        names.learn(a("a.example"), Outcome::Addresses(ips(&["192.0.2.1"]), secs(10)), now, 0.0);
        let name = SrvName::new("_db._tcp.shop.example").unwrap();
        names.learn(Question::Srv(name), Outcome::Nothing(secs(10)), now, 0.0);
        assert_eq!((names.found().len(), names.known.len()), (0, 1));
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        let hosts = proptest::collection::vec(("[a-d]", any::<u16>(), 0_u16..3, 1_u16..9), 0..90);
        prop_oneof![
            (proptest::collection::vec(any::<IpAddr>(), 0..90), 0_u64..1_000)
                .prop_map(|(all, ttl)| Outcome::Addresses(all, secs(ttl))),
            (hosts, 0_u64..1_000).prop_map(|(all, ttl)| {
                Outcome::Hosts(all.iter().map(|(n, w, p, port)| srv(*p, *w, *port, n)).collect(), secs(ttl))
            }),
            (0_u64..1_000).prop_map(|ttl| Outcome::Nothing(secs(ttl))),
            Just(Outcome::Failed("no".into())),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_answered_questions_are_bounded_and_lie_ahead(
            steps in proptest::collection::vec((outcome(), 0_u64..4_000, 0.0_f64..1.0), 1..30),
        ) {
            let name = SrvName::new("_db._tcp.shop.example").unwrap();
            let mut names = Names::new(vec![
                DnsTarget::Srv(name), DnsTarget::Host { name: host("e.example"), port: None },
            ]);
            let mut now = Instant::now();
            for (outcome, later, chance) in steps {
                for question in names.due(now).into_iter().take(3) {
                    names.learn(question.clone(), outcome.clone(), now, chance);
                    prop_assert!(!names.due(now).contains(&question), "asked again at once");
                }
                prop_assert!(names.found().len() <= MAX_FOUND && names.known.len() <= MAX_QUESTIONS);
                prop_assert!(names.next(now).is_some_and(|next| next <= now + LONGEST));
                now += secs(later);
            }
        }
    }
}
