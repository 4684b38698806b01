//! A small client of name servers, for what applications see.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Asks one server, over UDP or over one TCP connection.
#[derive(Debug)]
pub struct DnsClient(Way);

#[derive(Debug)]
enum Way {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

/// An answer, as texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsAnswer {
    /// The response code in words.
    pub code: String,
    /// The data of the answer's records.
    pub records: Vec<String>,
    /// The time to live of the first.
    pub ttl: Option<u32>,
    /// Whether there is a start of authority, as negative answers need.
    pub soa: bool,
    /// Whether it is cut.
    pub truncated: bool,
}

impl DnsClient {
    /// Over UDP.
    pub async fn udp(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        socket.connect(server).await.expect("an address");
        Self(Way::Udp(socket))
    }

    /// Over TCP.
    pub async fn tcp(server: SocketAddr) -> Self {
        Self(Way::Tcp(TcpStream::connect(server).await.expect("a connection")))
    }

    /// Asks for `kind` (`A`, `PTR`) of `name`; `None` when there is no answer.
    pub async fn ask(&mut self, name: &str, kind: &str) -> Option<DnsAnswer> {
        let question = dns_question(4_242, name, kind, None);
        // A machine that is busy must not fail a test: silence is told by `send`, which waits for less.
        let bytes = self.send_within(&question, PATIENCE).await?;
        let message = Message::from_vec(&bytes).expect("a message");
        assert_eq!(message.metadata.id, 4_242);
        Some(DnsAnswer {
            code: message.metadata.response_code.to_string(),
            records: message.answers.iter().map(|r| r.data.to_string()).collect(),
            ttl: message.answers.first().map(|r| r.ttl),
            soa: message.authorities.iter().any(|r| r.record_type() == RecordType::SOA),
            truncated: message.metadata.truncation,
        })
    }

    /// Sends bytes and waits a little for an answer.
    pub async fn send(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.send_within(bytes, SILENCE).await
    }

    async fn send_within(&mut self, bytes: &[u8], limit: Duration) -> Option<Vec<u8>> {
        match &mut self.0 {
            Way::Udp(socket) => {
                socket.send(bytes).await.expect("sent");
                let mut buffer = vec![0; 65_535];
                let length = timeout(limit, socket.recv(&mut buffer)).await.ok()?.expect("received");
                buffer.truncate(length);
                Some(buffer)
            }
            Way::Tcp(stream) => {
                let length = u16::try_from(bytes.len()).expect("a short question");
                stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await.ok()?;
                let length = timeout(limit, stream.read_u16()).await.ok()?.ok()?;
                let mut buffer = vec![0; usize::from(length)];
                stream.read_exact(&mut buffer).await.ok()?;
                Some(buffer)
            }
        }
    }
}

/// A question as bytes, with an option record that offers `payload` where that is given.
pub fn dns_question(id: u16, name: &str, kind: &str, payload: Option<u16>) -> Vec<u8> {
    let mut name = Name::from_ascii(name).expect("a name");
    name.set_fqdn(true);
    let mut message = Message::query();
    message.metadata.id = id;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, RecordType::from_str(kind).expect("a record type")));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().expect("a message")
}

const PATIENCE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_millis(500);
