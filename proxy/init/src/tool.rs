//! Running a program of the system: separate arguments, input on its standard input, an end to patience.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Why a program did not do it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is")]
pub enum ToolError {
    #[error("{0} is not installed")]
    Missing(String),
    #[error("{program} failed: {said}")]
    Failed { program: String, said: String },
    #[error("{program} did not end within {} s", PATIENCE.as_secs())]
    Late { program: String },
    #[error("{program} can not be run: {source}")]
    System { program: String, source: io::Error },
}

impl ToolError {
    /// Whether it is not there at all.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(_))
    }
}

/// Runs `program` and returns what it wrote. What it wrote to standard error is told if it fails.
pub fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, ToolError> {
    let system = |source| ToolError::System { program: program.into(), source };
    let child = Command::new(program)
        .args(arguments)
        .env("PATH", path())
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ToolError::Missing(program.into())),
        Err(e) => return Err(system(e)),
    };
    // Each pipe by itself: a program may fill one while it waits for another.
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = input.to_owned();
    // A program that does not want its input tells why in its own words.
    let writer = thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(input.as_bytes())));
    let out = thread::spawn(move || all_of(stdout));
    let err = thread::spawn(move || all_of(stderr));
    let ended = wait(&mut child).map_err(system)?;
    let _written = writer.join();
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    match ended {
        None => Err(ToolError::Late { program: program.into() }),
        Some(true) => Ok(out),
        Some(false) => {
            let said = err.split_whitespace().collect::<Vec<_>>().join(" ");
            let said = if said.is_empty() { "it did not say why".into() } else { said };
            Err(ToolError::Failed { program: program.into(), said })
        }
    }
}

/// Whether it ended well; `None` if it had to be killed.
fn wait(child: &mut Child) -> io::Result<Option<bool>> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

fn all_of(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let _what_came = pipe.take(MOST_OUTPUT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Packet filters live where the path of an ordinary user does not lead.
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(if path.is_empty() { "" } else { ":" });
    path.push("/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

/// Longer than an iptables waits for the lock of another, and than a kernel takes over its tables on a node that is all busy:
/// who waits has rules in the end, who gives up begins again.
const PATIENCE: Duration = Duration::from_secs(60);
const MOST_OUTPUT: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_its_input_and_gives_its_output() {
        assert_eq!(run("cat", &["-"], "as it is").unwrap(), "as it is");
    }

    #[test]
    fn one_that_fails_says_why_and_one_that_is_missing_is_told_from_it() {
        let failed = run("ls", &["/no/such/place"], "").unwrap_err();
        assert!(failed.to_string().contains("/no/such/place") && !failed.is_missing(), "{failed}");
        assert!(run("no-such-program", &[], "").unwrap_err().is_missing());
    }
}
