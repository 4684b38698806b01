//! Lines that are drawn over themselves on a terminal.
//!
//! Nothing is switched that would have to be switched back: whoever breaks it off has the last picture above his prompt.

use std::io::Write;

use crate::out;

/// What is drawn over itself.
#[derive(Debug, Default)]
pub(crate) struct Drawn {
    /// The lines that are there now.
    there: Vec<String>,
}

impl Drawn {
    /// Draws `whole` in place of what is there, as much of it as the terminal has room for.
    pub(crate) fn draw(&mut self, whole: &str) {
        let (columns, rows) = out::size();
        self.put(fitted(whole.lines().map(str::to_owned).collect(), columns, rows));
    }

    /// Draws all of `whole`: nothing will be drawn over it.
    pub(crate) fn end(&mut self, whole: &str) {
        self.put(whole.lines().map(str::to_owned).collect());
    }

    /// Leaves what is there, with something else below it.
    pub(crate) fn leave(&mut self) {
        self.there.clear();
    }

    fn put(&mut self, now: Vec<String>) {
        if self.there != now {
            let (columns, rows) = out::size();
            over(&self.there, &now, columns, rows);
            self.there = now;
        }
    }
}

/// Draws `now` in place of what is there, in one piece. A terminal that became narrower has broken the lines anew.
fn over(there: &[String], now: &[String], columns: usize, rows: usize) {
    let up: usize = there.iter().map(|line| rows_of(line, columns)).sum();
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
    if rows_of(line, columns) == 1 {
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

/// How many rows of a terminal a line takes, colours aside.
fn rows_of(line: &str, width: usize) -> usize {
    anstream::adapter::strip_str(line).to_string().chars().count().div_ceil(width.max(1)).max(1)
}

/// How many rows a text takes, with what does not fit into one going on in the next.
pub(crate) fn rows_of_text(text: &str, width: usize) -> usize {
    text.lines().map(|line| rows_of(line, width)).sum()
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
    fn a_line_that_is_too_long_takes_more_rows_and_colours_take_no_room() {
        assert_eq!(rows_of_text("", 10), 0);
        assert_eq!(rows_of_text("a\n\nb", 10), 3);
        assert_eq!(rows_of_text(&"0123456789".bold().to_string(), 10), 1);
        assert_eq!(rows_of_text("0123456789x", 10), 2);
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
