//! The webhook that makes pods members of the mesh, as the API server of Kubernetes calls it: AdmissionReview in, patch out.
//!
//! What becomes of a pod is decided elsewhere, in `outrigger-inject`. Here is what is around it: [`review`] reads a call and
//! writes the answer, [`facts`] knows the namespaces, which [`known`] follows, [`server`] serves with a certificate of the mesh's own authority,
//! [`bundle`] tells the API server whom to believe for that, [`events`] tell the owner of a pod what came of it, and [`api`]
//! asks the API server. The way of an answer waits for nothing, but where a namespace is not known yet.

mod api;
mod bundle;
mod events;
mod facts;
mod figures;
mod known;
mod review;
mod server;
mod start;

pub use start::{Webhook, WebhookSettings};

#[cfg(test)]
mod known_tests;
#[cfg(test)]
mod tests;
