//! Tokens of the mesh for calls to services that want them so: asked of the control plane, remembered for each pair of a
//! token and a destination.
//!
//! Whoever is first asks, everybody else waits for the same answer; before an answer is over it is asked for anew, while
//! the old one goes on. Nobody waits longer than [`PATIENCE`], and what failed is not asked again at once. The calls
//! themselves are made beside the workers, by [`Asker`].

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use outrigger_mesh::{Reason, ServiceName};
use outrigger_wire::rpc::{ExchangeRequest, RpcErrorKind};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::{Verified, gate};
use crate::config::dial::Control;
use crate::error::Error;
use crate::live::Live;

/// What was exchanged, and what is being.
#[derive(Default)]
pub struct Exchanges {
    table: Mutex<Table>,
    asks: OnceLock<mpsc::Sender<Ask>>,
    counts: Counts,
}

/// A token of the mesh. Never to be shown.
pub struct Exchanged {
    token: Zeroizing<String>,
    expires: u64,
    renew: Instant,
}

impl Exchanged {
    /// The token itself.
    pub fn secret(&self) -> &[u8] {
        self.token.as_bytes()
    }
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotExchanged {
    /// The control plane does not exchange this one.
    Refused,
    /// It is away, or was asked too much.
    Unavailable,
}

impl NotExchanged {
    /// What the caller of the request is told.
    pub fn refuse(service: &ServiceName) -> Error {
        let why = format!("the token for {service} can not be exchanged: the control plane does not answer");
        // Another endpoint would not make it better.
        Error { unprocessed: false, ..Error::refused(Reason::TokenExchangeUnavailable, why) }
    }
}

/// What came of an exchange.
pub type Answer = Result<Arc<Exchanged>, NotExchanged>;
type Waiting = watch::Receiver<Option<Answer>>;

/// By service, then by the token that is exchanged.
#[derive(Default)]
struct Table {
    services: HashMap<ServiceName, HashMap<Key, Slot>>,
    slots: usize,
    bytes: usize,
}

/// Finds itself by its token, which it shares with what was proven.
struct Key(Arc<Verified>);

enum Slot {
    Asked(Waiting),
    /// And whether it is being asked for anew.
    Good(Arc<Exchanged>, bool),
    Failed(NotExchanged, Instant),
}

/// One call that is to be made.
struct Ask {
    subject: Arc<Verified>,
    service: ServiceName,
    done: watch::Sender<Option<Answer>>,
}

#[derive(Default)]
struct Counts {
    remembered: AtomicU64,
    issued: AtomicU64,
    refused: AtomicU64,
    unavailable: AtomicU64,
}

impl Exchanges {
    /// The token for `service` in place of `subject`, where it is known; otherwise it was asked for, and the answer can be
    /// waited for.
    pub fn find(&self, subject: &Arc<Verified>, service: &ServiceName) -> Result<Answer, Awaited> {
        let now = gate::now();
        let mut table = self.table();
        let slot = table.services.get_mut(service).and_then(|tokens| tokens.get_mut(subject.secret()));
        match slot {
            Some(Slot::Good(good, renewing)) if good.expires > now => {
                let good = Arc::clone(good);
                let due = !*renewing && Instant::now() >= good.renew;
                if due {
                    *renewing = true;
                }
                drop(table);
                if due {
                    self.ask(subject, service);
                }
                self.counts.remembered.fetch_add(1, Relaxed);
                return Ok(Ok(good));
            }
            Some(Slot::Failed(why, until)) if Instant::now() < *until => return Ok(Err(*why)),
            // Unless whoever was asked is gone.
            Some(Slot::Asked(waiting)) if waiting.has_changed().is_ok() => {
                return Err(Awaited(waiting.clone()));
            }
            Some(_) | None => {}
        }
        let Some(waiting) = self.ask(subject, service) else {
            self.counts.unavailable.fetch_add(1, Relaxed);
            return Ok(Err(NotExchanged::Unavailable));
        };
        table.keep(subject, service, Slot::Asked(waiting.clone()), now);
        Err(Awaited(waiting))
    }

