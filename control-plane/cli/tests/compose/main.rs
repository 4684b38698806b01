//! The shop of the examples as a Compose file, injected and run in a real engine. Its applications know nothing of the mesh. Wants
//! root.
//!
//! `OUTRIGGER_SOAK=1` runs it: an engine and a dozen of containers take a minute and a half of every gate otherwise.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "these are tests")]

mod engine;
mod images;
#[path = "../deploy/page.rs"]
mod page;
mod reader;
mod shop;

use engine::Engine;
use shop::Shop;

#[test]
fn a_compose_file_becomes_a_mesh_of_applications_that_know_nothing_of_it() {
    if std::env::var_os("OUTRIGGER_SOAK").is_none() {
        return;
    }
    let Some(engine) = Engine::start() else { return };
    engine.make_images();
    let shop = Shop::up(&engine);
    shop.applications_are_healthy_and_know_nothing();
    shop.requests_flow_and_the_receivers_know_who_calls();
    shop.by_ipv4_and_ipv6();
    shop.who_is_no_member_is_refused();
    shop.an_only_instance_that_is_paused_fails_alone_and_in_time();
    shop.of_two_instances_one_that_is_paused_is_missed_by_nobody();
    shop.of_two_instances_one_that_is_cut_off_is_missed_by_nobody();
    shop.stopping_loses_nothing();
}
