//! Where a rollout that is watched is shown: drawn over itself on a terminal, else a line or an object for each change.
//!
//! How it is drawn is elsewhere (`drawn`).

use serde_json::Value;

use super::show;
use crate::drawn::Drawn;
use crate::out::{self, Format};

/// Where one that is watched is shown.
pub(super) struct Screen {
    kind: Kind,
    format: Format,
    /// What was shown last.
    last: String,
}

enum Kind {
    /// Drawn over itself.
    Drawn(Drawn),
    /// One after the other.
    Lines,
}

impl Screen {
    pub(super) fn new(format: Format) -> Self {
        let drawn = format == Format::Table && out::on_terminal() && out::can_be_drawn_on();
        let kind = if drawn { Kind::Drawn(Drawn::default()) } else { Kind::Lines };
        Self { kind, format, last: String::new() }
    }

    /// Shows it as it is now; `ended`: it will not be drawn over any more.
    pub(super) fn draw(&mut self, rollout: &Value, ended: bool) {
        match &mut self.kind {
            Kind::Drawn(drawn) => {
                let whole = show::whole(rollout, out::size().0);
                if ended { drawn.end(&whole) } else { drawn.draw(&whole) }
            }
            Kind::Lines => {
                let status = &rollout["status"];
                let now = format!("{}{}{}", status["phase"], status["weight"], status["why"]);
                if now == std::mem::replace(&mut self.last, now.clone()) {
                    return;
                }
                match self.format {
                    Format::Table | Format::Yaml => out::say(show::line(rollout)),
                    Format::Json => out::say(rollout.to_string()),
                }
            }
        }
    }

    /// Tells that nobody answers, once until somebody does.
    pub(super) fn away(&mut self, why: &str) {
        if self.last != why {
            why.clone_into(&mut self.last);
            out::warn(why);
            if let Kind::Drawn(drawn) = &mut self.kind {
                drawn.leave();
            }
        }
    }
}
