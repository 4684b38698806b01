//! The story: a shop in a mesh, a canary, restarts and a death, all under load; and what it states about each.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::board::Board;
use super::cast::cast;
use super::claims::{Claim, Step};
use super::load::{Load, Phase, Tally, sum};
use super::page::Shop;
use super::plant::{Addresses, Instance, LEASE, NAMESPACE, Plant};
use super::{peers, scenes};
use crate::apply;
use crate::binaries::Binaries;
use crate::failure::Failure;
use crate::http::{Ask, ask};

/// What the story is played with.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) folder: PathBuf,
    pub(super) at: Addresses,
    /// Whether recommendations play.
    pub(super) python: bool,
    pub(super) users: usize,
    pub(super) rate: u32,
    /// Answers that every step of the canary counts.
    pub(super) answers: u64,
    /// How long every step lasts at least.
    pub(super) least: Duration,
}

/// What is on stage; outlives the story, so that it can be ended in order however the story ends.
#[derive(Debug, Default)]
pub(super) struct Stage {
    pub(super) plant: Option<Plant>,
    pub(super) load: Option<Load>,
}

impl Stage {
    pub(super) async fn end(self) {
        if let Some(load) = self.load {
            load.end().await;
        }
        if let Some(plant) = self.plant {
            plant.stop().await;
        }
    }
}

/// Plays it all. Every step is told to the board as it ends.
pub(super) async fn play(
    stage: &mut Stage,
    binaries: Binaries,
    setting: &Setting,
    board: &Board,
) -> Result<(), Failure> {
    let (plant, load, files) = open(stage, binaries, setting, board).await?;
    let counted_to = load.phase();
    let mut story = Story { plant, load, setting, board, files, counted_to };

    for weight in scenes::WEIGHTS {
        story.canary(weight).await?;
    }
    story.restart_sidecars().await?;
    story.restart_control().await?;
    story.kill_an_instance().await?;
    story.look_around().await
}

/// Starts the mesh and the shop in it, and lets users come.
pub(super) async fn open<'a>(
    stage: &'a mut Stage,
    binaries: Binaries,
    setting: &Setting,
    board: &Board,
) -> Result<(&'a mut Plant, &'a Load, scenes::Files), Failure> {
    board.now("starting the control plane");
    let plant = Plant::start(binaries, &setting.folder, setting.at).await?;
    let plant = stage.plant.insert(plant);
    board.watch_mesh(plant.admin()?);
    let files = scenes::write(&setting.folder)?;
    apply(plant, &files.services).await?;
    apply(plant, &files.canary(0)).await?;

    board.now("starting the shop, every instance with its sidecar");
    plant.add_all(&cast(setting.python)).await?;
    let webs: Vec<SocketAddr> = of(plant, "web").map(Instance::address).collect();
    let shop = open_shop(plant, &webs, setting.python).await?;
    let load = stage.load.insert(Load::begin(shop, &webs, setting.users, setting.rate));
    board.watch_users(load.watch());
    Ok((plant, load, files))
}

struct Story<'a> {
    plant: &'a mut Plant,
    load: &'a Load,
    setting: &'a Setting,
    board: &'a Board,
    files: scenes::Files,
    /// The phase with which the next step begins: no request falls between two steps.
    counted_to: Phase,
}

