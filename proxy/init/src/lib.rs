//! Redirection of an application's traffic into its sidecar: what the rules are, how each packet filter writes them,
//! and how they are put in place, proven and removed.
//!
//! What flags say becomes a [`plan::Plan`], a plan becomes typed [`rules`], and only typed rules become text for a packet
//! filter, on its standard input or as separate arguments: nothing from outside is ever part of a command line. What is
//! in place is read back into the same typed rules, so that a check compares values. What the sidecar does with a
//! redirected connection is deliberately elsewhere (`outrigger-proxy`, `listen/original_dst`).

pub mod args; // what the operator writes
pub mod plan; // the same, proven
pub mod network; // networks by prefix
pub mod ports; // sets of ports
pub mod rules; // what shall be in place, for any packet filter
pub mod nft; // the rules as nft writes them
pub mod iptables; // the rules as iptables-save writes them
pub mod routing; // what TPROXY needs of the routing
pub mod tool; // running a program
pub mod backend; // the packet filters of this host
pub mod act; // apply, check, remove, print
pub mod probe; // one real connection
