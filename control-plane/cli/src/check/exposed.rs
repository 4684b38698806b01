//! Applications beside a sidecar that listen beyond loopback: whoever reaches this machine goes around the sidecar to them. Where
//! the kernel redirects what arrives nobody can, so those are left out.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use outrigger_inject::manifest::Finding;

/// Looks at every sidecar of this machine whose command line can be read; how many there were.
pub(super) fn find(proc: &Path, findings: &mut Vec<Finding>) -> usize {
    let mut looked = 0;
    for process in fs::read_dir(proc).into_iter().flatten().flatten() {
        let Ok(words) = fs::read(process.path().join("cmdline")) else { continue };
        let Some(port) = port_of(&words) else { continue };
        looked += 1;
        // Of the network that the sidecar is in, which may be one of its own.
        let open: Vec<IpAddr> = ["tcp", "tcp6"]
            .iter()
            .filter_map(|table| fs::read_to_string(process.path().join("net").join(table)).ok())
            .flat_map(|table| listening(&table, port))
            .filter(|ip| !ip.to_canonical().is_loopback())
            .collect();
        for ip in open {
            findings.push(Finding {
                code: "exposed",
                namespace: String::new(),
                object: format!("application at port {port}"),
                message: format!(
                    "it listens at {ip}: whoever reaches this machine goes around the sidecar to it"
                ),
                hint: "let it listen at 127.0.0.1".into(),
            });
        }
    }
    looked
}

/// The application's port in the command line of a sidecar that stands beside it without redirection.
fn port_of(words: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(words);
    let mut words = text.split('\0');
    let is_sidecar = Path::new(words.next()?).file_name()? == "outrigger-proxy";
    let words: Vec<&str> = words.collect();
    let said = |name: &str| {
        let apart = words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1)).copied();
        let together = || words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        apart.or_else(together)
    };
    let redirected = said("--transparent").is_some_and(|how| how != "off");
    if !is_sidecar || redirected {
        return None;
    }
    said("--port")?.parse().ok()
}

/// The addresses at which somebody listens at a port, in a table of the kernel's.
fn listening(table: &str, port: u16) -> Vec<IpAddr> {
    let line = |line: &str| {
        let mut cells = line.split_whitespace();
        let (local, state) = (cells.nth(1)?, cells.nth(1)?);
        let (address, at) = local.split_once(':')?;
        let fits = state == LISTENS && u16::from_str_radix(at, 16).ok()? == port;
        fits.then(|| address_of(address)).flatten()
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// As the kernel writes them: words of four bytes, each in the order of this machine.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut all = [0; 16];
            for (i, part) in all.chunks_mut(4).enumerate() {
                part.copy_from_slice(&word(i * 8)?);
            }
            Some(IpAddr::from(all))
        }
        _ => None,
    }
}

/// TCP_LISTEN.
const LISTENS: &str = "0A";

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_application_that_listens_beyond_loopback_is_found() {
        let (open, near) =
            (TcpListener::bind("0.0.0.0:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        // What the kernel says of this process, under the command line of a sidecar.
        let found = |line: &str| {
            let proc = tempfile::tempdir().unwrap();
            let process = proc.path().join("1");
            fs::create_dir_all(process.join("net")).unwrap();
            fs::write(process.join("cmdline"), line.replace(' ', "\0")).unwrap();
            for table in ["tcp", "tcp6"] {
                let said = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
                fs::write(process.join("net").join(table), said).unwrap();
            }
            let mut findings = vec![];
            let looked = find(proc.path(), &mut findings);
            (looked, findings.into_iter().map(|f| f.message).collect::<Vec<_>>())
        };
        let (looked, told) =
            found(&format!("/usr/bin/outrigger-proxy --service cart --port {}", port(&open)));
        assert!(looked == 1 && told.len() == 1 && told[0].starts_with("it listens at 0.0.0.0"), "{told:?}");
        assert_eq!(found(&format!("outrigger-proxy --port={}", port(&near))), (1, vec![]));
        assert_eq!(found(&format!("outrigger-proxy --transparent redirect --port {}", port(&open))).0, 0);
        assert_eq!(found(&format!("sleep --port {}", port(&open))).0, 0);
    }

    #[test]
    fn addresses_of_the_kernel_are_read() {
        let table = "  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 0\n   1: 00000000:1F90 00000000:0000 01 0\n";
        let expected: Vec<IpAddr> =
            if cfg!(target_endian = "little") { vec!["127.0.0.1".parse().unwrap()] } else { vec![] };
        assert!(expected.is_empty() || listening(table, 8080) == expected);
        let six =
            "  sl\n   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0\n";
        assert_eq!(listening(six, 8080), ["::".parse::<IpAddr>().unwrap()]);
    }
}
