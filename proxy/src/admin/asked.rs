//! What people ask of this sidecar through the control plane: the pages of the admin surface that only show something.
//!
//! The sidecar keeps a call open, over which the control plane asks. One question is answered after the other, on the
//! control runtime: who asks much waits, and requests do not. Only taps go on, until they end or their end is asked for.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use outrigger_mesh::{BadTap, TapFilter};
use outrigger_wire::rpc::{PageAsk, RpcError};
use tokio::sync::watch;
use tokio::time::sleep;

use super::AdminState;
use crate::config::backoff::Backoff;
use crate::config::dial::Control;
use crate::telemetry::tap::Tap;

/// Answers for as long as it runs. `links` counts the links to the control plane: without one nobody asks, and with a new
/// one the call is made anew.
pub async fn answer(state: Arc<AdminState>, control: Control, node: String, mut links: watch::Receiver<u64>) {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    while links.wait_for(|made| *made > 0).await.is_ok() {
        links.mark_unchanged();
        let ended = call(&state, &control, &node).await;
        let wait = match &ended {
            // A control plane that knows no such call learns it by being another one, which is another link.
            Err(error) if !error.is_retryable() => None,
            Ok(()) | Err(_) => Some(backoff.wait()),
        };
        tracing::debug!(?ended, "nobody asks for pages");
        let again = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            linked = links.changed() => match linked {
                Ok(()) => backoff.reset(),
                Err(_) => return,
            },
            () = again => {}
        }
    }
}

/// One call, to its end. Taps go on beside the questions, and end with it.
async fn call(state: &AdminState, control: &Control, node: &str) -> Result<(), RpcError> {
    let mut asked = control.client().inspect(node).await?;
    let mut taps = Vec::new();
    loop {
        tokio::select! {
            ask = asked.next() => {
                let Some(PageAsk { id, page }) = ask? else { return Ok(()) };
                match TapFilter::of_page(&page) {
                    None if page == "end" => taps.retain(|(of, _)| *of != id),
                    None => asked.answer(id, told(state, &page)).await?,
                    Some(filter) => match opened(state, filter) {
                        Ok(tap) => taps.push((id, tap)),
                        Err(why) => asked.answer(id, Err(why)).await?,
                    },
                }
            }
            (id, lines) = next(&mut taps) => match lines {
                Some(lines) if lines.is_empty() => {}
                Some(lines) => asked.piece(id, lines, false).await?,
                None => {
                    taps.retain(|(of, _)| *of != id);
                    asked.piece(id, Vec::new(), true).await?;
                }
            },
        }
    }
}

fn told(state: &AdminState, page: &str) -> Result<Vec<u8>, String> {
    let told = state.page(page).ok_or_else(|| format!("this sidecar has no page {page:?}"))?;
    serde_json::to_vec(&told).map_err(|e| e.to_string())
}

fn opened(state: &AdminState, filter: Result<TapFilter, BadTap>) -> Result<Tap, String> {
    state.tap(filter.map_err(|bad| bad.to_string())?).map_err(|full| full.to_string())
}

/// What the first of the taps tells that has something to tell; waits for ever where there is none.
async fn next(taps: &mut [(u64, Tap)]) -> (u64, Option<Vec<u8>>) {
    let mut waits: Vec<_> =
        taps.iter_mut().map(|(id, tap)| Box::pin(async move { (*id, tap.next().await) })).collect();
    poll_fn(|cx| {
        let ready = waits.iter_mut().find_map(|wait| match wait.as_mut().poll(cx) {
            Poll::Ready(told) => Some(told),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
