//! `outrigger-proxy ready [ADDRESS]`: asks the sidecar beside it whether it serves, and ends with 0 if so.
//!
//! For health checks of containers, in an image that has no other program. Blocking, with bounds, and without a runtime.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Where the sidecar's admin pages are, unless it is said.
const ADMIN: &str = "127.0.0.1:15000";
/// For each of connecting, asking and being answered.
const PATIENCE: Duration = Duration::from_secs(2);
/// As much of the answer as is told.
const MOST: u64 = 4096;

/// What was asked, where the words after the program's name ask for it.
pub fn asked(mut words: impl Iterator<Item = String>) -> Option<Result<(), String>> {
    if words.next().as_deref() != Some("ready") {
        return None;
    }
    let address = words.next().unwrap_or_else(|| ADMIN.to_owned());
    if words.next().is_some() {
        return Some(Err("write: outrigger-proxy ready [ADDRESS]".into()));
    }
    Some(match address.parse() {
        Ok(address) => ask(address).map_err(|why| format!("{address}: {why}")),
        Err(_) => Err(format!("{address:?} is no address: write {ADMIN}")),
    })
}

fn ask(address: SocketAddr) -> Result<(), String> {
    let told = |e: std::io::Error| e.to_string();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(told)?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .map_err(told)?;
    let question = format!("GET /ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).map_err(told)?;
    let mut answer = vec![];
    stream.take(MOST).read_to_end(&mut answer).map_err(told)?;
    let answer = String::from_utf8_lossy(&answer);
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or(&*answer, |(_, body)| body);
    Err(format!("not ready: {}", body.trim()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What is said of a sidecar that answers so.
    fn of(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let sidecar = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = [0; 1024];
            let read = stream.read(&mut question).unwrap();
            assert!(question[..read].starts_with(b"GET /ready "));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let told = asked(["ready".to_owned(), address].into_iter()).unwrap();
        sidecar.join().unwrap();
        told
    }

    #[test]
    fn a_sidecar_is_asked_whether_it_serves() {
        assert_eq!(of("HTTP/1.1 200 OK\r\n\r\nready"), Ok(()));
        assert!(
            of("HTTP/1.1 503 Service Unavailable\r\n\r\nnot registered")
                .unwrap_err()
                .ends_with("not registered")
        );
        let words = |words: &[&str]| {
            asked(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>().into_iter())
        };
        assert!(words(&["--service", "cart"]).is_none());
        assert!(words(&["ready", "here"]).unwrap().is_err());
        assert!(words(&["ready", "127.0.0.1:1"]).unwrap().is_err(), "nobody is there");
    }
}
