//! Tokens of users: reading them, proving them, remembering what was proven, and how they travel on.
//!
//! What a service wants of tokens, what claims mean and what is revoked is decided in the domain crate (`token`); here is
//! what needs keys, clocks and caches. The order in which a request meets it: [`gate`] finds the rule and the token,
//! [`cache`] remembers, [`parse`] and [`json`] read with bounds, [`verify`] proves, [`carry`] takes it along.

pub mod cache; // what was proven, for each worker
pub mod carry; // what goes along with the calls of the application
pub mod gate; // what a service wants, before its application sees a request
mod json; // claims, read strictly
pub mod known; // who issues tokens, with what keys, and what is revoked
pub mod parse; // the form, before anything is believed
pub mod verify; // signature, times, audience

pub use verify::{Fault, Verified};
