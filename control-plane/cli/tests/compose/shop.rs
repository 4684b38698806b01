//! The shop in an engine, and what is asked of it.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use outrigger_testkit::real;
use serde_json::Value;

use crate::engine::{DOCKER, Engine, PATIENCE};
use crate::images::{built, repository};

/// Longer than the shop's own patience with a call (3 s), shorter than a hang.
const BOUNDED: Duration = Duration::from_secs(8);

/// The default network with both families.
const NETWORK: &str = "
networks:
  default:
    enable_ipv6: true
    ipam:
      config: [{subnet: 172.29.29.0/24}, {subnet: 'fd00:29::/64'}]
";

/// Turn and turn about, so that a bad instance is asked until its breaker keeps it out.
const TURNS: &str = "  balance: {algorithm: roundRobin}\n";

/// The shop in an engine.
pub struct Shop<'a>(&'a Engine);

impl<'a> Shop<'a> {
    /// Injects the example and starts it.
    pub fn up(engine: &'a Engine) -> Self {
        let plain = fs::read_to_string(repository().join("examples/shop/compose.yaml")).unwrap() + NETWORK;
        let (before, mesh) = (engine.path("compose.yaml"), engine.path("mesh.yaml"));
        fs::write(&before, &plain).unwrap();
        let mut inject = Command::new(built("outrigger"));
        let ran = real::run(inject.args(["inject", "--compose"]).arg(&before), PATIENCE);
        assert!(ran.ok, "{}", ran.stderr);
        fs::write(&mesh, &ran.stdout).unwrap();
        let mut uninject = Command::new(built("outrigger"));
        let back = real::run(uninject.args(["uninject", "--compose"]).arg(&mesh), PATIENCE);
        assert_eq!(back.stdout, plain, "{}", back.stderr);
        let up = engine.compose(&["up", "-d", "--wait"]);
        assert!(up.ok, "{}\n{}", up.stderr, engine.compose(&["logs", "--tail", "5"]).stdout);
        Self(engine)
    }

    /// What an address answers, asked from the host of the engine: status, or what curl says.
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

    fn address(&self, container: &str, field: &str) -> String {
        let of = format!("{{{{range .NetworkSettings.Networks}}}}{{{{.{field}}}}}{{{{end}}}}");
        self.told(container, &of)
    }

    fn web(&self, path: &str) -> Result<String, String> {
        self.status(&format!("http://{}:8080{path}", self.address("shop-web-1", V4)))
    }

    fn log(&self, container: &str) -> String {
        self.0.docker(&["logs", container]).stdout
    }

    /// How many requests for `path` the sidecars of these have told of.
    fn served(&self, path: &str, names: &[&str]) -> usize {
        let of = |name| self.log(&format!("shop-outrigger-proxy-{name}-1")).matches(path).count();
        names.iter().map(of).sum()
    }

    /// Something in the container of `web`.
    fn in_web(&self, arguments: &[&str]) -> real::Ran {
        self.0.docker(&[&["exec", "shop-web-1", "/busybox"], arguments].concat())
    }