    /// The metrics as text for Prometheus.
    pub fn write(&self, out: &mut String) {
        let Counts { remembered, issued, refused, unavailable } = &self.counts;
        let _ = write!(
            out,
            "# HELP outrigger_token_exchanges_total Tokens of the mesh that calls wanted, by where they came from.\n\
             # TYPE outrigger_token_exchanges_total counter\n"
        );
        for (outcome, count) in [
            ("remembered", remembered),
            ("issued", issued),
            ("refused", refused),
            ("unavailable", unavailable),
        ] {
            let count = count.load(Relaxed);
            let _ = writeln!(out, "outrigger_token_exchanges_total{{outcome=\"{outcome}\"}} {count}");
        }
    }

    /// Has it asked for, unless there is nobody to ask or too much to be asked already.
    fn ask(&self, subject: &Arc<Verified>, service: &ServiceName) -> Option<Waiting> {
        let (done, waiting) = watch::channel(None);
        let ask = Ask { subject: Arc::clone(subject), service: service.clone(), done };
        self.asks.get()?.try_send(ask).ok()?;
        Some(waiting)
    }

    fn settle(&self, subject: &Arc<Verified>, service: &ServiceName, answer: &Answer) {
        let (count, now) = (&self.counts, gate::now());
        let counted = match answer {
            Ok(_) => &count.issued,
            Err(NotExchanged::Refused) => &count.refused,
            Err(NotExchanged::Unavailable) => &count.unavailable,
        };
        counted.fetch_add(1, Relaxed);
        let mut table = self.table();
        let slot = match answer {
            Ok(good) => Slot::Good(Arc::clone(good), false),
            Err(why) => {
                let until = Instant::now() + why.pause();
                let tokens = table.services.get_mut(service);
                match tokens.and_then(|tokens| tokens.get_mut(subject.secret())) {
                    // What is good goes on, and is asked for anew a little later.
                    Some(Slot::Good(good, renewing)) if good.expires > now => {
                        let later =
                            Exchanged { token: good.token.clone(), expires: good.expires, renew: until };
                        (*good, *renewing) = (Arc::new(later), false);
                        return;
                    }
                    _ => Slot::Failed(*why, until),
                }
            }
        };
        table.keep(subject, service, slot, now);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Exchanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchanges").finish_non_exhaustive()
    }
}

/// An answer that is being waited for.
pub struct Awaited(Waiting);

impl Awaited {
    /// The answer, or after [`PATIENCE`] that there is none.
    pub async fn answer(mut self) -> Answer {
        match timeout(PATIENCE, self.0.wait_for(Option::is_some)).await {
            Ok(Ok(answer)) => answer.clone().unwrap_or(Err(NotExchanged::Unavailable)),
            Ok(Err(_)) | Err(_) => Err(NotExchanged::Unavailable),
        }
    }
}

impl NotExchanged {
    /// For how long it is not asked again.
    fn pause(self) -> Duration {
        match self {
            Self::Refused => Duration::from_secs(5),
            Self::Unavailable => Duration::from_secs(1),
        }
    }
}

impl Table {
    fn keep(&mut self, subject: &Arc<Verified>, service: &ServiceName, slot: Slot, now: u64) {
        let bytes = subject.secret().len();
        if self.slots >= MOST || self.bytes + bytes > MOST_BYTES {
            self.tidy(now);
        }
        if !self.services.contains_key(service) {
            self.services.insert(service.clone(), HashMap::new());
        }
        let Some(tokens) = self.services.get_mut(service) else { return };
        if tokens.insert(Key(Arc::clone(subject)), slot).is_none() {
            self.slots += 1;
            self.bytes += bytes;
        }
    }

    /// Forgets what is over; where all is in use, everything that nobody waits for.
    fn tidy(&mut self, now: u64) {
        let moment = Instant::now();
        self.retain(|slot| match slot {
            Slot::Asked(_) => true,
            Slot::Good(good, _) => good.expires > now,
            Slot::Failed(_, until) => moment < *until,
        });
        if self.slots >= MOST || self.bytes > MOST_BYTES / 2 {
            self.retain(|slot| matches!(slot, Slot::Asked(_)));
        }
    }

    fn retain(&mut self, keep: impl Fn(&Slot) -> bool) {
        self.services.retain(|_, tokens| {
            tokens.retain(|_, slot| keep(slot));
            !tokens.is_empty()
        });
        self.slots = self.services.values().map(HashMap::len).sum();
        self.bytes = self.services.values().flat_map(HashMap::keys).map(|key| key.0.secret().len()).sum();
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.0.secret()
    }
}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.secret().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.secret() == other.0.secret()
    }
}

