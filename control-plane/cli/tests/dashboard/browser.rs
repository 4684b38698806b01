//! A headless Chromium, driven through a small program of ours over Playwright (`browser/driver.mjs`).
//!
//! It is asked in commands that people would use: go there, see that text, press that button. It has no network but the origin it
//! opens; what it asks for elsewhere is refused and told. Dropped, it ends.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use outrigger_testkit::real;
use serde_json::{Value, json};

/// A browser and the page that is open in it.
pub(crate) struct Browser {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Browser {
    /// Starts one. `None` where it can not be had, which fails the gate.
    pub(crate) fn start() -> Option<Self> {
        let browser = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dashboard/browser");
        let modules = real::npm(&browser)?;
        real::program("chromium", &["chromium"])?;
        let mut child = Command::new("node")
            .arg(browser.join("driver.mjs"))
            .arg(&modules)
            .arg("/usr/bin/chromium")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let (to, from) = (child.stdin.take(), child.stdout.take().unwrap());
        Some(Self { child, to, from: BufReader::new(from) })
    }

    /// One command, and what it told. What can not be done fails the test with the words of the driver.
    pub(crate) fn does(&mut self, does: &str, rest: Value) -> Value {
        let mut command = rest;
        command["does"] = does.into();
        self.hears(&command).expect("the driver hears");
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        let mut answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|e| panic!("the driver ended: {e}: {line}"));
        if let Some(failed) = answer["failed"].as_str() {
            let shot = artefacts().join("failed.png");
            eprintln!("what was on the page is in {}", shot.display());
            let look = json!({ "does": "shot", "path": shot });
            let _told = self.hears(&look).and_then(|()| self.from.read_line(&mut line));
            panic!("{failed}");
        }
        answer["told"].take()
    }

    fn hears(&mut self, command: &Value) -> std::io::Result<()> {
        writeln!(self.to.as_mut().expect("it runs"), "{command}")
    }

    pub(crate) fn open(&mut self, url: &str) {
        self.does("open", json!({ "url": url }));
    }

    /// Goes to a page, as a link to it would.
    pub(crate) fn go(&mut self, to: &str) {
        self.does("go", json!({ "to": to }));
    }

    /// Waits until the text is to be seen somewhere.
    pub(crate) fn sees(&mut self, text: &str) {
        self.does("see", json!({ "text": text }));
    }

    /// Waits until the text is to be seen in the part of the page with this heading.
    pub(crate) fn sees_in(&mut self, within: &str, text: &str) {
        self.does("see", json!({ "text": text, "within": within }));
    }

    /// Presses a button.
    pub(crate) fn presses(&mut self, name: &str) {
        self.does("click", json!({ "name": name }));
    }

    /// Follows a link.
    pub(crate) fn follows(&mut self, name: &str) {
        self.does("click", json!({ "role": "link", "name": name }));
    }

    pub(crate) fn fills(&mut self, label: &str, value: &str) {
        self.does("fill", json!({ "label": label, "value": value }));
    }

    /// Keeps what is to be seen as a picture.
    pub(crate) fn shot(&mut self, name: &str) {
        self.does("shot", json!({ "path": artefacts().join(format!("{name}.png")) }));
    }

    /// Nothing was thrown, nothing was forbidden by the policy of the page, and nothing was asked of another place.
    pub(crate) fn did_nothing_amiss(&mut self) {
        assert_eq!(self.does("amiss", json!({})), json!([]));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // With nothing more to hear the driver closes the browser, which takes its profile away.
        drop(self.to.take());
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Where pictures are kept: beside what was built.
pub(crate) fn artefacts() -> PathBuf {
    let folder = real::target().join("dashboard");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
