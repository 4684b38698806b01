//! Tokens of users: reading them, proving them, remembering what was proven, and how they travel on.
//!
//! What a service wants of tokens, what claims mean and what is revoked is decided in the domain crate (`token`); here is
//! what needs clocks and caches; reading and proving is `certs/src/jwt`. The order in which a request meets it: [`gate`]
//! finds the rule and the token, [`cache`] remembers, [`carry`] takes it along, [`exchange`] gets another one for it.

pub mod cache; // what was proven, for each worker
pub mod carry; // what goes along with the calls of the application
pub mod exchange; // tokens of the mesh in its place
pub mod gate; // what a service wants, before its application sees a request
pub mod known; // who issues tokens, with what keys, and what is revoked

pub use outrigger_certs::jwt::{self as verify, Fault, Verified};
