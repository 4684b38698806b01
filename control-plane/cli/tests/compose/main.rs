//! The shop of the examples as a Compose file, injected and run in a real engine. Its applications know nothing of the mesh. Wants
//! root.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "these are tests")]

mod engine;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use outrigger_testkit::real;

use engine::{Engine, PATIENCE, built};

/// Longer than the shop's own patience with a call (3 s), shorter than a hang.
const BOUNDED: Duration = Duration::from_secs(8);

/// `OUTRIGGER_SOAK=1`: what it shows by IPv4 and IPv6 has not been seen to hold yet, so the gate does not rest on it.
#[test]
fn a_compose_file_becomes_a_mesh_of_applications_that_know_nothing_of_it() {
    if std::env::var_os("OUTRIGGER_SOAK").is_none() {
        return;
    }
    let Some(engine) = Engine::start() else { return };
    let shop = Shop::up(&engine);
    shop.applications_are_healthy_and_know_nothing();
    shop.requests_flow_and_the_receivers_know_who_calls();
    shop.by_ipv4_and_ipv6();
    shop.who_is_no_member_is_refused();
    shop.an_application_that_is_paused_fails_alone_and_comes_back();
    shop.a_service_that_is_cut_off_fails_in_time_and_comes_back();
    shop.stopping_loses_nothing();
}

struct Shop<'a>(&'a Engine);

impl<'a> Shop<'a> {
    /// Injects the example and starts it.
    fn up(engine: &'a Engine) -> Self {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/shop/compose.yaml");
        // Answers take a while, so that some are under way at any moment; both families; every request gets a line.
        let plain = fs::read_to_string(example)
            .unwrap()
            .replace("SHOP_LISTEN: \"::\"\n", "SHOP_LISTEN: \"::\"\n      SHOP_DELAY_MS: \"200\"\n")
            .replace("x-outrigger: {version: v1}", "x-outrigger: {version: v1, access-log: all}");
        let plain = plain + NETWORK;
        let (before, mesh) = (engine.path("compose.yaml"), engine.path("mesh.yaml"));
        fs::write(&before, &plain).unwrap();
        let images = [
            "--proxy-image",
            "outrigger/proxy:test",
            "--control-plane-image",
            "outrigger/control-plane:test",
        ];
        let mut inject = Command::new(built("outrigger"));
        let ran = real::run(inject.args(["inject", "--compose"]).arg(&before).args(images), PATIENCE);
        assert!(ran.ok, "{}", ran.stderr);
        fs::write(&mesh, &ran.stdout).unwrap();
        let mut uninject = Command::new(built("outrigger"));
        let back = real::run(uninject.args(["uninject", "--compose"]).arg(&mesh), PATIENCE);
        assert_eq!(back.stdout, plain, "{}", back.stderr);
        let up = engine.compose(&["up", "-d", "--wait"]);
        assert!(up.ok, "{}\n{}", up.stderr, engine.compose(&["logs", "--tail", "5"]).stdout);
        Self(engine)
    }

    /// What the address of a container answers, asked from the host of the engine: status, or the exit code of curl.
    fn status(&self, url: &str) -> Result<String, String> {
        let ran =
            self.0.inside("curl", &["-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", url]);
        if ran.ok { Ok(ran.stdout) } else { Err(ran.stderr) }
    }

    fn told(&self, container: &str, format: &str) -> String {
        let ran = self.0.docker(&["inspect", "--format", format, container]);
        assert!(ran.ok, "{}", ran.stderr);
        ran.stdout.trim().to_owned()
    }

