//! What the plan server does with calls.

use std::sync::Arc;
use std::time::Duration;

use outrigger_certs::{JoinToken, Peer};
use outrigger_mesh::{Report, Selector};
use outrigger_wire::rpc::{
    Attestation, Caller, ControlHandler, ExchangeReply, ExchangeRequest, Hello, RegisterReply, Registration,
    RpcError, RpcErrorKind, ServerStream, SignReply, SignRequest, WithdrawReply, Withdrawal,
};
use outrigger_wire::session::{Catalog, Changed, Limits, ServerSession};

use super::world::{PlanProxy, Shared};

pub(super) struct Handler(pub(super) Arc<Shared>);

impl ControlHandler for Handler {
    type Peer = Peer;

    async fn sign(&self, caller: Caller<Option<Peer>>, request: SignRequest) -> Result<SignReply, RpcError> {
        if let Some(error) = self.0.knobs().refuse_signing.clone() {
            return Err(error);
        }
        let renewal = request.attestation.is_none();
        let id = match (&request.attestation, caller.peer) {
            (None, Some(peer)) => peer.id().clone(),
            (None, None) => return Err(unauthenticated("neither a token nor a certificate")),
            (Some(Attestation::Kubernetes(_)), _) => {
                return Err(unauthenticated("there is no Kubernetes here"));
            }
            (Some(Attestation::JoinToken(text)), _) => {
                let token: JoinToken = text.parse().map_err(|e| unauthenticated(&format!("{e}")))?;
                let id = self.0.consume_token(&token);
                id.ok_or_else(|| unauthenticated("the join token is unknown, used or expired"))?
            }
        };
        let chain = self.0.sign(&request.csr_der, &id);
        let chain = chain.map_err(|e| RpcError::new(RpcErrorKind::Invalid, e.to_string()))?;
        let mut knobs = self.0.knobs();
        if renewal {
            knobs.signed.renewed += 1;
        } else {
            knobs.signed.joined += 1;
        }
        Ok(SignReply { chain, trust: self.0.authority.trust() })
    }

    async fn register(
        &self,
        _caller: Caller<Peer>,
        registration: Registration,
    ) -> Result<RegisterReply, RpcError> {
        let lease = {
            let mut knobs = self.0.knobs();
            knobs.registrations += 1;
            if let Some(error) = knobs.refuse_registration.clone() {
                return Err(error);
            }
            knobs.lease
        };
        let known = self.0.world().is_registered(&registration.endpoint);
        if !known {
            self.0.change(|world| world.register(registration.endpoint));
        }
        Ok(RegisterReply { lease })
    }

    async fn withdraw(
        &self,
        caller: Caller<Peer>,
        withdrawal: Withdrawal,
    ) -> Result<WithdrawReply, RpcError> {
        let Withdrawal { service, uid, wait } = withdrawal;
        let revision = self.0.change(|world| world.withdraw(&service, &uid));
        let selector = Selector::EndpointsOf(service);
        let count = || {
            let proxies = self.0.proxies();
            let readers = proxies
                .iter()
                .filter(|p| &p.hello.identity != caller.peer.id() && p.selectors.contains(&selector));
            let (mut all, mut acknowledged) = (0, 0);
            for reader in readers {
                all += 1;
                acknowledged += u32::from(reader.settled >= revision);
            }
            WithdrawReply { subscribers: all, acknowledged }
        };
        let mut moved = self.0.moved.subscribe();
        let everybody = async {
            while count().acknowledged < count().subscribers {
                if moved.changed().await.is_err() {
                    return;
                }
            }
        };
        let _late = tokio::time::timeout(wait.min(LONGEST_WAIT), everybody).await;
        Ok(count())
    }

    async fn report(&self, caller: Caller<Peer>, report: Report) -> Result<(), RpcError> {
        let mut knobs = self.0.knobs();
        if knobs.reports.len() < 1000 {
            knobs.reports.push((caller.peer.id().clone(), report));
        }
        Ok(())
    }

    async fn exchange(&self, _: Caller<Peer>, _: ExchangeRequest) -> Result<ExchangeReply, RpcError> {
        Err(RpcError::new(RpcErrorKind::Unavailable, "a plan exchanges no tokens"))
    }

    async fn discover(
        &self,
        caller: Caller<Peer>,
        hello: Hello,
        mut stream: ServerStream,
    ) -> Result<(), RpcError> {
        if &hello.identity != caller.peer.id() {
            return Err(RpcError::new(RpcErrorKind::Denied, "the stream claims to be somebody else"));
        }
        let listed = Listed { shared: &self.0, number: self.0.new_session() };
        let mut session = ServerSession::new(Limits::default(), |_: &Selector| true);
        let mut moved = self.0.moved.subscribe();
        let mut last_told = None;
        let mut last_revision = 0;
        loop {
            moved.mark_unchanged();
            let (responses, revision) = {
                let world = self.0.world();
                let mut responses = Vec::new();
                let news = std::mem::replace(&mut last_revision, world.revision()) != world.revision();
                let mut changed = if news { Changed::Anything } else { Changed::Nothing };
                while let Some(response) = session.next_response(&*world, changed) {
                    responses.push(response);
                    changed = Changed::Nothing;
                }
                (responses, world.revision())
            };
            for response in responses {
                stream.send(response).await?;
            }
            let settled = session.is_settled().then_some(revision);
            let rejected: Vec<_> = session.rejected().map(|(kind, r)| (kind, r.clone())).collect();
            let selectors: Vec<_> = session.selectors().cloned().collect();
            let now = (settled, rejected, selectors);
            if last_told.as_ref() != Some(&now) {
                listed.tell(&hello, &now);
                last_told = Some(now);
            }
            tokio::select! {
                request = stream.next() => match request? {
                    None => return Ok(()),
                    Some(request) => {
                        session
                            .on_request(request)
                            .map_err(|e| RpcError::new(RpcErrorKind::Invalid, e.to_string()))?;
                    }
                },
                _ = moved.changed() => {}
            }
        }
    }
}

type Told =
    (Option<u64>, Vec<(outrigger_mesh::ResourceKind, outrigger_wire::session::Rejected)>, Vec<Selector>);

/// A session in the list of sessions, taken out of it when it ends.
struct Listed<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Listed<'_> {
    fn tell(&self, hello: &Hello, (settled, rejected, selectors): &Told) {
        let before = self.shared.proxies_settled(self.number);
        let state = PlanProxy {
            hello: hello.clone(),
            settled: settled.unwrap_or(before),
            rejected: rejected.clone(),
            selectors: selectors.clone(),
        };
        self.shared.tell(self.number, state);
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.shared.ended(self.number);
    }
}

fn unauthenticated(why: &str) -> RpcError {
    RpcError::new(RpcErrorKind::Unauthenticated, why)
}

const LONGEST_WAIT: Duration = Duration::from_secs(10);
