//! `outrigger demo --chaos`: instances are killed, crash, stand still and get slow, one after the other under load, while
//! the board shows what the sidecars make of it. The same seed does the same in the same order.

use std::time::{Duration, Instant};

use super::board::Board;
use super::cast::Part;
use super::claims::{Claim, Step};
use super::load::{Load, Phase, sum};
use super::plant::Plant;
use super::story::{self, RECONNECT_WITHIN, Setting, Stage};
use super::strain::{self, Picture};
use crate::binaries::Binaries;
use crate::failure::Failure;

/// How it is played.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chaos {
    pub(super) seed: u64,
    /// How many instances are harmed, one after the other.
    pub(super) blows: usize,
    /// How long each harm lasts.
    pub(super) lasts: Duration,
    /// How long the mesh is left alone after it.
    pub(super) rest: Duration,
}

/// What can happen to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// The application and its sidecar are gone at once, and another instance comes.
    Killed,
    /// The application is gone, its sidecar refuses for it, and it comes back.
    Crashed,
    /// The application takes connections and answers nothing.
    Frozen,
    /// The application answers late.
    Slow,
}

/// Plays it all. Every blow is told to the board as it is over.
pub(super) async fn play(
    stage: &mut Stage,
    binaries: Binaries,
    setting: &Setting,
    chaos: Chaos,
    board: &Board,
) -> Result<(), Failure> {
    let (plant, load, files) = story::open(stage, binaries, setting, board).await?;
    story::apply(plant, &files.canary(50)).await?;
    board.watch_sidecars(strain::everyone(plant));
    let counted_to = load.phase();
    let before = strain::look(&strain::everyone(plant)).await;
    let mut play = Play { plant, load, board, chaos, users: setting.users, counted_to, before };
    play.leave_alone("all is well").await;
    play.step("before".into(), Vec::new(), false).await;

    let mut chance = fastrand::Rng::with_seed(chaos.seed);
    for (harm, service) in blows(&mut chance, &services(play.plant), chaos.blows) {
        play.blow(harm, service, &mut chance).await?;
    }
    play.well_again().await
}

struct Play<'a> {
    plant: &'a mut Plant,
    load: &'a Load,
    board: &'a Board,
    chaos: Chaos,
    users: usize,
    /// The phase with which the next step begins: no request falls between two steps.
    counted_to: Phase,
    /// What the sidecars knew before the first blow.
    before: Picture,
}

