//! Tokens of users: reading them, proving them, remembering what was proven.
//!
//! What a service wants of tokens, what claims mean and what is revoked is decided in the domain crate (`token`); here is
//! what needs keys, clocks and caches.

pub mod known; // who issues tokens, with what keys, and what is revoked