impl Eq for Key {}

/// Makes the calls, beside the workers.
pub struct Asker {
    live: Arc<Live>,
    control: Control,
    queue: mpsc::Receiver<Ask>,
}

impl Asker {
    /// Asks for what `live` wants to have exchanged.
    pub fn new(live: Arc<Live>, control: Control) -> Self {
        let (asks, queue) = mpsc::channel(QUEUE);
        let _only_once = live.exchanges.asks.set(asks);
        Self { live, control, queue }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut calls = JoinSet::new();
        while let Some(ask) = self.queue.recv().await {
            while calls.len() >= AT_ONCE {
                calls.join_next().await;
            }
            while calls.try_join_next().is_some() {}
            calls.spawn(call(Arc::clone(&self.live), self.control.clone(), ask));
        }
    }
}

async fn call(live: Arc<Live>, control: Control, ask: Ask) {
    let Ask { subject, service, done } = ask;
    let token = std::str::from_utf8(subject.secret()).unwrap_or_default().to_owned();
    let request = ExchangeRequest { token: Zeroizing::new(token), service: service.clone() };
    let answer = match timeout(CALL, control.client().exchange(request)).await {
        Ok(Ok(reply)) => {
            let left = Duration::from_secs(reply.expires.saturating_sub(gate::now()));
            let renew = Instant::now() + left.mul_f64(RENEWED_AFTER);
            Ok(Arc::new(Exchanged { token: reply.token, expires: reply.expires, renew }))
        }
        Ok(Err(error)) => {
            let told = control.explain(&error);
            tracing::debug!(%service, reason = told, "a token was not exchanged");
            Err(match error.kind {
                RpcErrorKind::Denied | RpcErrorKind::Invalid | RpcErrorKind::NotFound => {
                    NotExchanged::Refused
                }
                _ => NotExchanged::Unavailable,
            })
        }
        Err(_) => Err(NotExchanged::Unavailable),
    };
    live.exchanges.settle(&subject, &service, &answer);
    done.send_replace(Some(answer));
}

/// How long a request waits for an exchange.
pub const PATIENCE: Duration = Duration::from_secs(3);
const CALL: Duration = Duration::from_secs(5);
/// A token is asked for anew when this part of its time is over.
const RENEWED_AFTER: f64 = 0.6;
const MOST: usize = 8_192;
const MOST_BYTES: usize = 16 * 1_024 * 1_024;
const QUEUE: usize = 1_024;
const AT_ONCE: usize = 32;

#[cfg(test)]
mod tests {
    use std::collections::HashMap as Map;

    use futures_util::FutureExt as _;
    use outrigger_certs::jwt::{self, Arranged, Keys, TokenSigner};
    use outrigger_mesh::{Issuer, IssuerKeys, IssuerName};

    use super::*;

