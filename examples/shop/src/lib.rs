//! A small shop that looks like what people run: `web`, `cart`, `prices` and `reviews`, with
//! `recommendations` in Python beside them (`recommendations.py`), and `login`, which plays the issuer
//! of tokens for its users.
//!
//! The services listen on loopback in plaintext. They know the address every call goes to, name
//! the service they mean in Host (`:authority` in gRPC), and pass on the trace context they were
//! given. Identity, encryption, balancing, retries and versions are deliberately absent: the mesh
//! does that.

pub mod call;
pub mod cart;
pub mod catalogue;
pub mod login;
pub mod prices;
pub mod refusal;
pub mod reviews;
pub mod serve;
pub mod settings;
pub mod trace;
pub mod web;
