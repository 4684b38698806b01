//! What the demo shows while it plays: on a terminal a table that lives, else a line now and then.
//!
//! Both are drawn by one future that runs beside the story and never ends; it only looks.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io::Write;
use std::time::{Duration, Instant};

use owo_colors::OwoColorize;

use super::claims::{self, Step};
use super::load::Watch;
use super::strain::{self, Watched};
use super::traffic;
use crate::client::Admin;
use crate::drawn::rows_of_text;
use crate::out;

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// A table that is drawn again and again, on a terminal.
    Live,
    /// A line for each step, and now and then one for what goes on.
    Lines,
    /// Nothing: the answer is for a program.
    Nothing,
}

/// The board. Told by the story, drawn by [`Board::live`].
#[derive(Debug)]
pub(super) struct Board {
    show: Show,
    now: RefCell<String>,
    steps: RefCell<Vec<Step>>,
    users: RefCell<Option<Watch>>,
    mesh: RefCell<Option<Admin>>,
    /// Those that are asked for the picture of a strained mesh, in place of the traffic.
    sidecars: RefCell<Vec<Watched>>,
    /// How many lines of the live table stand on the terminal.
    drawn: Cell<usize>,
}

impl Board {
    pub(super) fn new(show: Show) -> Self {
        Self {
            show,
            now: RefCell::default(),
            steps: RefCell::default(),
            users: RefCell::default(),
            mesh: RefCell::default(),
            sidecars: RefCell::default(),
            drawn: Cell::new(0),
        }
    }

    /// What goes on from now.
    pub(super) fn now(&self, what: &str) {
        what.clone_into(&mut self.now.borrow_mut());
        if self.show == Show::Lines {
            out::say(format!("… {what}"));
        }
    }

    /// A step has ended.
    pub(super) fn done(&self, step: Step) {
        if self.show != Show::Nothing {
            self.wipe();
            out::say(told(&step));
        }
        self.steps.borrow_mut().push(step);
    }

    pub(super) fn watch_mesh(&self, admin: Admin) {
        *self.mesh.borrow_mut() = Some(admin);
    }

    pub(super) fn watch_users(&self, users: Watch) {
        *self.users.borrow_mut() = Some(users);
    }

    pub(super) fn watch_sidecars(&self, sidecars: Vec<Watched>) {
        *self.sidecars.borrow_mut() = sidecars;
    }

    /// Makes room for what is told next, and gives back the steps that were told.
    pub(super) fn close(&self) -> Vec<Step> {
        self.wipe();
        self.steps.take()
    }

    /// Draws until dropped.
    pub(super) async fn live(&self) -> Infallible {
        let pause = match self.show {
            Show::Live => Duration::from_millis(500),
            Show::Lines => Duration::from_secs(5),
            Show::Nothing => std::future::pending().await,
        };
        let mut rate = Rate::default();
        loop {
            tokio::time::sleep(pause).await;
            let users = self.users_line(&mut rate);
            match self.show {
                Show::Live => self.draw(&users, &self.table().await),
                Show::Lines if !users.is_empty() => {
                    out::say(format!("  {users}"));
                    if let Some(strained) = self.strained().await {
                        out::say(format!("  {}", strained.line()));
                    }
                }
                Show::Lines | Show::Nothing => {}
            }
        }
    }

    /// The line of the outside client.
    fn users_line(&self, rate: &mut Rate) -> String {
        let users = self.users.borrow();
        let Some(all) = users.as_ref().map(Watch::all) else { return String::new() };
        let per_second = rate.of(all.requests);
        let time = |q| claims::millis(&all, q).map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"));
        format!(
            "users: {per_second:.0} requests/s, {} served, {} lost, p50 {}, p99 {}",
            all.requests - all.failed,
            all.failed,
            time(0.5),
            time(0.99),
        )
    }

    /// What the sidecars know, where they are watched.
    async fn strained(&self) -> Option<strain::Picture> {
        let sidecars = self.sidecars.borrow().clone();
        if sidecars.is_empty() { None } else { Some(strain::look(&sidecars).await) }
    }

    async fn table(&self) -> String {
        if let Some(strained) = self.strained().await {
            return format!("{}\n\n{}", strained.table(), strained.line());
        }
        let admin = self.mesh.borrow().clone();
        let Some(admin) = admin else { return String::new() };
        match admin.list("stats", None).await {
            Ok(stats) => traffic::table(&traffic::rows(&stats)),
            // A control plane that restarts does not answer; the mesh goes on without it.
            Err(_) => "the control plane does not answer".dimmed().to_string(),
        }
    }

    fn draw(&self, users: &str, table: &str) {
        self.wipe();
        let text = format!("\n{}\n{users}\n\n{table}\n", self.now.borrow().bold());
        out::say(text.trim_end());
        self.drawn.set(rows_of_text(text.trim_end(), out::width()));
    }

    /// Takes the live table off the terminal, so that what follows stands in its place.
    fn wipe(&self) {
        let lines = self.drawn.take();
        if lines > 0 {
            let mut terminal = anstream::stdout();
            let _ = write!(terminal, "\x1b[{lines}A\x1b[0J");
            let _ = terminal.flush();
        }
    }
}

/// How fast a count grows.
#[derive(Debug, Default)]
struct Rate {
    last: Option<(Instant, u64)>,
}

impl Rate {
    fn of(&mut self, count: u64) -> f64 {
        let now = Instant::now();
        let rate = self.last.map_or(0.0, |(then, before)| {
            let seconds = now.duration_since(then).as_secs_f64().max(0.001);
            count.saturating_sub(before) as f64 / seconds
        });
        self.last = Some((now, count));
        rate
    }
}

/// A step that ended, with each of its claims.
fn told(step: &Step) -> String {
    let mark = |held: bool| if held { "✔".green().to_string() } else { "✘".red().to_string() };
    let claims = step.claims.iter().map(|claim| {
        let seen = format!("({})", claim.seen);
        format!("    {} {} {}", mark(claim.held), claim.says, seen.dimmed())
    });
    let head = format!("{} {}", mark(step.held()), step.name.bold());
    std::iter::once(head).chain(claims).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::claims::Claim;
    use crate::demo::load::Tally;

    #[test]
    fn a_step_is_told_with_its_claims_and_what_was_seen() {
        let claims = vec![Claim::new("no request failed", false, "1 of 9 failed")];
        let step = Step { name: "a restart".into(), tally: Tally::default(), claims };
        let plain = anstream::adapter::strip_str(&told(&step)).to_string();
        assert_eq!(plain, "✘ a restart\n    ✘ no request failed (1 of 9 failed)");
    }
}
