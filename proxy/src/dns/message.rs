//! Reading questions and writing answers. Pure: bytes in, bytes out; whatever comes in, nothing panics.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{PTR, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use outrigger_mesh::Hostname;

/// A question that can be answered.
#[derive(Clone, Debug)]
pub struct Asked {
    message: Message,
    query: Query,
}

/// What bytes from a client are.
#[derive(Debug)]
pub enum Input {
    /// A question.
    Asked(Box<Asked>),
    /// Something that is refused, with this answer.
    Refused(Vec<u8>),
    /// Nothing that is answered: an answer to an answer could go on for ever.
    Ignored,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name of an address.
    Ptr,
    /// What may carry addresses of its own (HTTPS, SVCB) or stands for everything (ANY): it must not lead around the
    /// addresses that are told here.
    Around,
    /// Anything else.
    Other,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// These addresses.
    Addresses(Vec<IpAddr>),
    /// This name.
    Name(Hostname),
    /// The name is there, but nothing of the kind.
    Nothing,
    /// There is no such name.
    Unknown,
    /// It can not be said now.
    Failed,
}

/// Reads what a client sent.
pub fn read(bytes: &[u8]) -> Input {
    // A header is 12 bytes, the first bit of the third says that this is an answer.
    let (Some(flags), 12..) = (bytes.get(2), bytes.len()) else { return Input::Ignored };
    if flags & 0x80 != 0 {
        return Input::Ignored;
    }
    let id = u16::from_be_bytes([bytes[0], bytes[1]]);
    let refused = |code| Input::Refused(bytes_of(&Message::error_msg(id, OpCode::Query, code)));
    let Ok(message) = Message::from_vec(bytes) else { return refused(ResponseCode::FormErr) };
    if message.metadata.message_type != MessageType::Query {
        return Input::Ignored;
    }
    if message.metadata.op_code != OpCode::Query {
        return refused(ResponseCode::NotImp);
    }
    let [query] = &message.queries[..] else { return refused(ResponseCode::FormErr) };
    let asked = Asked { query: query.clone(), message };
    if asked.message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Input::Refused(bytes_of(&asked.begin(ResponseCode::BADVERS)));
    }
    if asked.query.query_class() != DNSClass::IN {
        return Input::Refused(bytes_of(&asked.begin(ResponseCode::Refused)));
    }
    Input::Asked(Box::new(asked))
}

impl Asked {
    /// The name, in lower case, without the trailing dot.
    pub fn name(&self) -> String {
        let text = self.query.name().to_lowercase().to_ascii();
        text.strip_suffix('.').map(str::to_owned).unwrap_or(text)
    }

    /// What is asked for.
    pub fn kind(&self) -> Kind {
        match self.query.query_type() {
            RecordType::A => Kind::A,
            RecordType::AAAA => Kind::Aaaa,
            RecordType::PTR => Kind::Ptr,
            RecordType::HTTPS | RecordType::SVCB | RecordType::ANY => Kind::Around,
            _ => Kind::Other,
        }
    }

    /// The address that a reverse name stands for, whole.
    pub fn address(&self) -> Option<IpAddr> {
        let mut name = self.query.name().clone();
        name.set_fqdn(true);
        let net = name.parse_arpa_name().ok()?;
        let whole = if net.addr().is_ipv4() { 32 } else { 128 };
        (net.prefix_len() == whole).then(|| net.addr())
    }

    /// The longest answer that the client takes over UDP.
    pub fn longest(&self) -> usize {
        let told = self.message.edns.as_ref().map_or(SHORT, |edns| usize::from(edns.max_payload()));
        told.max(SHORT)
    }

    /// The answer as bytes. `zone` is the name below which nobody else answers.
    pub fn answer(&self, reply: &Reply, zone: &str) -> Vec<u8> {
        let (code, records) = match reply {
            Reply::Addresses(all) => (ResponseCode::NoError, all.iter().map(|ip| RData::from(*ip)).collect()),
            Reply::Name(name) => (ResponseCode::NoError, ptr(name).into_iter().collect()),
            Reply::Nothing => (ResponseCode::NoError, vec![]),
            Reply::Unknown => (ResponseCode::NXDomain, vec![]),
            Reply::Failed => (ResponseCode::ServFail, vec![]),
        };
        let mut message = self.begin(code);
        message.metadata.authoritative = *reply != Reply::Failed;
        if matches!(reply, Reply::Nothing | Reply::Unknown) {
            message.add_authorities(soa(zone));
        }
        let name = self.query.name();
        message.add_answers(records.into_iter().map(|data| Record::from_rdata(name.clone(), TTL, data)));
        bytes_of(&message)
    }

    /// The answer that says: ask again over TCP.
    pub fn truncated(&self) -> Vec<u8> {
        let mut message = self.begin(ResponseCode::NoError);
        message.metadata.truncation = true;
        bytes_of(&message)
    }

    fn begin(&self, code: ResponseCode) -> Message {
        let mut message = Message::response(self.message.metadata.id, OpCode::Query);
        message.metadata.recursion_desired = self.message.metadata.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_query(self.query.clone());
        if self.message.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD);
            message.set_edns(edns);
        }
        message
    }
}

