//! Once an attempt: an endpoint is chosen, a connection found or made, the request sent.

pub mod balance;
pub mod connect;
pub mod endpoint_breaker;
pub mod exchange;
pub mod eyeballs;
pub mod health;
pub mod opaque;
pub mod place;
pub mod pool;
pub mod send;

mod share;
pub mod tether;

pub use exchange::Exchange;
