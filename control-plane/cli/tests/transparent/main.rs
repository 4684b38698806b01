//! `outrigger run --transparent` with real programs: a control plane, a service and a caller that know nothing of each
//! other's sidecars. All of it happens in a network namespace of the test's own. Wants root.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "these are tests")]

mod host;
mod opaque;

use std::process::Command;
use std::time::{Duration, Instant};

use outrigger_testkit::real;

use host::{Host, PATIENCE, programs};

#[test]
fn a_process_in_a_namespace_reaches_services_by_address_and_name_without_knowing_the_mesh() {
    let Some(host) = Host::new() else { return };
    host.knows(&["cart: { port: 80, protocol: http }", "web: { port: 80, protocol: http }"]);
    let cart = host.serve_cart();
    let address = host.virtual_address("cart");
    let instance = host.instance();

    // By virtual address with any Host, by name, by the address of the one instance; and what is nobody's.
    let script = format!(
        "for url in http://{address}/hello http://cart.shop.mesh/hello http://{instance}/hello; do
             curl -sS --max-time 20 -H 'x-caller: web' $url || echo failed: $url
         done
         curl -sS --max-time 20 -H 'host: nobody.test' http://{address}/hello
         curl -s --max-time 20 -o /dev/null -w '%{{http_code}}\\n' http://240.0.255.254/
         id -u"
    );
    let ran = host.run_as("web", &["sh", "-c", &script]);
    let words: Vec<&str> = ran.stdout.lines().collect();
    let hello = "hello from cart";
    assert_eq!(words, [hello, hello, hello, hello, "404", "1000"], "{}", ran.stderr);

    // From outside the mesh, in plaintext: redirected to the sidecar, which wants a proof.
    let plain = host.outrigger("curl", &["-sS", "--max-time", "5", &format!("http://{instance}/hello")]);
    assert!(!plain.ok, "{}", plain.stdout);

    // Killed without a word, nothing is left.
    assert!(host.cables().len() == 1, "the caller's has gone with it: {:?}", host.cables());
    drop(cart);
    let began = Instant::now();
    while !host.cables().is_empty() {
        assert!(began.elapsed() < PATIENCE, "{:?}", host.cables());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn who_is_not_root_is_told_so_with_what_to_do() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = programs();
    let program = folder.path().join("outrigger");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "1000", "--clear-groups", "--"]).arg(program);
    command.args(["run", "--transparent", "--service", "web", "--", "true"]);
    let ran = real::run(&mut command, PATIENCE);
    assert!(!ran.ok && ran.stderr.contains("--transparent wants root"), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: run it with sudo"), "{}", ran.stderr);
}
