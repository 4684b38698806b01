//! The private key of a running process: nowhere in what it writes or answers, and not in a core.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use outrigger_testkit::{Client, Origin, RawClient, eventually};

use super::process_common::Process;

/// Every spelling in which a key could be written: lines of its PEM, its bytes, and those in hex.
struct Marker(Vec<(&'static str, Vec<u8>)>);

impl Marker {
    fn of_key(pem: &str) -> Self {
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        assert!(body.len() > 100, "a key");
        // The scalar lies in the first half of a PKCS#8 key; its text is looked for in pieces, as it may be wrapped anew.
        let mut found: Vec<_> = (48..80).step_by(8).map(|at| ("PEM", body[at..at + 16].into())).collect();
        let bytes = decode(&body);
        let scalar = &bytes[36..68];
        found.push(("bytes", scalar[4..20].to_vec()));
        let hex = |upper: bool| -> Vec<u8> {
            let digit = |b: &u8| if upper { format!("{b:02X}") } else { format!("{b:02x}") };
            scalar[4..20].iter().map(digit).collect::<String>().into()
        };
        found.extend([("hex", hex(false)), ("HEX", hex(true))]);
        let list: Vec<_> = scalar[4..12].iter().map(u8::to_string).collect();
        found.push(("a list of numbers", list.join(", ").into()));
        Self(found)
    }

    fn within(&self, text: &[u8]) -> Option<&'static str> {
        let has = |needle: &[u8]| text.windows(needle.len()).any(|w| w == needle);
        self.0.iter().find(|(_, needle)| has(needle)).map(|(what, _)| *what)
    }
}

fn decode(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<u32> = text
        .bytes()
        .filter_map(|b| ALPHABET.iter().position(|a| *a == b))
        .map(|n| u32::try_from(n).unwrap())
        .collect();
    let mut bytes = Vec::new();
    for four in digits.chunks(4) {
        let word = four.iter().fold(0, |w, d| w << 6 | d) << (6 * (4 - four.len()));
        bytes.extend(&word.to_be_bytes()[1..four.len()]);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_key_is_in_no_log_dump_metric_or_error_of_a_whole_run() {
    let app = Origin::start().await;
    let process = Process::start(app.addr(), "", "--log trace");
    let key = std::fs::read_to_string(process.folder().join("key.pem")).unwrap();
    let marker = Marker::of_key(&key);
    let mut caller = Client::h1(process.outbound).await;
    let mut told = Vec::new();
    for (host, path) in [("cart", "/"), ("nobody", "/"), ("cart", "/..;/x"), ("cart", "/%00")] {
        if let Ok(reply) = caller.get(host, path).await {
            told.extend(format!("{:?}", reply.headers).into_bytes());
            told.extend(&reply.body);
        }
    }
    let mut broken = RawClient::connect(process.outbound).await;
    broken.write("GET / HTTP/9.9\r\nnonsense\r\n\r\n").await;
    told.extend(broken.read_until_silent(Duration::from_millis(300)).await.0);
    // The files are replaced by ones that can not be used, which is an error with a reason.
    std::fs::write(process.folder().join("cert.pem"), &key).unwrap();
    eventually("the error is told", || async { process.log().contains("changed and can not be used") }).await;
    let mut admin = Client::h1(process.admin).await;
    for page in
        ["/", "/ready", "/config_dump", "/clusters", "/policies", "/certs", "/stats/prometheus", "/none"]
    {
        let reply = admin.get("localhost", page).await.unwrap();
        assert!(page == "/none" || reply.status.is_success(), "{page}");
        told.extend(&reply.body);
    }
    let log = process.log();
    assert!(log.contains("can not be used"), "the error was made");
    told.extend(log.as_bytes());
    assert!(told.len() > 10_000, "there is something to search");
    assert_eq!(marker.within(&told), None);
    // The search finds what is there, in every spelling.
    let bytes = decode(&key.lines().filter(|l| !l.starts_with('-')).collect::<String>());
    for planted in [
        key.into_bytes(),
        bytes.clone(),
        format!("{bytes:02x?}").replace(", ", "").into(),
        format!("{bytes:?}").into(),
    ] {
        let mut with = told.clone();
        with.extend(planted);
        assert!(marker.within(&with).is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_process_leaves_no_core_though_its_shell_allows_one() {
    let app = Origin::start().await;
    let mut process = Process::start(app.addr(), "ulimit -c unlimited;", "");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid().as_raw_nonzero())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let ended = process.kill(rustix::process::Signal::ABORT);
    assert_eq!(ended.signal(), Some(6));
    assert!(!ended.core_dumped(), "{ended:?}");
    // The same shell, without us, says whether a core could have been seen here at all.
    let folder = tempfile::tempdir().unwrap();
    let mut control = Command::new("/bin/sh");
    control.args(["-c", "ulimit -c unlimited; kill -ABRT $$"]).current_dir(folder.path());
    if !control.status().unwrap().core_dumped() {
        eprintln!("nobody leaves cores on this machine: only the limits were seen");
    }
}