    fn address(&self, container: &str) -> String {
        self.told(container, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    }

    fn web(&self, path: &str) -> Result<String, String> {
        self.status(&format!("http://{}:8080{path}", self.address("shop-web-1")))
    }

    fn log(&self, container: &str) -> String {
        self.0.docker(&["logs", container]).stdout
    }

    /// Something in the container of `web`.
    fn in_web(&self, arguments: &[&str]) -> real::Ran {
        self.0.docker(&[&["exec", "shop-web-1", "/busybox"], arguments].concat())
    }

    fn applications_are_healthy_and_know_nothing(&self) {
        for name in ["web", "cart", "prices"] {
            let container = format!("shop-{name}-1");
            assert_eq!(self.told(&container, "{{.State.Health.Status}}"), "healthy", "{name}");
            let environment = self.told(&container, "{{json .Config.Env}}").to_lowercase();
            assert!(!environment.contains("proxy") && !environment.contains("outrigger"), "{environment}");
        }
    }

    fn requests_flow_and_the_receivers_know_who_calls(&self) {
        assert_eq!(
            self.status("http://127.0.0.1:8080/price/lantern"),
            Ok("200".into()),
            "by the published port"
        );
        assert_eq!(self.web("/items/anchor"), Ok("200".into()));
        let order = [
            "-sS",
            "--max-time",
            "20",
            "-H",
            "content-type: application/json",
            "-d",
            "{\"id\":\"rope\",\"quantity\":2}",
        ];
        let url = format!("http://{}:8080/cart/ada/items", self.address("shop-web-1"));
        let ordered = self.0.inside("curl", &[&order[..], &[&url]].concat());
        assert!(ordered.stdout.contains("\"pieces\":2"), "{} {}", ordered.stdout, ordered.stderr);
        assert_eq!(self.web("/cart/ada"), Ok("200".into()));
        // web asks prices, and so does cart; both have proven who they are.
        Engine::await_that("prices was called by web and cart", || {
            let log = self.log("shop-outrigger-proxy-prices-1");
            ["web", "cart"]
                .iter()
                .all(|name| log.contains(&format!("spiffe://mesh.local/ns/default/sa/{name}")))
        });
        let certificates = self.0.compose(&["run", "--rm", "-T", "outrigger-setup", "certs", "list"]);
        assert!(
            certificates.stdout.contains("sa/reviews"),
            "{} {}",
            certificates.stdout,
            certificates.stderr
        );
    }

    /// The name of a service is answered with an address of each family, and both lead to it.
    fn by_ipv4_and_ipv6(&self) {
        let virtually = |found: &str, family: &str| {
            let mut addresses =
                found.lines().filter_map(|line| line.strip_prefix("Address: ")).map(str::trim);
            addresses.find(|address| address.starts_with(family)).map(str::to_owned)
        };
        // A name that the sidecar hears for the first time may go to the engine's resolver, when nobody answers for it soon.
        let (mut v4, mut v6) = (None, None);
        Engine::await_that("the sidecar answers for prices with addresses of the mesh", || {
            let found = self.in_web(&["nslookup", "prices"]).stdout;
            (v4, v6) = (virtually(&found, "240."), virtually(&found, "fd6f:"));
            v4.is_some() && v6.is_some()
        });
        let (v4, v6) = (v4.unwrap(), v6.unwrap());
        for url in [format!("http://{v4}:8080/price/rope"), format!("http://[{v6}]:8080/price/rope")] {
            let lines = || self.log("shop-outrigger-proxy-prices-1").matches("/price/rope").count();
            let before = lines();
            let ran = self.in_web(&["wget", "-T", "10", "-q", "-O-", &url]);
            assert!(
                ran.ok && ran.stdout.contains("\"version\":\"v1\""),
                "{url}: {} {}",
                ran.stdout,
                ran.stderr
            );
            Engine::await_that("the sidecar of prices has a line of it", || lines() > before);
        }
    }

    /// Plaintext from a container without a sidecar: taken where the port is published, refused elsewhere.
    fn who_is_no_member_is_refused(&self) {
        let ask = |container: &str, field: &str| {
            let address = self.told(
                container,
                &format!("{{{{range .NetworkSettings.Networks}}}}{{{{.{field}}}}}{{{{end}}}}"),
            );
            let host = if address.contains(':') { format!("[{address}]") } else { address };
            let url = format!("http://{host}:8080/healthz");
            let run = [
                "run",
                "--rm",
                "--network",
                "shop_default",
                "--entrypoint",
                "/busybox",
                "outrigger/shop:dev",
            ];
            self.0.docker(&[&run[..], &["wget", "-T", "5", "-q", "-O-", &url]].concat())
        };
        for field in ["IPAddress", "GlobalIPv6Address"] {
            let refused = ask("shop-prices-1", field);
            assert!(!refused.ok && !refused.stdout.contains("ok"), "{field}: {}", refused.stdout);
            let published = ask("shop-web-1", field);
            assert!(published.ok && published.stdout.contains("ok"), "{field}: {}", published.stderr);
        }
    }

    fn an_application_that_is_paused_fails_alone_and_comes_back(&self) {
        assert!(self.0.docker(&["pause", "shop-prices-1"]).ok);
        self.fails_in_time("/price/lantern");
        // Nobody else suffers.
        assert_eq!(self.web("/healthz"), Ok("200".into()));
        assert_eq!(self.web("/cart/nobody"), Ok("200".into()));
        assert!(self.0.docker(&["unpause", "shop-prices-1"]).ok);
        Engine::await_that("prices answers again", || self.web("/price/lantern") == Ok("200".into()));
    }

    fn a_service_that_is_cut_off_fails_in_time_and_comes_back(&self) {
        let (v4, v6) = (
            self.address("shop-prices-1"),
            self.told("shop-prices-1", "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}"),
        );
        assert!(self.0.docker(&["network", "disconnect", "shop_default", "shop-prices-1"]).ok);
        self.fails_in_time("/price/lantern");
        assert_eq!(self.web("/cart/nobody"), Ok("200".into()));
        let back = [
            "network",
            "connect",
            "--ip",
            &v4,
            "--ip6",
            &v6,
            "--alias",
            "prices",
            "shop_default",
            "shop-prices-1",
        ];
        let ran = self.0.docker(&back);
        assert!(ran.ok, "{}", ran.stderr);
        Engine::await_that("prices answers again", || self.web("/price/lantern") == Ok("200".into()));
    }

    fn fails_in_time(&self, path: &str) {
        let began = Instant::now();
        let answer = self.web(path);
        assert!(began.elapsed() < BOUNDED, "{path}: {answer:?} after {:?}", began.elapsed());
        let status = answer.unwrap_or_else(|why| panic!("{path}: cut off: {why}"));
        assert!(status.starts_with('5'), "{path}: {status}");
    }

    /// What is under way when everything is stopped is answered; afterwards nobody is let in.
    fn stopping_loses_nothing(&self) {
        let url = format!("http://{}:8080/price/lantern", self.address("shop-web-1"));
        // Each goes on asking until it is refused a connection (7); anything else but an answer is a loss.
        let script = "while out=$(curl -sS --max-time 20 -o /dev/null -w '%{http_code}' \"$0\" 2>&1); do echo $out; done; echo end $? $out";
        let callers: Vec<_> = (0..6).map(|_| self.0.spawn("sh", &["-c", script, &url])).collect();
        // Every caller has been answered before the end begins.
        let served = |log: &str| log.matches("/price/lantern").count();
        let before = served(&self.log("shop-outrigger-proxy-prices-1"));
        Engine::await_that("callers are served", || {
            served(&self.log("shop-outrigger-proxy-prices-1")) > before + 12
        });
        let stopped = self.0.compose(&["stop"]);
        assert!(stopped.ok, "{}", stopped.stderr);
        for caller in callers {
            let said = String::from_utf8(caller.wait_with_output().unwrap().stdout).unwrap();
            let answers: Vec<_> = said.lines().collect();
            let (end, answered) = answers.split_last().unwrap();
            assert!(answered.iter().all(|status| *status == "200"), "{said}");
            assert!(end.starts_with("end 7 "), "{said}");
        }
    }
}

/// The default network with both families.
const NETWORK: &str = "
networks:
  default:
    enable_ipv6: true
    ipam:
      config: [{subnet: 172.29.29.0/24}, {subnet: 'fd00:29::/64'}]
";
