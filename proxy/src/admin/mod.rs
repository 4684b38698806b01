//! What the sidecar shows and what it can be told, on the spot only.
//!
//! The TCP listener on loopback answers GET and changes nothing; the Unix socket, which only the owner of the process
//! can open, takes what changes state. [`pages`] makes the answers, [`serve`] carries them, [`asked`] carries them to the
//! control plane for people elsewhere, [`readiness`] knows whether the sidecar can serve. All of it runs on the control runtime: a heavy scrape leaves requests alone.

mod access;
mod asked;
mod connections;
pub(crate) mod figures;
mod pages;
pub(crate) mod policies;
mod readiness;
mod serve;
mod tapped;

pub use asked::answer as answer_control_plane;
pub(crate) use connections::Connections;
pub use pages::AdminState;
pub(crate) use pages::{Page, text};
pub use readiness::{Condition, Readiness};
pub use serve::{AdminError, AdminSocket, bind, bind_socket, serve, serve_socket};
