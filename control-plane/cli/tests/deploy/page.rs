//! The boxes of a page: commands to a shell, and what they are to print.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The boxes of commands of a page, each with what it is to print.
pub(crate) struct Boxes(pub(crate) Vec<(String, String)>);

impl Boxes {
    pub(crate) fn of(page: &str) -> Self {
        let mut boxes: Vec<(String, String)> = Vec::new();
        let mut lines = page.lines();
        while let Some(line) = lines.next() {
            let Some(kind) = line.strip_prefix("```") else { continue };
            let inside: Vec<&str> = lines.by_ref().take_while(|l| *l != "```").collect();
            let inside = format!("{}\n", inside.join("\n"));
            match (kind, boxes.last_mut()) {
                ("sh", _) => boxes.push((inside, String::new())),
                ("text", Some((_, expected))) => *expected = inside,
                _ => panic!("a box of {kind:?}: commands are sh, and what they print is text"),
            }
        }
        Self(boxes)
    }

    /// One script of all of them, after `before`; it marks where the output of each begins.
    pub(crate) fn script(&self, before: &str) -> String {
        let mut script = format!("set -euo pipefail\n{before}\n");
        for (at, (commands, _)) in self.0.iter().enumerate() {
            let _ = write!(script, "echo '{}'\n{commands}", mark(at));
        }
        script
    }

    /// Compares what the script printed with what `page` says.
    pub(crate) fn compare(&self, page: &str, told: &str) {
        for (at, (commands, expected)) in self.0.iter().enumerate() {
            let said = told.split(&mark(at)).nth(1).unwrap_or_default();
            let said = said.split(MARK).next().unwrap_or_default();
            if let Err(why) = agrees(said, expected) {
                panic!("{page}:\n{commands}\n{why}\n--- it printed:\n{said}\n--- all of it:\n{told}");
            }
        }
    }
}

/// What `shell` prints, both ways, into the file `log`. It ends well, and within `limit`.
pub(crate) fn printed(shell: &mut Command, log: &Path, limit: Duration) -> String {
    let out = fs::File::create(log).unwrap();
    let errors = out.try_clone().unwrap();
    let mut shell = shell.stdin(Stdio::null()).stderr(errors).stdout(out).spawn().unwrap();
    let began = Instant::now();
    let ended = loop {
        if let Some(status) = shell.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > limit {
            let _gone = shell.kill();
            let _reaped = shell.wait();
            panic!("the page takes longer than {limit:?}:\n{}", fs::read_to_string(log).unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let told = fs::read_to_string(log).unwrap();
    assert!(ended.success(), "a command of the page fails:\n{told}");
    told
}

/// Line by line; blanks count as one, `…` stands for anything within a line, and as a line for any lines.
fn agrees(said: &str, expected: &str) -> Result<(), String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines = |text: &str| text.lines().map(words).filter(|l| !l.is_empty()).collect::<Vec<_>>();
    let (said, expected) = (lines(said), lines(expected));
    follow(&said, &expected)
}

fn follow(said: &[String], expected: &[String]) -> Result<(), String> {
    match (said, expected) {
        ([], []) => Ok(()),
        (_, [any, rest @ ..]) if any == ANY => {
            let ways = (0..=said.len()).map(|skip| follow(&said[skip..], rest));
            ways.reduce(Result::or).unwrap_or_else(|| Err("nothing follows".into()))
        }
        ([], [line, ..]) => Err(format!("{line:?} is not printed")),
        ([line, ..], []) => Err(format!("{line:?} is not on the page")),
        ([line, said @ ..], [wanted, expected @ ..]) if fits(line, wanted) => follow(said, expected),
        ([line, ..], [wanted, ..]) => Err(format!("{line:?} is printed, and the page has {wanted:?}")),
    }
}

fn fits(line: &str, wanted: &str) -> bool {
    let mut parts = wanted.split(ANY);
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn mark(at: usize) -> String {
    format!("{MARK} {at} --")
}

const MARK: &str = "-- box";
const ANY: &str = "…";

/// What is compared, and how.
#[test]
fn the_comparison_of_what_is_printed_sees_what_differs() {
    assert_eq!(agrees("a  b\nc\n", "a b\nc\n"), Ok(()));
    assert_eq!(agrees("hello-731 v1\n", "hello-… v1\n"), Ok(()));
    assert_eq!(agrees("one\ntwo\nthree\nfour\n", "one\n…\nfour\n"), Ok(()));
    assert!(agrees("a\n", "a\nb\n").is_err());
    assert!(agrees("a\nb\n", "a\n").is_err());
    assert!(agrees("hello-731 v2\n", "hello-… v1\n").is_err());
    assert!(agrees("one\ntwo\n", "one\n…\nthree\n").is_err());
}