impl Story<'_> {
    /// Sends a share of prices to v2, waits until every sidecar has said that it does so, and counts.
    async fn canary(&mut self, weight: u8) -> Result<(), Failure> {
        let name = format!("prices v2 at {weight} %");
        self.board.now(&format!("{name}: outrigger apply -f {}", self.files.canary(weight).display()));
        let applied = apply(self.plant, &self.files.canary(weight)).await?;
        let acknowledged = Claim::new("every sidecar acknowledged the route", applied.live(), applied.told());

        let phase = self.load.phase();
        self.board.now(&format!("{name}: counting answers"));
        self.until(|story| prices(&story.load.tally(phase), None) >= story.setting.answers).await;
        let end = self.load.phase();
        self.load.settle().await;
        let measured = sum((phase..end).map(|phase| self.load.tally(phase)));
        let (v2, all) = (prices(&measured, Some("v2")), prices(&measured, None));

        let claims = vec![
            acknowledged,
            Claim::enough(all, self.setting.answers),
            Claim::share("v2", v2, all, f64::from(weight) / 100.0),
        ];
        self.step(name, claims, 0).await;
        Ok(())
    }

    /// Restarts every sidecar, one after the other, each beside its running application.
    async fn restart_sidecars(&mut self) -> Result<(), Failure> {
        let count = self.plant.instances().len();
        for index in 0..count {
            let instance = &self.plant.instances()[index];
            let (name, address) = (instance.name.clone(), instance.address());
            self.board.now(&format!("restarting sidecars, {} of {count}: {name}", index + 1));
            // Users reach `web` from outside the mesh, so its withdrawal from the mesh does not keep them away: the
            // platform's balancer does, as it does for every instance that goes.
            self.load.take_out(address).await;
            self.plant.restart_sidecar(index).await?;
            self.load.put_back(address);
        }
        let back = Claim::new(
            "every sidecar drained, ended by itself and came back",
            true,
            format!("{count} of {count}"),
        );
        self.step(format!("{count} sidecars restarted"), vec![back], 0).await;
        Ok(())
    }

    /// Restarts the control plane and waits until every sidecar is connected again.
    async fn restart_control(&mut self) -> Result<(), Failure> {
        self.board.now("restarting the control plane");
        self.plant.restart_control().await?;
        self.board.now("the control plane is back: waiting for the sidecars");
        let wanted = self.plant.instances().len();
        let began = Instant::now();
        let connected = loop {
            let connected = peers::connected(&self.plant.admin()?).await?;
            if connected >= wanted || began.elapsed() > RECONNECT_WITHIN {
                break connected;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let seen = format!("{connected} of {wanted} after {:.1} s", began.elapsed().as_secs_f64());
        self.rest().await;
        let back = Claim::new("every sidecar is connected again", connected == wanted, seen);
        self.step("control plane restarted".into(), vec![back], 0).await;
        Ok(())
    }

    /// Kills an instance without a warning, sees it go, and puts another in its place.
    async fn kill_an_instance(&mut self) -> Result<(), Failure> {
        let Some(index) = self.plant.find(VICTIM) else {
            return Err(Failure::failed(format!("{VICTIM} does not run")));
        };
        self.board.now(&format!("kill -9 of {VICTIM}, the application and its sidecar"));
        // Every request that is on its way at this moment may have a call at the victim; no other can.
        let before = self.load.in_flight();
        let (victim, after) = self.plant.kill(index, || self.load.in_flight()).await;
        let in_flight = before.max(after) as u64;
        self.rest().await;

        self.board.now(&format!("waiting for the lease of {VICTIM} to end"));
        let gone = self.wait_gone(&victim).await?;
        self.plant.add(victim.part, 3).await?;
        self.plant.wait_known(self.plant.instances().len() - 1, RECONNECT_WITHIN).await?;
        let killed = format!("{VICTIM} killed, {in_flight} in flight");
        self.step(killed, vec![gone], in_flight).await;
        Ok(())
    }

    async fn wait_gone(&self, victim: &Instance) -> Result<Claim, Failure> {
        let says = "the killed instance is gone when its lease ends";
        let Some(uid) = victim.uid() else { return Ok(Claim::new(says, false, "it had no name")) };
        let (admin, began) = (self.plant.admin()?, Instant::now());
        loop {
            let gone = admin.object("instances", NAMESPACE, uid).await?.is_none();
            let seen = format!("after {:.1} s", began.elapsed().as_secs_f64());
            if gone || began.elapsed() > LEASE * 3 {
                return Ok(Claim::new(says, gone, seen));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// States what holds for the mesh as a whole, by looking where it must show.
    async fn look_around(&mut self) -> Result<(), Failure> {
        self.board.now("looking at who called whom");
        self.rest().await;
        let mut claims = peers::callers(self.plant, self.setting.python).await?;
        claims.push(peers::plaintext_refused(self.plant).await);
        let gone = self.plant.gone();
        let seen = if gone.is_empty() { "all run".into() } else { gone.join(", ") };
        claims.push(Claim::new("nothing ended that was not asked to", gone.is_empty(), seen));
        self.step("identities".into(), claims, 0).await;
        Ok(())
    }

    /// Closes a step: everything that began since the last one counts here.
    async fn step(&mut self, name: String, mut claims: Vec<Claim>, most_lost: u64) {
        let next = self.load.phase();
        self.load.settle().await;
        let tally = sum((self.counted_to..next).map(|phase| self.load.tally(phase)));
        self.counted_to = next;
        claims.push(match most_lost {
            0 => Claim::nothing_lost(&tally),
            most => Claim::at_most_lost(&tally, most),
        });
        self.board.done(Step { name, tally, claims });
    }

    async fn rest(&self) {
        self.until(|_| true).await;
    }

    /// Waits for it, and at least as long as a step lasts.
    async fn until(&self, done: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let lasted = began.elapsed();
            if (lasted >= self.setting.least && done(self)) || lasted >= LONGEST_STEP {
                return;
            }
        }
    }
}

const VICTIM: &str = "cart-1";
pub(super) const RECONNECT_WITHIN: Duration = Duration::from_secs(15);
/// A step that has not counted enough by then says so.
const LONGEST_STEP: Duration = Duration::from_secs(30);
const APPLY_WITHIN: Duration = Duration::from_secs(10);

/// The very way of `outrigger apply -f FILE --wait`.
pub(super) async fn apply(plant: &Plant, file: &std::path::Path) -> Result<apply::Applied, Failure> {
    let files = [file.display().to_string()];
    apply::files(&plant.admin()?, &files, Some(APPLY_WITHIN)).await
}

fn of<'a>(plant: &'a Plant, service: &'static str) -> impl Iterator<Item = &'a Instance> {
    plant.instances().iter().filter(move |instance| instance.part.service == service)
}

fn prices(tally: &Tally, version: Option<&str>) -> u64 {
    let counts = tally.versions.iter();
    counts.filter(|((_, v), _)| version.is_none_or(|wanted| v == wanted)).map(|(_, count)| count).sum()
}

/// The shop as its front page shows it, which lists nothing while `web` does not reach the services behind it yet.
async fn front_page(web: SocketAddr, python: bool) -> Result<Shop, Failure> {
    let end = Instant::now() + RECONNECT_WITHIN;
    loop {
        let answer =
            ask(web, Ask::get("/")).await.map_err(|why| Failure::failed(format!("the shop: {why}")))?;
        let shop = Shop::of_front_page(&answer.text(), python);
        if !shop.is_empty() {
            return Ok(shop);
        }
        if Instant::now() >= end {
            return Err(Failure::failed("the shop's front page lists nothing"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the shop serves every kind of visit at every instance of `web`.
async fn open_shop(plant: &Plant, webs: &[SocketAddr], python: bool) -> Result<Shop, Failure> {
    for index in 0..plant.instances().len() {
        plant.wait_known(index, RECONNECT_WITHIN).await?;
    }
    let mut opened = None;
    for web in webs {
        let shop = front_page(*web, python).await?;
        shop.wait_open(*web, RECONNECT_WITHIN).await?;
        opened = Some(shop);
    }
    opened.ok_or_else(|| Failure::failed("no instance of web runs"))
}
