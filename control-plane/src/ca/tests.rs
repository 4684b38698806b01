//! The change of the root, played with a mesh of made-up processes: whatever happens in whatever order, as long as
//! nobody forces a gate, no two of them ever refuse each other.

use std::time::Duration;

use proptest::prelude::*;
use time::OffsetDateTime;

use super::ledger::{Attested, Leaf, Ledger, MAX_OF_HOLDER};
use super::rotation::{Event, Rotation, Signer, Step};

const LIFE: i64 = 100;
/// A little more than a life, as by default.
const GATE: Duration = Duration::from_secs(120);

fn root(number: u64) -> String {
    format!("root-{number}")
}

/// A process: what it shows, and whom it believes.
#[derive(Clone, Debug)]
struct Process {
    leaf: Leaf,
    believes: Vec<String>,
    connected: bool,
}

struct Mesh {
    now: OffsetDateTime,
    ledger: Ledger,
    rotation: Option<Rotation>,
    /// The root that is left when no change is under way.
    only: String,
    /// How many roots there were: each has a name of its own.
    roots: u64,
    processes: Vec<Process>,
    /// What was shown and has not expired: connections may stand on it.
    shown: Vec<Leaf>,
    serial: u64,
}

#[derive(Clone, Debug)]
enum Happens {
    Join,
    Acknowledges(usize),
    Renews { process: usize, lost: bool },
    Reconnects(usize),
    Disconnects(usize),
    TimePasses(i64),
    Begin,
    Resume,
    Abort,
    Restart,
}

fn happens() -> impl Strategy<Value = Happens> {
    let process = 0_usize..5;
    prop_oneof![
        1 => Just(Happens::Join),
        6 => process.clone().prop_map(Happens::Acknowledges),
        5 => (process.clone(), any::<bool>()).prop_map(|(process, lost)| Happens::Renews { process, lost }),
        6 => process.clone().prop_map(Happens::Reconnects),
        2 => process.prop_map(Happens::Disconnects),
        3 => (1_i64..40).prop_map(Happens::TimePasses),
        3 => Just(Happens::Begin),
        1 => Just(Happens::Resume),
        1 => Just(Happens::Abort),
        1 => Just(Happens::Restart),
    ]
}

impl Mesh {
    fn new() -> Self {
        let mut mesh = Self {
            now: OffsetDateTime::UNIX_EPOCH,
            ledger: Ledger::default(),
            rotation: None,
            only: root(0),
            roots: 0,
            processes: vec![],
            shown: vec![],
            serial: 0,
        };
        for _ in 0..3 {
            mesh.happen(&Happens::Join);
        }
        mesh
    }

    fn believed(&self) -> Vec<String> {
        match &self.rotation {
            Some(rotation) => vec![rotation.from.clone(), rotation.to.clone()],
            None => vec![self.only.clone()],
        }
    }

    fn signs(&self) -> String {
        match &self.rotation {
            None => self.only.clone(),
            Some(rotation) if rotation.signer() == Signer::Old => rotation.from.clone(),
            Some(rotation) => rotation.to.clone(),
        }
    }

    fn sign(&mut self, before: Option<&str>) -> Leaf {
        self.serial += 1;
        let sha256 = format!("{:04}", self.serial);
        let holder = self.ledger.holder_of(before).unwrap_or_else(|| sha256.clone());
        self.ledger.enter(Leaf {
            serial: sha256.clone(),
            identity: "spiffe://mesh.local/ns/shop/sa/cart".into(),
            holder,
            root: self.signs(),
            by: if before.is_some() { Attested::Renewal } else { Attested::JoinToken },
            from: String::new(),
            issued: self.now,
            not_after: self.now + time::Duration::seconds(LIFE),
            order: 0,
            seen: None,
            trust: Some(self.believed().join("+")),
            sha256,
        })
    }

