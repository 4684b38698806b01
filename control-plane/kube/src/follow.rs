//! A list and the changes after it, for as long as somebody wants them, whatever goes wrong in between.
//!
//! What is told is always whole: a list replaces everything that was told before, and after it comes each change in order.
//! When a watch ends, it is begun again where it ended; when the server has forgotten that place (410), or after several
//! watches that brought nothing but nonsense, everything is listed again. Until something is known anew, what was told last
//! holds, and [`Told::Lost`] says so.

use std::time::Duration;

use futures_util::StreamExt;
use kube::core::WatchEvent;
use kube::core::params::WatchParams;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use crate::api::{ApiServer, CallError, CallErrorKind, Collection};

/// What one is told of the objects of a kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// These are all, as of this count. A kind that the server does not know has none, as of 0.
    All(Vec<Value>, u64),
    /// This one is new, or another.
    Changed(Value),
    /// This one is gone; its last form, whose version is that of its end.
    Gone(Value),
    /// Everything up to this count has been told.
    At(u64),
    /// Nothing new is known, for this reason, until something else is told.
    Lost(CallError),
}

/// What is followed.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The kind.
    pub of: Collection,
    /// Of one namespace; `None`: of all.
    pub namespace: Option<String>,
    /// With these labels; `None`: whatever they have.
    pub labels: Option<String>,
    /// Whether the server may not know the kind: then there are none of it, and it is asked again now and then.
    pub optional: bool,
    /// A version that reads the same, and that a server may have in the place of that of `of`.
    pub older: Option<&'static str>,
}

const PAGE: u32 = 500;
/// Servers end watches themselves after some minutes, and ours not all at once.
const WATCH_SECONDS: std::ops::Range<u32> = 240..290;
/// Longer than a watch lasts, nothing is waited for.
const GRACE: Duration = Duration::from_secs(10);
/// A kind that the server does not know may be installed later.
const UNKNOWN_AGAIN: Duration = Duration::from_secs(15);
/// After so many watches in a row that broke without a change everything is listed again.
const BROKEN: u32 = 4;
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(20);

/// Tells everything about a subject, until it is dropped.
pub async fn follow(api: ApiServer, mut subject: Subject, mut tell: impl FnMut(Told)) {
    let (wanted, mut tries, mut tried_both) = (subject.of.version, 0, false);
    loop {
        match list(&api, &subject).await {
            Ok((items, version)) => {
                (tries, tried_both) = (0, false);
                tell(Told::All(items, version));
                watch(&api, &subject, version, &mut tell).await;
            }
            Err(e)
                if e.kind() == CallErrorKind::NotFound
                    && !tried_both
                    && let Some(older) = subject.older =>
            {
                subject.of.version = if subject.of.version == wanted { older } else { wanted };
                tried_both = true;
            }
            Err(e) if e.kind() == CallErrorKind::NotFound && subject.optional => {
                (tries, tried_both) = (0, false);
                tell(Told::All(vec![], 0));
                tokio::time::sleep(UNKNOWN_AGAIN.mul_f64(0.5 + fastrand::f64())).await;
            }
            Err(e) => {
                // Where the pages took longer than the server remembers it is begun anew.
                if e.kind() != CallErrorKind::Gone || tries > 2 {
                    tell(Told::Lost(e));
                }
                tries += 1;
                tokio::time::sleep(pause(tries)).await;
            }
        }
    }
}

async fn list(api: &ApiServer, subject: &Subject) -> Result<(Vec<Value>, u64), CallError> {
    let (mut items, mut next) = (vec![], None);
    loop {
        let (namespace, labels) = (subject.namespace.as_deref(), subject.labels.as_deref());
        let page = api.list(&subject.of, namespace, labels, PAGE, next).await?;
        items.extend(page.items);
        next = page.next;
        if next.is_none() {
            let version = number(&page.version).ok_or_else(|| api.garbage(NO_NUMBER))?;
            return Ok((items, version));
        }
    }
}

/// Watches what comes after `at`, until everything has to be listed again.
async fn watch(api: &ApiServer, subject: &Subject, mut at: u64, tell: &mut impl FnMut(Told)) {
    let mut broken = 0;
    loop {
        let began = at;
        match watch_once(api, subject, &mut at, tell).await {
            Ok(()) => broken = 0,
            // It is forgotten what came after, or the kind was taken away.
            Err(e) if matches!(e.kind(), CallErrorKind::Gone | CallErrorKind::NotFound) => return,
            Err(e) => {
                broken = if at > began { 1 } else { broken + 1 };
                // One connection that breaks is nothing to tell of.
                if broken > 1 || !e.is_retryable() {
                    tell(Told::Lost(e));
                }
                if broken >= BROKEN {
                    return;
                }
                tokio::time::sleep(pause(broken)).await;
            }
        }
    }
}

/// One watch, to its end.
async fn watch_once(
    api: &ApiServer,
    subject: &Subject,
    at: &mut u64,
    tell: &mut impl FnMut(Told),
) -> Result<(), CallError> {
    let seconds = fastrand::u32(WATCH_SECONDS);
    let params = WatchParams {
        label_selector: subject.labels.clone(),
        timeout: Some(seconds),
        bookmarks: true,
        ..WatchParams::default()
    };
    let request = subject.of.ask(subject.namespace.as_deref()).watch(&params, &at.to_string());
    let request = request.map_err(|_| api.garbage("the request can not be made"))?;
    let until = Instant::now() + Duration::from_secs(seconds.into()) + GRACE;
    let late = || api.garbage("a watch brings nothing, and does not end");
    let opened = timeout(GRACE, api.client().request_events::<Value>(request)).await.map_err(|_| late())?;
    let mut events = std::pin::pin!(opened.map_err(|e| api.fault(e))?);
    // It answers: whatever was lost is found.
    tell(Told::At(*at));
    loop {
        let Ok(event) = timeout_at(until, events.next()).await else { return Err(late()) };
        let Some(event) = event else { return Ok(()) };
        let (object, is_gone) = match event.map_err(|e| api.fault(e))? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
            WatchEvent::Deleted(object) => (object, true),
            WatchEvent::Bookmark(bookmark) => {
                let told = number(&bookmark.metadata.resource_version);
                *at = told.ok_or_else(|| api.garbage(NO_NUMBER))?.max(*at);
                tell(Told::At(*at));
                continue;
            }
            WatchEvent::Error(status) => return Err(api.fault(kube::Error::Api(status))),
        };
        *at = version(&object).ok_or_else(|| api.garbage(NO_NUMBER))?.max(*at);
        tell(if is_gone { Told::Gone(object) } else { Told::Changed(object) });
    }
}

/// The version of an object as the number that it is on every API server of Kubernetes.
pub fn version(object: &Value) -> Option<u64> {
    number(object["metadata"]["resourceVersion"].as_str()?)
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

const NO_NUMBER: &str = "a resourceVersion of it is no number";

/// Longer each time, and not at the same moment as everybody else.
fn pause(tries: u32) -> Duration {
    let most = SHORTEST.saturating_mul(1 << tries.min(10)).min(LONGEST);
    most.mul_f64(0.5 + fastrand::f64() / 2.0)
}
