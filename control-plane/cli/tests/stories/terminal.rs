//! A terminal for programs that draw: a pseudo-terminal, and a screen that does what they write.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A program at a terminal.
pub(crate) struct Terminal {
    child: Child,
    ours: File,
    screen: Arc<Mutex<Screen>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Terminal {
    pub(crate) fn run(mut command: Command, columns: u16, rows: u16, env: &[(&str, &str)]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
        let theirs = theirs.unwrap();
        let ours = File::from(ours);
        set_size(&ours, columns, rows);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").env_remove("COLUMNS");
        command.envs(env.iter().copied());
        command.stdin(Stdio::null()).stdout(theirs.try_clone().unwrap()).stderr(theirs);
        let child = command.spawn().unwrap();
        // It holds the other end: without it, reading would never come to an end.
        drop(command);
        let screen = Arc::new(Mutex::new(Screen::new(columns, rows)));
        let (mut from, to) = (ours.try_clone().unwrap(), Arc::clone(&screen));
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                to.lock().unwrap().take(&bytes[..count]);
            }
        });
        Self { child, ours, screen, reader: Some(reader) }
    }

    /// What stands there, from the first line that was ever written.
    pub(crate) fn text(&self) -> String {
        self.screen.lock().unwrap().text()
    }

    /// Everything that was written, as it was written.
    pub(crate) fn written(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap().written).into_owned()
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let mut screen = self.screen.lock().unwrap();
        set_size(&self.ours, columns, rows);
        screen.resize(columns, rows);
    }

    pub(crate) fn until(&self, what: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.text().contains(what) {
            assert!(Instant::now() < end, "{what} does not come:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What Ctrl-C sends.
    pub(crate) fn interrupt(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    /// Waits until the program has ended and everything that it wrote stands there.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "it does not end:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        };
        self.reader.take().unwrap().join().unwrap();
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_size(terminal: &File, columns: u16, rows: u16) {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

/// Letters, new lines, the cursor's way up, and the clearing of what is below it. Colours are passed over.
struct Screen {
    columns: usize,
    rows: usize,
    lines: Vec<String>,
    /// Line and column of the cursor.
    at: (usize, usize),
    /// What has come of a sequence that is not over.
    sequence: Option<String>,
    written: Vec<u8>,
}

impl Screen {
    fn new(columns: u16, rows: u16) -> Self {
        let (columns, rows) = (columns.into(), rows.into());
        Self { columns, rows, lines: vec![String::new()], at: (0, 0), sequence: None, written: vec![] }
    }

    fn text(&self) -> String {
        self.lines.join("\n")
    }

    fn take(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
        // The programs that are tried here write nothing but ASCII.
        for byte in bytes {
            self.one(char::from(*byte));
        }
    }

    fn one(&mut self, c: char) {
        if let Some(sequence) = &mut self.sequence {
            sequence.push(c);
            if c.is_ascii_alphabetic() {
                let sequence = self.sequence.take().unwrap();
                self.obey(&sequence);
            }
            return;
        }
        match c {
            '\x1b' => self.sequence = Some(String::new()),
            '\r' => self.at.1 = 0,
            '\n' => self.down(),
            c => {
                if self.at.1 == self.columns {
                    self.down();
                    self.at.1 = 0;
                }
                let line = &mut self.lines[self.at.0];
                line.truncate(self.at.1);
                line.push(c);
                self.at.1 += 1;
            }
        }
    }

    fn down(&mut self) {
        self.at.0 += 1;
        if self.at.0 == self.lines.len() {
            self.lines.push(String::new());
        }
    }

    fn obey(&mut self, sequence: &str) {
        let (count, what) = sequence[1..].split_at(sequence.len() - 2);
        match what {
            "m" => {}
            "A" => {
                let top = self.lines.len().saturating_sub(self.rows);
                self.at.0 = self.at.0.saturating_sub(count.parse().unwrap()).max(top);
            }
            "J" => {
                self.lines.truncate(self.at.0 + 1);
                self.lines[self.at.0].truncate(self.at.1);
            }
            _ => panic!("nobody expects {sequence:?}"),
        }
    }

    /// As terminals do that break their lines anew.
    fn resize(&mut self, columns: u16, rows: u16) {
        (self.columns, self.rows) = (columns.into(), rows.into());
        let mut lines = vec![];
        for (number, line) in std::mem::take(&mut self.lines).into_iter().enumerate() {
            if number == self.at.0 {
                self.at.0 = lines.len();
            }
            let letters: Vec<char> = line.chars().collect();
            let broken = letters.chunks(self.columns).map(|part| part.iter().collect());
            lines.extend(broken.chain(letters.is_empty().then(String::new)));
        }
        self.lines = lines;
    }
}