    fn happen(&mut self, what: &Happens) {
        self.now += time::Duration::milliseconds(1);
        let (now, believed) = (self.now, self.believed());
        match what {
            Happens::Join => {
                let leaf = self.sign(None);
                self.shown.push(leaf.clone());
                self.processes.push(Process { leaf, believes: believed, connected: false });
            }
            Happens::Acknowledges(at) => {
                if let Some(process) = self.processes.get_mut(*at).filter(|p| p.connected) {
                    process.believes.clone_from(&believed);
                    self.ledger.acknowledged(&process.leaf.sha256, &believed.join("+"));
                }
            }
            Happens::Renews { process, lost } => {
                let Some(before) = self.processes.get(*process).map(|p| p.leaf.clone()) else { return };
                if self.ledger.room(&before.identity.parse().unwrap(), Some(&before.holder)).is_err() {
                    return;
                }
                let leaf = self.sign(Some(&before.sha256));
                if !lost {
                    self.shown.push(leaf.clone());
                    let process = &mut self.processes[*process];
                    (process.leaf, process.believes) = (leaf, believed);
                }
            }
            Happens::Reconnects(at) => {
                if let Some(process) = self.processes.get_mut(*at) {
                    process.connected = true;
                    self.ledger.seen(&process.leaf.sha256, now);
                }
            }
            Happens::Disconnects(at) => {
                if let Some(process) = self.processes.get_mut(*at) {
                    process.connected = false;
                }
            }
            Happens::TimePasses(seconds) => {
                self.now += time::Duration::seconds(*seconds);
                self.ledger.sweep(self.now);
                let now = self.now;
                self.processes.retain(|p| p.leaf.not_after > now);
                self.shown.retain(|leaf| leaf.in_use_until() > now);
            }
            Happens::Begin if self.rotation.is_none() => {
                self.roots += 1;
                let (from, to) = (self.only.clone(), root(self.roots));
                self.rotation = Some(Rotation::begin(from, to, GATE, now));
            }
            Happens::Begin => {}
            Happens::Resume => {
                if let Some(rotation) = &mut self.rotation {
                    rotation.resume(None, now);
                }
            }
            Happens::Abort => {
                let event = self.rotation.as_mut().and_then(|r| r.abort(now));
                self.ended(event);
            }
            Happens::Restart => {
                let kept: Vec<Leaf> = self.ledger.all().cloned().collect();
                let text = serde_json::to_string(&(kept, &self.rotation)).unwrap();
                let (kept, rotation): (Vec<Leaf>, _) = serde_json::from_str(&text).unwrap();
                (self.ledger, self.rotation) = (Ledger::of_kept(kept), rotation);
                for process in &mut self.processes {
                    process.connected = false;
                }
            }
        }
        self.look();
    }

    fn look(&mut self) {
        let believed = self.believed().join("+");
        let Some(rotation) = &mut self.rotation else { return };
        let missing = match rotation.step {
            Step::Distribute => self.ledger.without_trust(&believed, self.now).len(),
            Step::Sign => self.ledger.latest_of(&rotation.from, self.now).len(),
            Step::Retire => self.ledger.in_use_of(&rotation.from).len(),
            Step::Withdraw => self.ledger.in_use_of(&rotation.to).len(),
        };
        let event = rotation.look(missing, self.now);
        self.ended(event);
    }

    fn ended(&mut self, event: Option<Event>) {
        match (event, &self.rotation) {
            (Some(Event::Completed), Some(rotation)) => self.only.clone_from(&rotation.to),
            (Some(Event::Aborted), Some(_)) => {}
            _ => return,
        }
        self.rotation = None;
    }

    /// Who would refuse whom, or cut a connection that somebody made before.
    fn refusals(&self) -> Vec<String> {
        let mut all = vec![];
        for who in &self.processes {
            for whom in &self.shown {
                if !who.believes.contains(&whom.root) {
                    let (who, whom, at) = (&who.leaf.sha256, &whom.sha256, self.rotation.as_ref());
                    all.push(format!("{who} refuses {whom} at {:?}", at.map(|r| r.step)));
                }
            }
        }
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_two_processes_ever_refuse_each_other(story in proptest::collection::vec(happens(), 1..120)) {
        let mut mesh = Mesh::new();
        for what in &story {
            mesh.happen(what);
            let refusals = mesh.refusals();
            prop_assert!(refusals.is_empty(), "after {:?}: {:?}", what, refusals);
        }
    }

    #[test]
    fn with_everybody_at_work_it_ends_and_only_the_new_root_is_left(seed in any::<u8>()) {
        let mut mesh = Mesh::new();
        for i in 0..3 {
            mesh.happen(&Happens::Reconnects(i));
        }
        mesh.happen(&Happens::Begin);
        for round in 0..18_usize {
            let process = (round + usize::from(seed)) % 3;
            for what in [
                Happens::TimePasses(LIFE / 9),
                Happens::Acknowledges(process),
                Happens::Renews { process, lost: round == 4 },
                Happens::Reconnects(process),
            ] {
                mesh.happen(&what);
            }
        }
        prop_assert!(mesh.rotation.is_none());
        prop_assert_eq!(&mesh.only, &root(1));
        prop_assert!(mesh.processes.iter().all(|p| p.leaf.root == root(1)));
    }
}

fn rotation(step: Step) -> Rotation {
    let now = OffsetDateTime::UNIX_EPOCH;
    Rotation { step, ..Rotation::begin(root(0), root(1), Duration::from_secs(10), now) }
}

#[test]
fn a_gate_that_takes_too_long_pauses_and_moves_again_only_when_told() {
    let at = |seconds| OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds);
    let mut rotation = rotation(Step::Distribute);
    assert_eq!(rotation.look(1, at(9)), None);
    assert_eq!(rotation.look(1, at(10)), Some(Event::Paused));
    assert_eq!(rotation.look(0, at(11)), None, "nobody is missing any more, but an operator was called");
    rotation.resume(Some(Duration::from_secs(5)), at(20));
    assert_eq!(rotation.look(1, at(24)), None);
    assert_eq!(rotation.look(0, at(24)), Some(Event::Entered(Step::Sign)));
}

