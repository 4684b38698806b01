//! The last hour in steps of ten seconds, within a bound on memory.
//!
//! Who calls whom comes partly from outside, so what is told apart is bounded: callers beyond that are counted together as
//! others. Whoever was silent for an hour gives way by itself. Where the figures of all together weigh too much, the oldest
//! steps are given up before their time; what is left is told with how long it reaches back.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use outrigger_mesh::{Report, ServiceName, Side, SpiffeId, Version};
use tokio::time::Instant;

use super::cell::{Cell, Counts};

/// How long a step is.
pub const STEP: Duration = Duration::from_secs(10);
/// How many complete ones are kept: an hour.
pub const STEPS: u64 = 360;

/// Between whom something was counted, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Who counted.
    pub side: Side,
    /// The service that was called.
    pub service: ServiceName,
    /// The version, where it is known.
    pub version: Option<Version>,
    /// Who called.
    pub caller: Whose,
}

/// Who called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Whose {
    /// A workload.
    Known(SpiffeId),
    /// Somebody who proved nothing.
    Nobody,
    /// One of those that are too many to be told apart.
    Others,
}

impl Whose {
    fn of(caller: Option<&SpiffeId>) -> Self {
        caller.cloned().map_or(Self::Nobody, Self::Known)
    }
}

/// The figures of the last hour.
#[derive(Debug)]
pub(super) struct Hour {
    began: Instant,
    bounds: Bounds,
    keys: HashSet<Arc<FlowKey>>,
    /// How many of them each service has.
    of_services: HashMap<ServiceName, usize>,
    /// By rising numbers; readers share those that have ended.
    steps: VecDeque<Arc<Step>>,
    bytes: usize,
    /// From this step on everything is there.
    whole_since: u64,
    left_out: u64,
}

/// What is kept at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Keys that are told apart.
    pub(super) keys: usize,
    /// Keys of one service that are: so no workload takes the room of all others by what it says of its callers.
    pub(super) of_service: usize,
    /// Keys beyond those, for the others.
    pub(super) reserve: usize,
    /// Bytes of all steps.
    pub(super) bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { keys: 8_192, of_service: 1_024, reserve: 2_048, bytes: 64 << 20 }
    }
}

#[derive(Clone, Debug)]
struct Step {
    number: u64,
    cells: HashMap<Shared, Cell>,
    bytes: usize,
}

/// A key by where it lies: there is one of each in [`Hour::keys`].
#[derive(Clone, Debug)]
struct Shared(Arc<FlowKey>);

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Shared {}

impl Hash for Shared {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl Default for Hour {
    fn default() -> Self {
        Self::within(Bounds::default())
    }
}

impl Hour {
    pub(super) fn within(bounds: Bounds) -> Self {
        Self {
            began: Instant::now(),
            bounds,
            keys: HashSet::new(),
            of_services: HashMap::new(),
            steps: VecDeque::new(),
            bytes: 0,
            whole_since: 0,
            left_out: 0,
        }
    }

    /// Adds a report. What it says of callers was held to who they are.
    pub(super) fn take(&mut self, report: &Report) {
        self.turn();
        for (key, stats) in &report.traffic {
            let (side, service, version) = (key.side, key.service.clone(), key.version.clone());
            let key = FlowKey { side, service, version, caller: Whose::of(key.caller.as_ref()) };
            self.add(key, &Counts { traffic: stats.clone(), ..Counts::default() });
        }
        for (refused, count) in &report.refusals {
            let (side, service) = (refused.side, refused.service.clone());
            let key = FlowKey { side, service, version: None, caller: Whose::of(refused.caller.as_ref()) };
            self.add(key, &Counts::of_refusal(refused, *count));
        }
        while self.bytes > self.bounds.bytes && self.steps.len() > 1 {
            self.whole_since = self.steps[0].number + 1;
            self.drop_oldest();
            self.forget();
        }
    }

    fn add(&mut self, key: FlowKey, counts: &Counts) {
        let (Some(key), Some(step)) = (self.shared(key, counts), self.steps.back_mut()) else { return };
        // Whoever reads at this moment keeps what he has.
        let step = Arc::make_mut(step);
        let before = step.bytes;
        let mut sum = Counts::default();
        match step.cells.get(&key) {
            Some(cell) => {
                cell.add_to(&mut sum);
                step.bytes -= cell.bytes();
            }
            None => step.bytes += AROUND,
        }
        sum.merge(counts);
        let cell = Cell::pack(&sum);
        step.bytes += cell.bytes();
        self.bytes = self.bytes + step.bytes - before;
        step.cells.insert(key, cell);
    }