impl Play<'_> {
    async fn blow(&mut self, harm: Harm, service: &str, chance: &mut fastrand::Rng) -> Result<(), Failure> {
        let all = self.plant.instances().iter().enumerate();
        let them: Vec<usize> = all.filter(|(_, i)| i.part.service == service).map(|(n, _)| n).collect();
        let Some(index) = chance.choice(them) else { return Ok(()) };
        let (name, part) = (self.plant.instances()[index].name.clone(), self.plant.instances()[index].part);
        let told = format!("{name} {}", harm.told());
        self.board.now(&told);
        self.harm(harm, index, part).await?;
        self.leave_alone(&format!("{told}; it is over")).await;
        self.step(told, Vec::new(), true).await;
        Ok(())
    }

    async fn harm(&mut self, harm: Harm, index: usize, part: Part) -> Result<(), Failure> {
        let lasts = self.chaos.lasts;
        match harm {
            Harm::Killed => {
                self.plant.kill(index, || ()).await;
                tokio::time::sleep(lasts).await;
                let number = self.plant.next_number(&part.label());
                self.plant.add(part, number).await?;
                self.plant.wait_known(self.plant.instances().len() - 1, RECONNECT_WITHIN).await?;
            }
            Harm::Crashed => {
                self.plant.crash(index).await;
                tokio::time::sleep(lasts).await;
                self.plant.revive(index).await?;
            }
            Harm::Frozen => {
                self.plant.freeze(index);
                tokio::time::sleep(lasts).await;
                self.plant.thaw(index);
            }
            Harm::Slow => self.plant.slow(index, lasts).await,
        }
        self.board.watch_sidecars(strain::everyone(self.plant));
        Ok(())
    }

    /// After the last blow: every breaker closes again, and then nothing fails any more.
    async fn well_again(&mut self) -> Result<(), Failure> {
        self.board.now("waiting until every breaker has closed");
        let watched = strain::everyone(self.plant);
        let began = Instant::now();
        let picture = loop {
            let picture = strain::look(&watched).await;
            if picture.open().is_empty() || began.elapsed() > WELL_WITHIN {
                break picture;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let open = picture.open();
        let seen = match open.as_slice() {
            [] => format!("after {:.1} s", began.elapsed().as_secs_f64()),
            open => format!("open: {}", open.join(", ")),
        };
        let closed = Claim::new("no breaker stays open", open.is_empty(), seen);
        let opened = picture.opened_since(&self.before);
        let tripped = Claim::new("breakers opened under it", opened > 0, format!("{opened} times"));
        let gone = self.plant.gone();
        let seen = if gone.is_empty() { "all run".into() } else { gone.join(", ") };
        let claims =
            vec![tripped, closed, Claim::new("nothing ended that was not killed", gone.is_empty(), seen)];
        self.step("recovering".into(), claims, true).await;

        self.leave_alone("all is well again").await;
        self.step("after".into(), Vec::new(), false).await;
        Ok(())
    }

    async fn leave_alone(&self, what: &str) {
        self.board.now(what);
        tokio::time::sleep(self.chaos.rest).await;
    }

    /// What was under way at an instance that went, and writes that may have been done, are not tried again: of so many
    /// requests a small share, or what all users had under way at one moment.
    fn most_lost(&self, requests: u64) -> u64 {
        (requests * MOST_LOST_PERCENT / 100).max(self.users as u64)
    }

    /// Closes a step: everything that began since the last one counts here.
    async fn step(&mut self, name: String, mut claims: Vec<Claim>, harmed: bool) {
        let next = self.load.phase();
        self.load.settle().await;
        let tally = sum((self.counted_to..next).map(|phase| self.load.tally(phase)));
        self.counted_to = next;
        claims.push(Claim::at_most_lost(&tally, if harmed { self.most_lost(tally.requests) } else { 0 }));
        self.board.done(Step { name, tally, claims });
    }
}

impl Harm {
    const ALL: [Self; 4] = [Self::Killed, Self::Crashed, Self::Frozen, Self::Slow];

    fn told(self) -> &'static str {
        match self {
            Self::Killed => "is killed with its sidecar",
            Self::Crashed => "crashes, its sidecar stays",
            Self::Frozen => "stands still",
            Self::Slow => "gets slow",
        }
    }
}

/// Every harm before any comes again, each at a service that any chance chooses.
fn blows<'a>(chance: &mut fastrand::Rng, services: &[&'a str], count: usize) -> Vec<(Harm, &'a str)> {
    let mut blows = Vec::with_capacity(count);
    while blows.len() < count && !services.is_empty() {
        let mut harms = Harm::ALL;
        chance.shuffle(&mut harms);
        for harm in harms.into_iter().take(count - blows.len()) {
            blows.push((harm, services[chance.usize(..services.len())]));
        }
    }
    blows
}

/// Who is harmed: everyone but `web`, which users call without a mesh before it.
fn services(plant: &Plant) -> Vec<&'static str> {
    let mut services: Vec<_> =
        plant.instances().iter().map(|i| i.part.service).filter(|service| *service != "web").collect();
    services.sort_unstable();
    services.dedup();
    services
}

const MOST_LOST_PERCENT: u64 = 3;
const WELL_WITHIN: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_does_the_same_and_every_harm_is_done() {
        let of = |seed| blows(&mut fastrand::Rng::with_seed(seed), &["cart", "prices"], 6);
        assert_eq!(of(7), of(7));
        assert_eq!(of(7).len(), 6);
        assert!((0..20).any(|seed| of(seed) != of(7)));
        for harm in Harm::ALL {
            assert!(of(7)[..4].iter().any(|(h, _)| *h == harm), "{harm:?}");
        }
        assert!(blows(&mut fastrand::Rng::with_seed(1), &[], 3).is_empty());
    }
}