#[test]
fn an_abort_has_one_defined_end_from_each_step() {
    let now = OffsetDateTime::UNIX_EPOCH;
    assert_eq!(rotation(Step::Distribute).abort(now), Some(Event::Aborted));
    for step in [Step::Sign, Step::Retire] {
        let mut rotation = rotation(step);
        assert_eq!(rotation.abort(now), Some(Event::Entered(Step::Withdraw)));
        assert_eq!((rotation.signer(), rotation.leaving()), (Signer::Old, Some(root(1).as_str())));
        assert_eq!(rotation.look(1, now), None, "both are believed until the last of the new one is gone");
        assert_eq!(rotation.look(0, now), Some(Event::Aborted));
    }
    assert_eq!(rotation(Step::Withdraw).abort(now), None);
}

#[test]
fn a_forced_gate_is_remembered_with_the_number_of_those_it_cost() {
    let now = OffsetDateTime::UNIX_EPOCH;
    let mut rotation = rotation(Step::Distribute);
    assert_eq!(rotation.force(3, now), Event::Entered(Step::Sign));
    assert_eq!(rotation.forced.len(), 1);
    assert_eq!((rotation.forced[0].step, rotation.forced[0].missing), (Step::Distribute, 3));
}

#[test]
fn a_certificate_is_in_use_until_its_connections_have_ended_whatever_its_holder_shows_since() {
    let mut mesh = Mesh::new();
    mesh.happen(&Happens::Reconnects(0));
    let shown = mesh.processes[0].leaf.sha256.clone();
    let in_use = |mesh: &Mesh| mesh.ledger.in_use_of(&root(0)).iter().any(|leaf| leaf.sha256 == shown);
    mesh.happen(&Happens::Renews { process: 0, lost: false });
    mesh.happen(&Happens::Reconnects(0));
    mesh.happen(&Happens::TimePasses(LIFE + LIFE / 10 - 1));
    assert!(in_use(&mesh), "what is under way when it expires may take longer");
    assert!(mesh.ledger.latest_of(&root(0), mesh.now).is_empty(), "it is nobody's certificate any more");
    mesh.happen(&Happens::TimePasses(1));
    assert!(!in_use(&mesh));
}

#[test]
fn connections_by_a_certificate_get_half_an_hour_to_end_whatever_its_life() {
    let mut leaf = Mesh::new().sign(None);
    for (life, more) in [(24 * 60, 30), (60, 30), (10, 1)] {
        leaf.not_after = leaf.issued + time::Duration::minutes(life);
        assert_eq!(leaf.in_use_until() - leaf.not_after, time::Duration::minutes(more), "{life} min");
    }
}

/// The renewal was for a shorter life, and lost: its end is not the holder's.
#[test]
fn a_holder_counts_by_what_is_valid_still() {
    let mut mesh = Mesh::new();
    let before = mesh.processes[0].leaf.clone();
    let mut lost = mesh.sign(Some(&before.sha256));
    lost.not_after = mesh.now + time::Duration::seconds(LIFE / 10);
    mesh.ledger.enter(lost);
    let then = mesh.now + time::Duration::seconds(LIFE / 10);
    let of_root = mesh.ledger.latest_of(&root(0), then);
    assert!(of_root.iter().any(|leaf| leaf.sha256 == before.sha256), "{of_root:?}");
    assert!(mesh.ledger.without_trust("other", then).iter().any(|leaf| leaf.sha256 == before.sha256));
}

#[test]
fn one_process_holds_no_more_certificates_than_it_could_need() {
    let mut mesh = Mesh::new();
    for _ in 0..2 * MAX_OF_HOLDER {
        mesh.happen(&Happens::Renews { process: 0, lost: true });
    }
    let holder = mesh.processes[0].leaf.holder.clone();
    assert_eq!(mesh.ledger.all().filter(|leaf| leaf.holder == holder).count(), MAX_OF_HOLDER);
}