    fn verified(signer: &TokenSigner, jti: &str) -> Arc<Verified> {
        let name: IssuerName = "shop/users/login".parse().unwrap();
        let keys = IssuerKeys::Known(vec![signer.key().clone()]);
        let issuer = Issuer { name: name.clone(), iss: "i".into(), keys };
        let known =
            Arranged::new(1, Map::from([(name.clone(), Arc::new(Keys::new(issuer)))]), [].into_iter());
        let end = gate::now() + 600;
        let claims = format!(r#"{{"iss":"i","aud":"a","sub":"s","jti":"{jti}","exp":{end}}}"#);
        let token = signer.sign(claims.as_bytes()).unwrap();
        Arc::new(jwt::prove(&known, [&name].into_iter(), token.as_bytes(), 8_192).unwrap())
    }

    fn good(text: &str, left: u64) -> Arc<Exchanged> {
        let renew = Instant::now() + Duration::from_secs(left).mul_f64(RENEWED_AFTER);
        let token = Zeroizing::new(text.to_owned());
        Arc::new(Exchanged { token, expires: gate::now() + left, renew })
    }

    fn text(answer: Result<Answer, Awaited>) -> String {
        match answer {
            Ok(Ok(exchanged)) => String::from_utf8(exchanged.secret().to_vec()).unwrap(),
            Ok(Err(why)) => format!("{why:?}"),
            Err(_) => "awaited".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_asks_for_all_and_what_is_good_goes_on_while_it_is_asked_for_anew() {
        let (signer, _) = TokenSigner::generate().unwrap();
        let (ada, cart): (_, ServiceName) = (verified(&signer, "1"), "shop/cart".parse().unwrap());
        let exchanges = Exchanges::default();
        assert_eq!(text(exchanges.find(&ada, &cart)), "Unavailable", "there is nobody to ask");
        let (asks, mut asked) = mpsc::channel(8);
        exchanges.asks.set(asks).unwrap();
        let mut next = || asked.recv().now_or_never().flatten();
        let settle = |ask: Ask, answer: Answer| {
            exchanges.settle(&ask.subject, &ask.service, &answer);
            ask.done.send_replace(Some(answer));
        };
        let waiting: Vec<Awaited> = (0..5).map(|_| exchanges.find(&ada, &cart).err().unwrap()).collect();
        let ask = next().expect("it was asked");
        assert!(next().is_none(), "once");
        settle(ask, Ok(good("first", 300)));
        for awaited in waiting {
            assert_eq!(text(Ok(awaited.answer().await)), "first");
        }
        assert_eq!(
            text(exchanges.find(&ada, &"shop/prices".parse().unwrap())),
            "awaited",
            "another destination"
        );
        assert_eq!(text(exchanges.find(&verified(&signer, "2"), &cart)), "awaited", "another token");
        drop((next(), next()));

        tokio::time::advance(Duration::from_secs(181)).await;
        assert_eq!(text(exchanges.find(&ada, &cart)), "first");
        settle(next().expect("it was asked anew"), Err(NotExchanged::Unavailable));
        assert_eq!(text(exchanges.find(&ada, &cart)), "first", "a failure takes nothing away");
        assert!(next().is_none(), "nor is it asked again at once");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(text(exchanges.find(&ada, &cart)), "first");
        settle(next().expect("a little later"), Ok(good("second", 300)));
        assert_eq!(text(exchanges.find(&ada, &cart)), "second");
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_not_asked_at_once_and_whoever_asks_and_goes_holds_up_nobody() {
        let (signer, _) = TokenSigner::generate().unwrap();
        let (ada, cart): (_, ServiceName) = (verified(&signer, "1"), "shop/cart".parse().unwrap());
        let exchanges = Exchanges::default();
        let (asks, mut asked) = mpsc::channel(8);
        exchanges.asks.set(asks).unwrap();
        let mut next = || asked.recv().now_or_never().flatten();
        assert_eq!(text(exchanges.find(&ada, &cart)), "awaited");
        drop(next());
        assert_eq!(text(exchanges.find(&ada, &cart)), "awaited", "whoever was asked is gone");
        let ask = next().expect("another is asked");
        exchanges.settle(&ask.subject, &ask.service, &Err(NotExchanged::Refused));
        drop(ask);
        assert_eq!(text(exchanges.find(&ada, &cart)), "Refused");
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(text(exchanges.find(&ada, &cart)), "awaited");
        let silent = exchanges.find(&ada, &cart).err().unwrap().answer();
        assert_eq!(text(Ok(silent.await)), "Unavailable", "nobody waits for ever");
        let mut out = String::new();
        exchanges.write(&mut out);
        assert!(out.contains("outcome=\"refused\"} 1"), "{out}");
    }

    #[test]
    fn the_table_is_bounded_by_number_and_by_size() {
        let (signer, _) = TokenSigner::generate().unwrap();
        let ada = verified(&signer, "1");
        let (mut table, moment) = (Table::default(), Instant::now() + Duration::from_secs(60));
        for i in 0..MOST + 10 {
            let service = format!("shop/s-{i}").parse().unwrap();
            table.keep(&ada, &service, Slot::Failed(NotExchanged::Refused, moment), gate::now());
        }
        assert!(table.slots <= MOST, "{}", table.slots);
        table.bytes = MOST_BYTES;
        table.keep(
            &ada,
            &"shop/s-1".parse().unwrap(),
            Slot::Failed(NotExchanged::Refused, moment),
            gate::now(),
        );
        assert!(table.bytes < MOST_BYTES);
    }
}
