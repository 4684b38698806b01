//! The name servers to ask, and how.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, system_conf};
use outrigger_mesh::{Hostname, PortNumber};

use crate::dns::names::{LONGEST_NOTHING, Outcome, Question, SrvHost};

/// The name servers to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    addresses: Vec<SocketAddr>,
    /// Whether they are the system's, whose file of hosts then counts too.
    system: bool,
}

impl Servers {
    /// These, if there are any, else the system's. Read once: a change of the system's takes a restart.
    pub fn new(given: &[SocketAddr]) -> Result<Self, String> {
        if !given.is_empty() {
            return Ok(Self { addresses: given.to_vec(), system: false });
        }
        let (config, _) = system_conf::read_system_conf().map_err(|e| format!("/etc/resolv.conf: {e}"))?;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for server in config.name_servers() {
            let ports = server.connections.iter().map(|connection| connection.port);
            addresses.extend(ports.map(|port| SocketAddr::new(server.ip, port)));
        }
        addresses.dedup();
        Ok(Self { addresses, system: true })
    }

    /// Where they are, in the order of preference.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What asks them.
    pub fn client(&self) -> Client {
        let server = |address: &SocketAddr| {
            let at = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            let connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
            NameServerConfig::new(address.ip(), true, connections)
        };
        let config = ResolverConfig::from_name_servers(self.addresses.iter().map(server).collect());
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options(self.system);
        Client(builder.build().map_err(|e| e.to_string()))
    }
}

fn options(system: bool) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = TIMEOUT;
    options.attempts = 2;
    // What was answered is kept here, with bounds and for longer than the resolver would.
    options.cache_size = 0;
    options.use_hosts_file = if system { ResolveHosts::Auto } else { ResolveHosts::Never };
    options
}

/// Asks name servers.
pub struct Client(Result<Resolver<TokioRuntimeProvider>, String>);

impl Client {
    /// One that can ask nobody, and says why each time.
    pub fn of_nobody(why: String) -> Self {
        Self(Err(why))
    }

    /// Asks. Search domains never apply.
    pub async fn ask(&self, question: &Question) -> Outcome {
        let resolver = match &self.0 {
            Ok(resolver) => resolver,
            Err(why) => return Outcome::Failed(why.clone()),
        };
        let (text, kind) = match question {
            Question::A(name) => (name.as_str(), RecordType::A),
            Question::Aaaa(name) => (name.as_str(), RecordType::AAAA),
            Question::Srv(name) => (name.as_str(), RecordType::SRV),
        };
        let Ok(mut name) = Name::from_ascii(text) else {
            return Outcome::Failed(format!("{text} can not be asked for"));
        };
        name.set_fqdn(true);
        let lookup = match resolver.lookup(name, kind).await {
            Ok(lookup) => lookup,
            Err(error) => return failed(text, &error),
        };
        let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
        let ttl = Duration::from_secs(ttl.into());
        let (mut addresses, mut hosts) = (Vec::new(), Vec::new());
        for record in lookup.answers() {
            match &record.data {
                RData::A(a) if kind == RecordType::A => addresses.push(a.0.into()),
                RData::AAAA(aaaa) if kind == RecordType::AAAA => addresses.push(aaaa.0.into()),
                RData::SRV(srv) => hosts.extend(srv_host(srv)),
                _ => {}
            }
        }
        match kind {
            RecordType::SRV if !hosts.is_empty() => Outcome::Hosts(hosts, ttl),
            _ if !addresses.is_empty() => Outcome::Addresses(addresses, ttl),
            _ => Outcome::Nothing(ttl),
        }
    }
}

/// `None` for the root, which says that there is no such service, and for what no host can be.
fn srv_host(srv: &hickory_resolver::proto::rr::rdata::SRV) -> Option<SrvHost> {
    let host = Hostname::new(&srv.target.to_ascii()).ok()?;
    Some(SrvHost { priority: srv.priority, weight: srv.weight, port: PortNumber::new(srv.port)?, host })
}

fn failed(name: &str, error: &NetError) -> Outcome {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let ttl = none.negative_ttl.map_or(LONGEST_NOTHING, |ttl| Duration::from_secs(ttl.into()));
            Outcome::Nothing(ttl)
        }
        other => Outcome::Failed(format!("{name}: {other}")),
    }
}

/// For one try; a first request waits for two seconds altogether.
const TIMEOUT: Duration = Duration::from_millis(800);