    /// `outrigger` beside the control plane.
    fn apply(&self, text: &str) {
        let file = self.0.path("apply.yaml");
        fs::write(&file, text).unwrap();
        let mut docker = Command::new(DOCKER);
        docker.arg("-H").arg(self.0.host()).args(["exec", "-i", "shop-outrigger-control-1"]);
        docker.args(["/outrigger", "apply", "--wait", "-f", "-"]);
        let done = docker.stdin(fs::File::open(file).unwrap()).stdout(Stdio::null()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    pub fn applications_are_healthy_and_know_nothing(&self) {
        for name in ["web", "cart", "prices", "prices-v2", "recommendations"] {
            let container = format!("shop-{name}-1");
            assert_eq!(self.told(&container, "{{.State.Health.Status}}"), "healthy", "{name}");
            let environment = self.told(&container, "{{json .Config.Env}}").to_lowercase();
            assert!(!environment.contains("proxy") && !environment.contains("outrigger"), "{environment}");
        }
    }

    pub fn requests_flow_and_the_receivers_know_who_calls(&self) {
        let published = self.status("http://127.0.0.1:8080/price/lantern");
        assert_eq!(published, Ok("200".into()), "by the published port");
        // Every service has a part in it: HTTP, gRPC, and Python.
        let url = format!("http://{}:8080", self.address("shop-web-1", V4));
        let item = self.0.inside("curl", &["-sS", "--max-time", "20", &format!("{url}/items/anchor")]).stdout;
        assert_eq!(item.matches("{\"status\":\"ok\"}").count(), 3, "{item}");
        let order = ["-sS", "-H", "content-type: application/json", "-d", "{\"id\":\"rope\",\"quantity\":2}"];
        let ordered = self.0.inside("curl", &[&order[..], &[&format!("{url}/cart/ada/items")]].concat());
        assert!(ordered.stdout.contains("\"pieces\":2"), "{} {}", ordered.stdout, ordered.stderr);
        assert_eq!(self.web("/cart/ada"), Ok("200".into()));
        // Three call prices, and have proven who they are.
        Engine::await_that("prices was called by web, cart and recommendations", || {
            let log = ["prices", "prices-v2"].map(|n| self.log(&format!("shop-outrigger-proxy-{n}-1")));
            let caller = |name| format!("\"caller\":\"spiffe://mesh.local/ns/shop/sa/{name}\"");
            ["web", "cart", "recommendations"].map(caller).iter().all(|name| log.concat().contains(name))
        });
    }

    /// The name of a service is answered with an address of each family, and both lead to it.
    pub fn by_ipv4_and_ipv6(&self) {
        let found = self.in_web(&["nslookup", "prices"]).stdout;
        let virtually = |family: &str| {
            let mut addresses = found.lines().filter_map(|line| line.strip_prefix("Address: "));
            let of_it = addresses.find(|address| address.trim().starts_with(family));
            of_it.unwrap_or_else(|| panic!("no address of the mesh ({family}): {found}")).trim().to_owned()
        };
        for host in [virtually("240."), format!("[{}]", virtually("fd6f:"))] {
            let before = self.served("/price/compass", &PRICES);
            let url = format!("http://{host}:8080/price/compass");
            // Without -T, of which Debian's static busybox dies.
            let ran = self.in_web(&["wget", "-q", "-O-", &url]);
            assert!(ran.ok && ran.stdout.contains("\"compass\""), "{url}: {} {}", ran.stdout, ran.stderr);
            Engine::await_that("a sidecar of prices has a line of it", || {
                self.served("/price/compass", &PRICES) > before
            });
        }
    }

    /// Plaintext from who has no sidecar: taken where the port is published, refused elsewhere, by both families.
    pub fn who_is_no_member_is_refused(&self) {
        for field in [V4, V6] {
            let url = |container: &str| {
                let address = self.address(container, field);
                let host = if address.contains(':') { format!("[{address}]") } else { address };
                format!("http://{host}:8080/healthz")
            };
            let refused = self.status(&url("shop-prices-1"));
            assert!(refused.as_ref().is_err_and(|why| !why.contains("timed out")), "{field}: {refused:?}");
            assert_eq!(self.status(&url("shop-web-1")), Ok("200".into()), "{field}");
        }
    }

    pub fn an_only_instance_that_is_paused_fails_alone_and_in_time(&self) {
        assert!(self.0.docker(&["pause", "shop-cart-1"]).ok);
        let began = Instant::now();
        let answer = self.web("/cart/nobody");
        assert!(began.elapsed() < BOUNDED, "{answer:?} after {:?}", began.elapsed());
        assert!(answer.as_ref().is_ok_and(|status| status.starts_with('5')), "{answer:?}");
        // Nobody else suffers.
        assert_eq!(self.web("/price/lantern"), Ok("200".into()));
        assert!(self.0.docker(&["unpause", "shop-cart-1"]).ok);
        Engine::await_that("cart answers again", || self.web("/cart/nobody") == Ok("200".into()));
    }

    /// Attempts time out and are made elsewhere, until the breaker keeps it out; it comes back by itself.
    pub fn of_two_instances_one_that_is_paused_is_missed_by_nobody(&self) {
        let policy =
            fs::read_to_string(repository().join("examples/shop/mesh/prices-patience.yaml")).unwrap();
        self.apply(&(policy + TURNS));
        assert!(self.0.docker(&["pause", "shop-prices-1"]).ok);
        self.prices_are_told_until("the breaker of the paused one is open", || self.breakers() == [1, 1]);
        assert!(self.0.docker(&["unpause", "shop-prices-1"]).ok);
        self.prices_come_from_both_again();
    }

    /// Connections can not be made, and are made elsewhere. Its lease ends too, so it may be gone before its breaker opens.
    pub fn of_two_instances_one_that_is_cut_off_is_missed_by_nobody(&self) {
        let (v4, v6) = (self.address("shop-prices-1", V4), self.address("shop-prices-1", V6));
        assert!(self.0.docker(&["network", "disconnect", "shop_default", "shop-prices-1"]).ok);
        self.prices_are_told_until("the one that is cut off is out", || self.breakers() != [0, 2]);
        let at = ["network", "connect", "--ip", &v4, "--ip6", &v6, "--alias", "prices"];
        let ran = self.0.docker(&[&at[..], &["shop_default", "shop-prices-1"]].concat());
        assert!(ran.ok, "{}", ran.stderr);
        self.prices_come_from_both_again();
    }

    /// Every call is answered well meanwhile.
    fn prices_are_told_until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        Engine::await_that(what, || {
            assert_eq!(self.web("/price/lantern"), Ok("200".into()), "{what}");
            holds()
        });
    }

    fn prices_come_from_both_again(&self) {
        let before = self.served("/price/lantern", &PRICES[..1]);
        self.prices_are_told_until("it is asked again", || {
            self.breakers() == [0, 2] && self.served("/price/lantern", &PRICES[..1]) > before + 2
        });
    }

    /// How many instances of prices `web`'s sidecar keeps out and lets through.
    fn breakers(&self) -> [usize; 2] {
        let page = self.in_web(&["wget", "-q", "-O-", "http://127.0.0.1:15000/clusters"]).stdout;
        let page: Value = serde_json::from_str(&page).unwrap_or_else(|error| panic!("{error}: {page}"));
        let mut services = page.as_array().unwrap().iter();
        let prices = services.find(|service| service["service"] == "shop/prices").unwrap();
        let mut states = [0, 0];
        for endpoint in prices["endpoints"].as_array().unwrap() {
            match endpoint["breaker"]["state"].as_str().unwrap() {
                "open" | "half_open" => states[0] += 1,
                _ => states[1] += 1,
            }
        }
        states
    }

    /// What is under way when everything is stopped is answered; afterwards nobody is let in.
    pub fn stopping_loses_nothing(&self) {
        let url = format!("http://{}:8080/price/lantern", self.address("shop-web-1", V4));
        // Each goes on asking until it is refused a connection, 7 for curl; anything else but an answer is a loss.
        let script = "while out=$(curl -sS --max-time 20 -o /dev/null -w '%{http_code}' \"$0\" 2>&1); do echo $out; done; echo end $out";
        let callers: Vec<_> = (0..6).map(|_| self.0.spawn("sh", &["-c", script, &url])).collect();
        // Every caller has been answered before the end begins.
        let before = self.served("/price/lantern", &PRICES);
        Engine::await_that("callers are served", || self.served("/price/lantern", &PRICES) > before + 12);
        let stopped = self.0.compose(&["stop"]);
        assert!(stopped.ok, "{}", stopped.stderr);
        for caller in callers {
            let said = String::from_utf8(caller.wait_with_output().unwrap().stdout).unwrap();
            let answers: Vec<_> = said.lines().collect();
            let (end, answered) = answers.split_last().unwrap();
            assert!(answered.iter().all(|status| *status == "200"), "{said}");
            assert!(end.starts_with("end curl: (7)"), "{said}");
        }
    }
}

/// Who answers for prices.
const PRICES: [&str; 2] = ["prices", "prices-v2"];
/// What an engine calls an address of a container.
const V4: &str = "IPAddress";
const V6: &str = "GlobalIPv6Address";
