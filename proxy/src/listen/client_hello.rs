//! The beginning of somebody else's TLS: which host it names, and whether it is another sidecar's.
//!
//! Only what decides where the bytes go is read, and nothing is believed: the handshake itself is between others. RFC
//! 8446 (4.1.2, 5.1), RFC 6066 (3), RFC 7301 (3.1).

use outrigger_mesh::Hostname;

/// What a ClientHello says of where it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The host it names, where it names one that can be a host of ours.
    pub server_name: Option<Hostname>,
    /// Whether it offers what only sidecars speak, or names the mesh as others do who are of it.
    pub mesh: bool,
}

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The beginning of a ClientHello.
    Part,
    /// A whole one.
    Whole(ClientHello),
    /// Not a ClientHello, or one that is broken or too long.
    Broken,
}

/// The longest ClientHello, its records included. With post-quantum key shares they have about 2 KiB.
pub const LONGEST: usize = 16 * 1024;

/// Reads the beginning of a connection.
pub fn read(bytes: &[u8]) -> Read {
    if bytes.len() > LONGEST {
        return Read::Broken;
    }
    match message(bytes) {
        Ok(Some(body)) => parse(&body).map_or(Read::Broken, Read::Whole),
        Ok(None) if bytes.len() == LONGEST => Read::Broken,
        Ok(None) => Read::Part,
        Err(NotTls) => Read::Broken,
    }
}

/// Whether the bytes begin a TLS handshake, as far as they go. A few decide.
pub fn begins(bytes: &[u8]) -> bool {
    let fits = |at: usize, allowed: &dyn Fn(u8) -> bool| bytes.get(at).is_none_or(|b| allowed(*b));
    fits(0, &|b| b == HANDSHAKE)
        && fits(1, &|b| b == MAJOR)
        && fits(2, &|b| b <= 4)
        && fits(3, &|b| b <= 0x40)
        && fits(5, &|b| b == CLIENT_HELLO)
}

/// How many bytes [`begins`] looks at.
pub const DECIDES: usize = 6;

struct NotTls;

/// The body of the ClientHello, put together from its records; `None` while there is more to come.
fn message(bytes: &[u8]) -> Result<Option<Vec<u8>>, NotTls> {
    let mut rest = Cursor(bytes);
    let mut message = Vec::new();
    while !rest.0.is_empty() {
        if !begins(rest.0) && (message.is_empty() || rest.0[0] != HANDSHAKE) {
            return Err(NotTls);
        }
        let Some(head) = rest.take(5) else { break };
        let len = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if head[0] != HANDSHAKE || head[1] != MAJOR || len == 0 || len > LONGEST_RECORD {
            return Err(NotTls);
        }
        let there = rest.0.len().min(len);
        message.extend_from_slice(rest.take(there).unwrap_or_default());
        if let [kind, a, b, c, body @ ..] = &message[..] {
            let len = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if *kind != CLIENT_HELLO || len > LONGEST {
                return Err(NotTls);
            }
            if let Some(body) = body.get(..len) {
                return Ok(Some(body.to_vec()));
            }
        }
        if there < len {
            break;
        }
    }
    Ok(None)
}

fn parse(body: &[u8]) -> Option<ClientHello> {
    let mut hello = Cursor(body);
    hello.take(2 + 32)?;
    let _session = hello.short_list()?;
    let _suites = hello.list()?;
    let _compression = hello.short_list()?;
    let mut found = ClientHello::default();
    if hello.0.is_empty() {
        return Some(found); // SSL 3 had no extensions.
    }
    let mut extensions = Cursor(hello.list()?);
    let (mut names, mut protocols) = (0, 0);
    while !extensions.0.is_empty() {
        let (kind, data) = (extensions.number()?, extensions.list()?);
        match kind {
            SERVER_NAME => {
                names += 1;
                found.server_name = server_name(data).ok()?;
            }
            ALPN => {
                protocols += 1;
                found.mesh = offers_mesh(data)?;
            }
            _ => {}
        }
    }
    found.mesh |= found.server_name.as_ref().is_some_and(|name| outrigger_certs::is_mesh_name(name.as_str()));
    // Twice would have two readings.
    (hello.0.is_empty() && names <= 1 && protocols <= 1).then_some(found)
}

/// `Err` where it has no single reading.
fn server_name(data: &[u8]) -> Result<Option<Hostname>, NotTls> {
    let broken = || NotTls;
    let mut outer = Cursor(data);
    let mut list = Cursor(outer.list().ok_or_else(broken)?);
    let (mut host, mut hosts) = (None, 0);
    while !list.0.is_empty() {
        let kind = list.take(1).ok_or_else(broken)?[0];
        let name = list.list().ok_or_else(broken)?;
        if kind == HOST_NAME {
            hosts += 1;
            // An address, or a name with a dot at its end, is not allowed here; it then counts as no name.
            host = std::str::from_utf8(name)
                .ok()
                .filter(|n| !n.ends_with('.') && n.parse::<std::net::IpAddr>().is_err())
                .and_then(|n| Hostname::new(n).ok());
        }
    }
    if outer.0.is_empty() && hosts <= 1 { Ok(host) } else { Err(NotTls) }
}

fn offers_mesh(data: &[u8]) -> Option<bool> {
    let mut outer = Cursor(data);
    let mut list = Cursor(outer.list()?);
    let mut mesh = false;
    while !list.0.is_empty() {
        mesh |= list.short_list()?.starts_with(b"outrigger-");
    }
    outer.0.is_empty().then_some(mesh)
}

