//! The members of a cluster: which one is asked, and when the next.
//!
//! One member is asked until it does not answer; then the next one is. What a caller may repeat it repeats itself: only
//! it knows what its request does when it arrives twice.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use outrigger_certs::{OutsideAlpn, OutsideConnector, OutsideName, ShownCertificate, certificates_from_pem};
use outrigger_mesh::{Hostname, OutsideRoots};
use outrigger_wire::etcd::{EtcdClient, EtcdError, EtcdErrorKind};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::super::error::{StoreError, StoreErrorKind};
use super::address::{EtcdAddress, EtcdSecrets};

/// The members, and the one that is asked.
pub(super) struct Cluster {
    members: Vec<EtcdClient>,
    at: AtomicUsize,
    secrets: EtcdSecrets,
    place: String,
}

impl Cluster {
    /// Proves the settings; connects to nobody yet.
    pub(super) fn of(address: &EtcdAddress, secrets: &EtcdSecrets) -> Result<Self, StoreError> {
        let place = address.to_string();
        let wrong = |why: String| StoreError::new(StoreErrorKind::Io, &place, why);
        let tls = if address.tls { Some(connector(secrets).map_err(wrong)?) } else { None };
        secrets.user().map_err(wrong)?;
        let mut members = vec![];
        for (host, port) in &address.members {
            let name = name_of(host).ok_or_else(|| wrong(format!("no certificate can be for {host}")))?;
            let (host, port, tls) = (Arc::<str>::from(host.as_str()), *port, tls.clone());
            members.push(EtcdClient::new(CALL_WITHIN, move || {
                connect(Arc::clone(&host), port, tls.clone().map(|tls| (tls, name.clone()))).boxed()
            }));
        }
        Ok(Self { members, at: AtomicUsize::new(0), secrets: secrets.clone(), place })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Asks the member of the moment. When it does not answer, the next call goes to the next.
    pub(super) async fn call<T, F>(&self, work: impl Fn(EtcdClient) -> F) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let at = self.at.load(Ordering::Relaxed);
        let member = &self.members[at % self.members.len()];
        let mut done = work(member.clone()).await;
        if matches!(&done, Err(e) if e.kind == EtcdErrorKind::LoggedOut || self.never_logged_in(e)) {
            done = match self.log_in(member).await {
                Ok(()) => work(member.clone()).await,
                Err(e) => Err(e),
            };
        }
        if matches!(&done, Err(e) if e.kind == EtcdErrorKind::Unavailable) {
            // Of many callers that found the same member silent one moves on.
            let _ = self.at.compare_exchange(at, at + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
        done
    }

    /// Asks one member after the other, until one answers: for what may be asked twice.
    pub(super) async fn ask<T, F>(&self, work: impl Fn(EtcdClient) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let mut tries = 0;
        loop {
            match self.call(&work).await {
                Ok(found) => return Ok(found),
                Err(e) if e.kind == EtcdErrorKind::Unavailable && tries < self.members.len() => {
                    tries += 1;
                    tokio::time::sleep(pause(tries)).await;
                }
                Err(e) => return Err(self.fault(&e)),
            }
        }
    }

    /// An error of etcd as one of the store.
    pub(super) fn fault(&self, e: &EtcdError) -> StoreError {
        let kind = match e.kind {
            EtcdErrorKind::Unavailable => StoreErrorKind::Unavailable,
            EtcdErrorKind::TooLarge => StoreErrorKind::TooLarge,
            EtcdErrorKind::Full => StoreErrorKind::Full,
            EtcdErrorKind::Compacted
            | EtcdErrorKind::LoggedOut
            | EtcdErrorKind::Denied
            | EtcdErrorKind::NoLease
            | EtcdErrorKind::Other => StoreErrorKind::Io,
        };
        self.error(kind, &e.detail)
    }

    pub(super) fn error(&self, kind: StoreErrorKind, detail: impl fmt::Display) -> StoreError {
        StoreError::new(kind, &self.place, detail)
    }

    /// etcd says so of requests that come without a session while it wants one.
    fn never_logged_in(&self, e: &EtcdError) -> bool {
        e.kind == EtcdErrorKind::Denied
            && self.secrets.user.is_some()
            && e.detail.contains("user name is empty")
    }

    async fn log_in(&self, member: &EtcdClient) -> Result<(), EtcdError> {
        let user = self.secrets.user().map_err(|e| EtcdError::new(EtcdErrorKind::Denied, e))?;
        let Some((name, password)) = user else {
            return Err(EtcdError::new(EtcdErrorKind::Denied, "it wants a user, and none is set"));
        };
        member.log_in(&name, &password).await
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

/// How long to wait before the try after `tries` others: longer each time, and never the same for two replicas that lost
/// the same member in the same moment.
pub(super) fn pause(tries: usize) -> Duration {
    let most = FIRST_PAUSE.saturating_mul(1 << tries.min(7)).min(LONGEST_PAUSE);
    let mut byte = [128];
    let _ = getrandom(&mut byte, GetRandomFlags::empty());
    most.mul_f64(0.5 + f64::from(byte[0]) / 512.0)
}

/// What goes over a connection to a member.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(
    host: Arc<str>,
    port: u16,
    tls: Option<(OutsideConnector, OutsideName)>,
) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect((&*host, port)).await?;
    stream.set_nodelay(true)?;
    let Some((connector, name)) = tls else { return Ok(Box::new(stream)) };
    let stream = connector.connect(stream, &name, OutsideAlpn::H2).await.map_err(io::Error::other)?;
    Ok(Box::new(stream))
}

fn connector(secrets: &EtcdSecrets) -> Result<OutsideConnector, String> {
    let roots = match &secrets.roots {
        None => OutsideRoots::System,
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
            let roots = certificates_from_pem(&text).map_err(|e| format!("{}: {e}", file.display()))?;
            OutsideRoots::Only(roots)
        }
    };
    let connector = OutsideConnector::new(&roots).map_err(|e| e.to_string())?;
    let Some((certificate, key)) = &secrets.certificate else { return Ok(connector) };
    Ok(connector.showing(&ShownCertificate::read(certificate, key)?))
}

fn name_of(host: &str) -> Option<OutsideName> {
    match host.parse::<IpAddr>() {
        Ok(ip) => Some(OutsideName::of_address(ip)),
        Err(_) => Hostname::new(host).ok().and_then(|name| OutsideName::of_host(&name)),
    }
}

/// A member that does not answer within this time is not asked again for now.
const CALL_WITHIN: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