    fn shared(&mut self, key: FlowKey, counts: &Counts) -> Option<Shared> {
        if let Some(known) = self.keys.get(&key) {
            return Some(Shared(Arc::clone(known)));
        }
        let of_service = self.of_services.get(&key.service).copied().unwrap_or(0);
        let key = if self.keys.len() < self.bounds.keys && of_service < self.bounds.of_service {
            key
        } else {
            FlowKey { version: None, caller: Whose::Others, ..key }
        };
        if let Some(known) = self.keys.get(&key) {
            return Some(Shared(Arc::clone(known)));
        }
        if self.keys.len() >= self.bounds.keys + self.bounds.reserve {
            self.left_out = self.left_out.saturating_add(counts.traffic.requests.max(counts.all_refused()));
            return None;
        }
        let key = Arc::new(key);
        *self.of_services.entry(key.service.clone()).or_default() += 1;
        self.keys.insert(Arc::clone(&key));
        Some(Shared(key))
    }

    /// Begins the step of this moment, and gives up those that are too old.
    fn turn(&mut self) {
        let now = self.number();
        if self.steps.back().is_some_and(|step| step.number == now) {
            return;
        }
        self.steps.push_back(Arc::new(Step { number: now, cells: HashMap::new(), bytes: 0 }));
        while self.steps.front().is_some_and(|step| step.number + STEPS < now) {
            self.drop_oldest();
        }
        self.forget();
    }

    fn drop_oldest(&mut self) {
        if let Some(step) = self.steps.pop_front() {
            self.bytes -= step.bytes;
        }
    }

    /// Forgets the keys that nothing is kept of.
    fn forget(&mut self) {
        let before = self.keys.len();
        self.keys.retain(|key| Arc::strong_count(key) > 1);
        if self.keys.len() < before {
            self.of_services.clear();
            for key in &self.keys {
                *self.of_services.entry(key.service.clone()).or_default() += 1;
            }
        }
    }

    fn number(&self) -> u64 {
        self.began.elapsed().as_secs() / STEP.as_secs()
    }

    pub(super) fn stretch(&self, window: Duration) -> Stretch {
        let now = self.number();
        let steps = window.as_secs().div_ceil(STEP.as_secs()).clamp(1, STEPS);
        let first = now.saturating_sub(steps).max(self.whole_since);
        let kept = self.steps.iter().filter(|step| step.number >= first).cloned().collect();
        Stretch { began: self.began, now: Instant::now(), first, last: now, steps: kept }
    }

    pub(super) fn metrics(&self) -> String {
        format!(
            "# HELP outrigger_control_flows Pairs of callers and services, versions and sides whose traffic is kept.\n\
             # TYPE outrigger_control_flows gauge\n\
             outrigger_control_flows {}\n\
             # HELP outrigger_control_flows_bytes Bytes that the traffic of the last hour takes.\n\
             # TYPE outrigger_control_flows_bytes gauge\n\
             outrigger_control_flows_bytes {}\n\
             # HELP outrigger_control_flows_left_out_total Requests that were not counted, since there were too many \
             pairs.\n\
             # TYPE outrigger_control_flows_left_out_total counter\n\
             outrigger_control_flows_left_out_total {}\n",
            self.keys.len(),
            self.bytes,
            self.left_out
        )
    }

    #[cfg(test)]
    pub(super) fn weight(&self) -> (usize, usize, u64) {
        (self.keys.len(), self.bytes, self.left_out)
    }
}

/// What a cell takes beside its bytes: its place in the table, and what the allocator adds.
const AROUND: usize = 64;

/// A part of the hour, up to now.
#[derive(Clone, Debug)]
pub struct Stretch {
    began: Instant,
    now: Instant,
    /// The number of the first step, and of the one that has begun.
    first: u64,
    last: u64,
    steps: Vec<Arc<Step>>,
}

impl Stretch {
    /// How long it is; since the control plane began, if that is less. Never 0.
    pub fn seconds(&self) -> f64 {
        let from = self.began + Duration::from_secs(self.first * STEP.as_secs());
        (self.now - from).as_secs_f64().max(1.0)
    }

    /// What was counted in all of it, of the keys that are `wanted`.
    pub fn counts(&self, wanted: impl Fn(&FlowKey) -> bool) -> Vec<(Arc<FlowKey>, Counts)> {
        let mut sums: HashMap<Shared, Counts> = HashMap::new();
        for step in &self.steps {
            for (key, cell) in step.cells.iter().filter(|(key, _)| wanted(&key.0)) {
                cell.add_to(sums.entry(key.clone()).or_default());
            }
        }
        sums.into_iter().map(|(key, counts)| (key.0, counts)).collect()
    }

    /// Each complete step of it, the oldest first, also those in which nothing happened: how long ago it began, and itself
    /// as a stretch.
    pub fn each(&self) -> impl Iterator<Item = (Duration, Self)> + '_ {
        let mut steps = self.steps.iter().peekable();
        (self.first..self.last).map(move |number| {
            while steps.next_if(|step| step.number < number).is_some() {}
            let step = steps.next_if(|step| step.number == number);
            let from = self.began + Duration::from_secs(number * STEP.as_secs());
            let one = Self {
                began: self.began,
                now: from + STEP,
                first: number,
                last: number,
                steps: step.into_iter().cloned().collect(),
            };
            (self.now - from, one)
        })
    }
}
