//! What people ask of this sidecar through the control plane: the pages of the admin surface that only show something.
//!
//! The sidecar keeps a call open, over which the control plane asks. One question is answered after the other, on the
//! control runtime: who asks much waits, and requests do not.

use std::sync::Arc;
use std::time::Duration;

use outrigger_wire::rpc::{PageAsk, RpcError};
use tokio::sync::watch;
use tokio::time::sleep;

use super::AdminState;
use crate::config::backoff::Backoff;
use crate::config::dial::Control;

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

/// One call, to its end.
async fn call(state: &AdminState, control: &Control, node: &str) -> Result<(), RpcError> {
    let mut asked = control.client().inspect(node).await?;
    while let Some(PageAsk { id, page }) = asked.next().await? {
        let page = state.page(&page).ok_or_else(|| format!("this sidecar has no page {page:?}"));
        let page = page.and_then(|page| serde_json::to_vec(&page).map_err(|e| e.to_string()));
        asked.answer(id, page).await?;
    }
    Ok(())
}

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
