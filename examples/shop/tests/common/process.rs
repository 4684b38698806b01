//! A service as a process of its own, killed at the latest when the test ends.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub struct Process {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Process {
    /// Starts `program` with these variables and none of the shop's that the test's own process may have.
    pub fn start(program: &Path, args: &[&str], env: &[(&str, String)]) -> Self {
        let mut command = Command::new(program);
        for name in ["PORT", "OUTRIGGER_OUTBOUND", "VERSION", "SHOP_DELAY_MS"] {
            command.env_remove(name);
        }
        let mut child = command
            .args(args)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr }
    }

    /// `recommendations`, on a port of the system's choice.
    pub fn recommendations(env: &[(&str, String)]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/recommendations.py");
        // -B: a test leaves no byte code behind in the source tree.
        Self::start(Path::new("python3"), &["-B", script], env)
    }

    /// Waits for the line that says where it listens. Ends with the process, should that fail.
    pub fn address(&mut self) -> SocketAddr {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ");
        address.unwrap_or_else(|| panic!("it said {line:?}")).parse().unwrap()
    }

    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        let killed = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &pid]).status().unwrap();
        assert!(killed.success());
    }

    /// Waits for the end and gives what was said on stderr since the last line read.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + Duration::from_secs(15);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it did not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (status, said)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
