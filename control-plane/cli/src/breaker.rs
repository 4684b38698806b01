//! `outrigger breaker`: what an operator says of the breaker of a service, for a while and with a reason.

use std::process::ExitCode;

use outrigger_control::spec;
use serde_json::{Value, json};

use crate::args::Printed;
use crate::client::{Admin, How, NotWritten};
use crate::failure::Failure;
use crate::kind::Kind;
use crate::out::{self, Format};
use crate::{get, problems};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Breaker {
    /// Hold it open: nothing passes, as for planned maintenance.
    Open(Say),
    /// Hold it closed: everything passes, whatever is counted.
    Close(Say),
    /// Let it open and close by itself.
    Auto(Say),
    /// Let it only count, and show what it would do.
    Observe(Say),
    /// Take back what was said: the policy holds again.
    Clear(Clear),
    /// Show what operators have said of breakers.
    List(List),
    /// Show every breaker and at how many sidecars it is open, as they say at this moment.
    Status(Status),
}

/// Whose breaker it is.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The service.
    service: String,
    /// The breaker of this route (an HTTPRoute) in place of that of the service.
    #[arg(long, conflicts_with = "version")]
    route: Option<String>,
    /// The breaker of this version alone.
    #[arg(long)]
    version: Option<String>,
    /// The namespace of the service.
    #[arg(short, long, default_value = "default", env = "OUTRIGGER_NAMESPACE")]
    namespace: String,
    /// Why; the audit log keeps it.
    #[arg(long, value_name = "TEXT")]
    why: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Say {
    #[command(flatten)]
    which: Which,
    /// For how long, such as 10m; then the policy holds again. Without it, until it is taken back.
    #[arg(long = "for", value_name = "TIME")]
    lasting: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Clear {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// The namespace to look in. All of them unless one is named.
    #[arg(short, long, env = "OUTRIGGER_NAMESPACE")]
    namespace: Option<String>,
    #[command(flatten)]
    printed: Printed,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Only those of this service.
    service: Option<String>,
    /// The namespace of that service.
    #[arg(short, long, default_value = "default", env = "OUTRIGGER_NAMESPACE")]
    namespace: String,
    /// Only those that are not closed somewhere, or of which somebody said something.
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    printed: Printed,
}

impl Breaker {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        match self {
            Self::Open(say) => say.run(admin, "forceOpen").await?,
            Self::Close(say) => say.run(admin, "forceClosed").await?,
            Self::Auto(say) => say.run(admin, "auto").await?,
            Self::Observe(say) => say.run(admin, "observe").await?,
            Self::Clear(clear) => clear.which.clear(admin).await?,
            Self::List(list) => list.run(admin).await?,
            Self::Status(status) => status.run(admin).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Say {
    async fn run(self, admin: &Admin, mode: &str) -> Result<(), Failure> {
        let object = self.which.object(mode, self.lasting.as_deref());
        match admin.apply(&[object], How::default()).await {
            Ok(_) => {}
            Err(NotWritten::Failed(failure)) => return Err(failure),
            Err(NotWritten::Refused(refusal)) => {
                return Err(problems::failure("the breaker is left as it was", &refusal.problems));
            }
        }
        let until = match &self.lasting {
            Some(lasting) => format!("for {lasting}"),
            None => "until `outrigger breaker clear`".to_owned(),
        };
        out::say(format!("{} is {mode} {until}", self.which.told()));
        Ok(())
    }
}

impl Which {
    /// The name of the one override that speaks of this breaker.
    fn name(&self) -> String {
        let label = |text: &str| -> String {
            let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
            text.chars().map(plain).collect::<String>().trim_matches('-').to_owned()
        };
        match (&self.route, &self.version) {
            (Some(route), _) => format!("{}.route.{route}", self.service),
            (None, Some(version)) => format!("{}.version.{}", self.service, label(version)),
            (None, None) => self.service.clone(),
        }
    }

    fn object(&self, mode: &str, lasting: Option<&str>) -> Value {
        let mut spec = json!({ "service": self.service, "mode": mode, "why": self.why });
        let more = [("route", self.route.as_deref()), ("version", self.version.as_deref()), ("for", lasting)];
        for (field, value) in more {
            if let Some(value) = value {
                spec[field] = value.into();
            }
        }
        json!({
            "apiVersion": "outrigger.dev/v1alpha1",
            "kind": "BreakerOverride",
            "metadata": { "name": self.name(), "namespace": self.namespace },
            "spec": spec,
        })
    }

    fn told(&self) -> String {
        let part = match (&self.route, &self.version) {
            (Some(route), _) => format!(", route {route}"),
            (None, Some(version)) => format!(", version {version}"),
            (None, None) => String::new(),
        };
        format!("the breaker of {}/{}{part}", self.namespace, self.service)
    }

    async fn clear(&self, admin: &Admin) -> Result<(), Failure> {
        let (plural, name) = (KIND.collection(), self.name());
        let Some(stored) = admin.object(plural, &self.namespace, &name).await? else {
            return Err(Failure::failed(format!("nobody said anything of {}", self.told()))
                .hint("`outrigger breaker list` shows what was said"));
        };
        match admin.delete(plural, &self.namespace, &name, &stored, false).await {
            Ok(_) => {
                out::say(format!("{} is as its policy says", self.told()));
                Ok(())
            }
            Err(NotWritten::Failed(failure)) => Err(failure),
            Err(NotWritten::Refused(refusal)) => {
                Err(problems::failure("the breaker is left as it was", &refusal.problems))
            }
        }
    }
}

impl List {
    async fn run(self, admin: &Admin) -> Result<(), Failure> {
        let list = admin.list(KIND.collection(), self.namespace.as_deref()).await?;
        if self.printed.format != Format::Table {
            return out::value(&list, self.printed.format);
        }
        let items = list["items"].as_array().cloned().unwrap_or_default();
        if items.is_empty() {
            out::say("every breaker is as its policy says");
        } else {
            out::say(get::table(Kind::from(KIND), &items));
        }
        Ok(())
    }
}

impl Status {
    async fn run(self, admin: &Admin) -> Result<(), Failure> {
        let which = self.service.as_ref().map(|service| format!("?service={}/{service}", self.namespace));
        let mut told = admin.told(&format!("/v1/breakers{}", which.unwrap_or_default())).await?;
        if let Some(items) = told["items"].as_array_mut().filter(|_| self.open) {
            items.retain(|one| {
                !one["override"].is_null() || one["at"].as_array().is_some_and(|at| !at.is_empty())
            });
        }
        if self.printed.format != Format::Table {
            return out::value(&told, self.printed.format);
        }
        for silent in told["silent"].as_array().into_iter().flatten() {
            let text = |field: &str| silent[field].as_str().unwrap_or("?").to_owned();
            out::warn(format!("not asked: {}: {}", text("node"), text("failure")));
        }
        let items = told["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        if items.is_empty() {
            out::say(if self.open { "no breaker is open" } else { "no sidecar has a breaker of that" });
        } else {
            out::say(states(items));
        }
        Ok(())
    }
}

/// The breakers, one in each line.
fn states(items: &[Value]) -> String {
    let rows = items.iter().map(|one| {
        let text = |field: &str| one[field].as_str().unwrap_or("-").to_owned();
        let at = |state: &str| one["states"][state].as_u64().unwrap_or(0).to_string();
        let over = match &one["name"] {
            Value::String(name) => format!("{} {name}", text("over")),
            _ => text("over"),
        };
        let where_to = one["at"].as_array().into_iter().flatten();
        let nodes: Vec<&str> = where_to.filter_map(|at| at["node"].as_str()).take(3).collect();
        let nodes = if nodes.is_empty() { "-".to_owned() } else { nodes.join(",") };
        vec![
            text("service"),
            over,
            text("mode"),
            text("override"),
            at("closed"),
            at("half_open"),
            at("open"),
            nodes,
        ]
    });
    out::table(&["service", "over", "mode", "said", "closed", "half-open", "open", "at"], rows)
}

const KIND: spec::Kind = spec::Kind::BreakerOverride;

#[cfg(test)]
mod tests {
    use super::*;

    fn which(route: Option<&str>, version: Option<&str>) -> Which {
        Which {
            service: "cart".into(),
            route: route.map(str::to_owned),
            version: version.map(str::to_owned),
            namespace: "shop".into(),
            why: "moving".into(),
        }
    }

    #[test]
    fn where_a_breaker_is_open_is_told() {
        let items = json!([
            {"service": "shop/cart", "over": "service", "name": null, "mode": "auto", "override": null,
             "states": {"closed": 2, "open": 1}, "at": [{"node": "web-1", "state": "open"}]},
            {"service": "shop/cart", "over": "version", "name": "v2", "mode": "forceOpen", "override": "forceOpen",
             "states": {"open": 3}, "at": [{"node": "a"}, {"node": "b"}, {"node": "c"}, {"node": "d"}]},
        ]);
        let told = states(items.as_array().unwrap());
        let lines: Vec<String> =
            told.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[1], "shop/cart service auto - 2 0 1 web-1");
        assert_eq!(lines[2], "shop/cart version v2 forceOpen forceOpen 0 0 3 a,b,c");
    }

    #[test]
    fn each_breaker_has_one_override_that_can_be_read() {
        for (which, name) in [
            (which(None, None), "cart"),
            (which(Some("canary"), None), "cart.route.canary"),
            (which(None, Some("V2_x")), "cart.version.v2-x"),
        ] {
            let object = which.object("forceOpen", Some("10m"));
            let read = spec::read(&object.to_string(), "").unwrap();
            assert_eq!(read[0].object.metadata.name.to_string(), name);
        }
    }
}