/// What is left to read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    /// What a length of two bytes stands before.
    fn list(&mut self) -> Option<&'a [u8]> {
        let len = self.number()?;
        self.take(len.into())
    }

    /// What a length of one byte stands before.
    fn short_list(&mut self) -> Option<&'a [u8]> {
        let len = self.take(1)?[0];
        self.take(len.into())
    }
}

pub(super) const HANDSHAKE: u8 = 0x16;
const MAJOR: u8 = 3;
const CLIENT_HELLO: u8 = 1;
const LONGEST_RECORD: usize = 1 << 14;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const ALPN: u16 = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A hello with these extensions, in records of at most `size`.
    fn hello(extensions: &[(u16, Vec<u8>)], size: usize) -> Vec<u8> {
        let two = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
        let mut all = Vec::new();
        for (kind, data) in extensions {
            all.extend(kind.to_be_bytes());
            all.extend(two(data.len()));
            all.extend(data);
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(two(all.len()));
        body.extend(all);
        let mut message = vec![CLIENT_HELLO, 0];
        message.extend(two(body.len()));
        message.extend(body);
        let record = |part: &[u8]| [&[HANDSHAKE, 3, 1][..], &two(part.len()), part].concat();
        message.chunks(size).flat_map(record).collect()
    }

    fn named(name: &[u8]) -> (u16, Vec<u8>) {
        let two = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
        let entry = [&[HOST_NAME][..], &two(name.len()), name].concat();
        (SERVER_NAME, [&two(entry.len())[..], &entry].concat())
    }

    fn offering(protocol: &[u8]) -> (u16, Vec<u8>) {
        let entry = [&[u8::try_from(protocol.len()).unwrap()][..], protocol].concat();
        (ALPN, [&u16::try_from(entry.len()).unwrap().to_be_bytes()[..], &entry].concat())
    }

    fn name_of(bytes: &[u8]) -> Option<String> {
        match read(bytes) {
            Read::Whole(hello) => hello.server_name.map(|n| n.to_string()),
            Read::Part | Read::Broken => panic!("not a whole hello"),
        }
    }

    #[test]
    fn the_name_and_the_protocols_of_the_mesh_are_seen() {
        let bytes = hello(&[(43, vec![1, 2]), named(b"DB.shop.mesh"), offering(b"outrigger-tcp")], 9_000);
        let whole = Read::Whole(ClientHello {
            server_name: Some(Hostname::new("db.shop.mesh").unwrap()),
            mesh: true,
        });
        assert_eq!(read(&bytes), whole);
        assert_eq!(name_of(&hello(&[offering(b"h2")], 9_000)), None);
        assert_eq!(name_of(&hello(&[named(b"10.0.0.1")], 9_000)), None);
        assert_eq!(name_of(&hello(&[named(b"db.shop.mesh.")], 9_000)), None);
    }

    #[test]
    fn what_has_two_readings_or_is_no_hello_is_refused() {
        let twice = hello(&[named(b"a.b"), named(b"c.d")], 9_000);
        let long = hello(&[(9, vec![0; 15_000]), (10, vec![0; 2_000])], 9_000);
        let short = hello(&[(SERVER_NAME, vec![0, 9, 0])], 9_000);
        for bytes in [
            &twice[..],
            &long,
            &short,
            b"GET / HTTP/1.1\r\n",
            &[HANDSHAKE, 2, 0],
            &[HANDSHAKE, 3, 1, 0, 0, 1],
        ] {
            assert_eq!(read(bytes), Read::Broken, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_and_more_bytes_never_unmake_a_verdict(
            bytes in prop::collection::vec(any::<u8>(), 0..200), tls in any::<bool>(),
        ) {
            let bytes = if tls { [&[HANDSHAKE, 3, 1, 0, 90, 1, 0, 0, 80][..], &bytes].concat() } else { bytes };
            let mut verdict = Read::Part;
            for end in 0..=bytes.len() {
                let now = read(&bytes[..end]);
                prop_assert!(verdict == Read::Part || now == verdict, "{verdict:?} then {now:?}");
                verdict = now;
            }
        }

        #[test]
        fn what_is_looked_at_is_enough_for_a_verdict(fill in any::<u8>(), size in 1_usize..20_000, more in 0_usize..40_000) {
            // A hello that is longer than any is looked at, cut into records of any size.
            let bytes = hello(&[(43, vec![fill; LONGEST]), named(b"db.shop.mesh"), (44, vec![fill; more % 20_000])], size);
            prop_assert_ne!(read(&bytes[..LONGEST]), Read::Part);
        }

        #[test]
        fn a_hello_reads_the_same_however_it_is_cut(size in 1_usize..300, cut in any::<prop::sample::Index>()) {
            let bytes = hello(&[(43, vec![5; 150]), named(b"db.shop.mesh"), offering(b"x")], size);
            prop_assert_eq!(name_of(&bytes), Some("db.shop.mesh".to_owned()));
            prop_assert_eq!(read(&bytes[..cut.index(bytes.len())]), Read::Part);
            let more = [&bytes[..], b"what comes after"].concat();
            prop_assert_eq!(name_of(&more), Some("db.shop.mesh".to_owned()));
        }
    }
}
