//! The dashboard as somebody at a browser has it: a headless Chromium before a mesh of real processes.
//!
//! `walks` are walkthroughs, each of which holds what the page says against what the API says; `looks` opens every page, light and
//! dark and on a phone; `doors` is about who may do what. `browser` drives Chromium, `support` has the mesh.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod browser;
mod doors;
mod looks;
#[path = "../stories/support.rs"]
#[allow(dead_code, reason = "it has more than is needed here")]
mod support;
mod walks;
