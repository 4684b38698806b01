//! Addresses of names outside the mesh, for those who ask a worker for one (CONNECT). Workers ask here, and the name
//! servers are asked beside the data path.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use outrigger_mesh::Hostname;
use tokio::sync::{mpsc, oneshot};

use crate::dns::names::{Outcome, Question};
use crate::dns::servers::Client;
use crate::live::Live;

/// Where workers ask. Nobody answers before names are served.
#[derive(Debug, Default)]
pub struct Outside(OnceLock<mpsc::Sender<Asked>>);

#[derive(Debug)]
struct Asked {
    name: Hostname,
    answer: oneshot::Sender<Result<Vec<IpAddr>, String>>,
}

impl Outside {
    /// The addresses of `name`, IPv4 first; or why there are none.
    pub async fn find(&self, name: &Hostname) -> Result<Vec<IpAddr>, String> {
        let nobody = || format!("{name} can not be looked up: no name server is asked");
        let (answer, answered) = oneshot::channel();
        let asked = Asked { name: name.clone(), answer };
        let busy = |_| format!("{name} can not be looked up: too many names are");
        self.0.get().ok_or_else(nobody)?.try_send(asked).map_err(busy)?;
        answered.await.unwrap_or_else(|_| Err(nobody()))
    }

    /// Answers for as long as it is polled.
    pub(super) async fn serve(live: &Live, client: Client) {
        let (ask, mut asked) = mpsc::channel(MOST_WAITING);
        if live.names_outside.0.set(ask).is_err() {
            return;
        }
        let mut pending = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(()) = pending.next() => {}
                next = asked.recv(), if pending.len() < MOST_ASKING => {
                    let Some(Asked { name, mut answer }) = next else { return };
                    let (client, counters) = (&client, &live.dns);
                    pending.push(async move {
                        counters.lookups.fetch_add(1, Relaxed);
                        tokio::select! {
                            found = look_up(client, &name) => {
                                if found.is_err() {
                                    counters.lookup_failures.fetch_add(1, Relaxed);
                                }
                                let _gone = answer.send(found);
                            }
                            () = answer.closed() => {}
                        }
                    });
                }
            }
        }
    }
}

async fn look_up(client: &Client, name: &Hostname) -> Result<Vec<IpAddr>, String> {
    let (v4, v6) = (Question::A(name.clone()), Question::Aaaa(name.clone()));
    let (v4, v6) = tokio::join!(client.ask(&v4), client.ask(&v6));
    let (mut found, mut failed) = (Vec::new(), None);
    for outcome in [v4, v6] {
        match outcome {
            Outcome::Addresses(addresses, _) => found.extend(addresses.into_iter().take(MOST_ADDRESSES)),
            Outcome::Failed(why) => failed = Some(why),
            Outcome::Hosts(..) | Outcome::Nothing(_) => {}
        }
    }
    if found.is_empty() {
        return Err(failed.unwrap_or_else(|| format!("{name} has no address")));
    }
    Ok(found)
}

const MOST_WAITING: usize = 256;
const MOST_ASKING: usize = 64;
/// Of each family.
const MOST_ADDRESSES: usize = 2;