/// Where the first question ends in a message that [`read`] has taken for one.
pub fn question_end(bytes: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match *bytes.get(at)? {
            0 => break,
            // No question of one has anything before it that it could point to.
            length if length < 0x40 => at += usize::from(length) + 1,
            _ => return None,
        }
    }
    let end = at + 5;
    (end <= bytes.len()).then_some(end)
}

fn ptr(name: &Hostname) -> Option<RData> {
    fqdn(name.as_str()).map(|name| RData::PTR(PTR(name)))
}

fn soa(zone: &str) -> Option<Record> {
    let (server, person) = (fqdn(&format!("ns.{zone}"))?, fqdn(&format!("hostmaster.{zone}"))?);
    let seconds = i32::try_from(TTL).unwrap_or(5);
    let soa = SOA::new(server, person, 1, seconds, seconds, seconds, NEGATIVE_TTL);
    Some(Record::from_rdata(fqdn(zone)?, NEGATIVE_TTL, RData::SOA(soa)))
}

fn fqdn(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Empty for what can not be written, which nobody is sent.
fn bytes_of(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap_or_default()
}

/// How long an address may be kept, in seconds: virtual addresses are stable, names come and go.
pub const TTL: u32 = 5;
/// The same of there being none.
pub const NEGATIVE_TTL: u32 = 1;
/// What every client takes over UDP.
const SHORT: usize = 512;
/// What we take ourselves (DNS Flag Day 2020: no fragments).
const PAYLOAD: u16 = 1_232;
const HEADER: usize = 12;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = 7;
        message.add_query(Query::query(fqdn(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    fn asked(bytes: &[u8]) -> Asked {
        match read(bytes) {
            Input::Asked(asked) => *asked,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_question_is_read_and_its_answers_are_written() {
        let bytes = question("Cart.Shop.Mesh", RecordType::A);
        let cart = asked(&bytes);
        assert_eq!((cart.name().as_str(), cart.kind(), cart.longest()), ("cart.shop.mesh", Kind::A, 512));
        assert_eq!(question_end(&bytes), Some(bytes.len()));
        let reply = Reply::Addresses(vec!["240.0.0.1".parse().unwrap()]);
        let answer = Message::from_vec(&cart.answer(&reply, "mesh")).unwrap();
        assert_eq!((answer.metadata.id, answer.answers.len(), answer.answers[0].ttl), (7, 1, TTL));
        let unknown = Message::from_vec(&cart.answer(&Reply::Unknown, "mesh")).unwrap();
        assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(unknown.authorities[0].record_type(), RecordType::SOA);
    }

    #[test]
    fn reverse_names_are_addresses_when_they_are_whole() {
        let of = |name: &str| asked(&question(name, RecordType::PTR)).address();
        assert_eq!(of("7.0.0.240.in-addr.arpa"), Some("240.0.0.7".parse().unwrap()));
        assert_eq!(of("0.240.in-addr.arpa"), None);
        assert_eq!(of("cart.shop.mesh"), None);
    }

    #[test]
    fn what_is_no_question_is_refused_or_passed_over() {
        let good = question("cart", RecordType::A);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        assert!(matches!(read(&with(2, 0x81)), Input::Ignored), "an answer");
        assert!(matches!(read(&good[..11]), Input::Ignored), "too short for a header");
        let code = |bytes: &[u8]| match read(bytes) {
            Input::Refused(answer) => Message::from_vec(&answer).unwrap().metadata.response_code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(&with(2, 0x28)), ResponseCode::NotImp, "an update");
        assert_eq!(code(&with(5, 0)), ResponseCode::FormErr, "no question");
        assert_eq!(code(&with(5, 2)), ResponseCode::FormErr, "two, of which one is missing");
        assert_eq!(code(&good[..15]), ResponseCode::FormErr, "cut");
        let class = good.len() - 1;
        assert_eq!(code(&with(class, 3)), ResponseCode::Refused, "CHAOS");
    }

    #[test]
    fn a_newer_option_record_is_refused_by_its_version() {
        let mut message = Message::from_vec(&question("cart", RecordType::A)).unwrap();
        let mut edns = Edns::new();
        edns.set_version(1).set_max_payload(1_400);
        message.set_edns(edns);
        let Input::Refused(answer) = read(&message.to_vec().unwrap()) else { panic!("it was taken") };
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.edns.as_ref().map(Edns::rcode_high), Some(1));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _end = question_end(&bytes);
            if let Input::Asked(asked) = read(&bytes) {
                let _all = (asked.name(), asked.kind(), asked.address(), asked.longest(), asked.truncated());
                for reply in [Reply::Nothing, Reply::Unknown, Reply::Failed] {
                    let _bytes = asked.answer(&reply, "mesh");
                }
            }
        }

        #[test]
        fn no_change_to_a_good_question_makes_it_panic(
            name in "([a-zA-Z0-9_]{1,63}\\.){0,3}[a-z]{1,20}", kind in any::<u16>(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = question(&name, RecordType::from(kind));
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            let _end = question_end(&bytes);
            if let Input::Asked(asked) = read(&bytes) {
                let answer = asked.answer(&Reply::Addresses(vec!["240.0.0.1".parse().unwrap()]), "mesh");
                prop_assert!(answer.len() <= SHORT, "{} bytes", answer.len());
                let _address = asked.address();
            }
        }
    }
}
