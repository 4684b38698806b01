//! Tokens of users (JWT): reading them with bounds, proving them, and signing those that the mesh itself issues.
//!
//! What needs keys and cryptography, for the sidecar, which proves what comes in, and for the control plane, which proves
//! what it exchanges. What a service wants of tokens and what they mean is decided in the domain crate (`token`); caches
//! and what becomes of a token in a request are the sidecar's (`proxy/src/token`).

mod arranged; // whom to believe, and what is revoked
mod json; // claims, read strictly
mod parse; // the form, before anything is believed
mod sign; // the mesh's own
mod verify; // signature, times, audience

pub use arranged::{Arranged, Key, Keys};
pub use parse::{Parsed, claimed_issuer, parse};
pub use sign::TokenSigner;
pub use verify::{Fault, Verified, accept, prove};
