//! Where a rollout that is watched is shown: drawn over itself on a terminal, else a line or an object for each change.
//!
//! On a terminal nothing is switched that would have to be switched back: whoever breaks it off has the last picture above
//! his prompt.

use std::io::Write;

use serde_json::Value;

use super::show;
use crate::out::{self, Format};

/// Where one that is watched is shown.
pub(super) struct Screen {
    kind: Kind,
    format: Format,
    /// What was shown last.
    last: String,
}

enum Kind {
    /// Drawn over itself; the lines that are there now.
    Drawn(Vec<String>),
    /// One after the other.
    Lines,
}

impl Screen {
    pub(super) fn new(format: Format) -> Self {
        let drawn = format == Format::Table && out::on_terminal() && out::can_be_drawn_on();
        let kind = if drawn { Kind::Drawn(vec![]) } else { Kind::Lines };
        Self { kind, format, last: String::new() }
    }

    /// Shows it as it is now; `ended`: it will not be drawn over any more.
    pub(super) fn draw(&mut self, rollout: &Value, ended: bool) {
        match &mut self.kind {
            Kind::Drawn(there) => {
                let (columns, rows) = out::size();
                let now: Vec<String> = show::whole(rollout, columns).lines().map(str::to_owned).collect();
                let now = if ended { now } else { fitted(now, columns, rows) };
                if *there != now {
                    over(there, &now, columns, rows);
                    *there = now;
                }
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
            if let Kind::Drawn(there) = &mut self.kind {
                // What is above the warning stays.
                there.clear();
            }
        }
    }
}

/// Draws `now` in place of what is there, in one piece. A terminal that became narrower has broken the lines anew.
fn over(there: &[String], now: &[String], columns: usize, rows: usize) {
    let up: usize = there.iter().map(|line| show::rows(line, columns)).sum();
    // What has been pushed out above can not be reached.
    let up = up.min(rows.saturating_sub(1));
    let back = if up > 0 { format!("\r\x1b[{up}A\x1b[J") } else { String::new() };
    let text = now.join("\n") + "\n";
    let text = if out::in_colour() { text } else { anstream::adapter::strip_str(&text).to_string() };
    // Not by way of what takes colours off: that would take this off too.
    let mut to = std::io::stdout().lock();
    let _ = to.write_all(format!("{back}{text}").as_bytes());
    let _ = to.flush();
}

/// As much of it as can be drawn over: no line is broken, and the first is never pushed out.
fn fitted(mut lines: Vec<String>, columns: usize, rows: usize) -> Vec<String> {
    let most = rows.saturating_sub(1).max(1);
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            "...".clone_into(last);
        }
    }
    lines.iter().map(|line| clipped(line, columns)).collect()
}

/// The line, cut where the terminal ends. Colours take no room and are ended where it is cut.
fn clipped(line: &str, columns: usize) -> String {
    if show::rows(line, columns) == 1 {
        return line.to_owned();
    }
    let (mut cut, mut shown, mut hidden) = (String::new(), 0, false);
    for c in line.chars() {
        match c {
            '\x1b' => hidden = true,
            'm' if hidden => hidden = false,
            _ if hidden => {}
            _ if shown == columns => continue,
            _ => shown += 1,
        }
        cut.push(c);
    }
    cut
}

#[cfg(test)]
mod tests {
    use owo_colors::OwoColorize;

    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_cut_and_keeps_the_end_of_its_colours() {
        assert_eq!(clipped("abc", 3), "abc");
        assert_eq!(clipped("abcd", 3), "abc");
        assert_eq!(clipped(&format!("a{}", "bcd".green()), 2), format!("a{}", "b".green()));
    }

    #[test]
    fn what_is_drawn_over_is_never_higher_than_the_terminal() {
        let lines: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        assert_eq!(fitted(lines.clone(), 80, 40).len(), 30);
        let low = fitted(lines.clone(), 80, 10);
        assert_eq!((low.len(), low[0].as_str(), low[8].as_str()), (9, "0", "..."));
        assert_eq!(fitted(lines, 80, 1), ["..."]);
    }
}
