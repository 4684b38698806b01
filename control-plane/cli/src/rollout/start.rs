//! `outrigger rollout start`: the resource from flags, or from a file.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use outrigger_control::spec::Problem;
use serde_json::{Map, Value, json};

use super::{Which, show};
use crate::client::{Admin, How, NotWritten};
use crate::documents::{Documents, NotRead};
use crate::failure::Failure;
use crate::kind::named;
use crate::out::{self, Format};
use crate::problems;

pub(super) const EXAMPLES: &str = "\
Examples:
  outrigger rollout start cart --from v1 --to v2 --min-success 99.5 --max-p99 200ms --wait
      by 1, 10, 50 and 100 %, 5 minutes each; back when fewer succeed or answers are slower
  outrigger rollout start cart --from v1 --to v2 --steps 5,25,100 --hold 30s --slower 1.5 --sticky header:x-user
      every user stays on his side; back when answers take half as long again as those of v1
  outrigger rollout start cart --from v1 --to v2 --blue-green --match x-preview=1 --preview 5m --max-drain 10m
      for 5 minutes only requests with x-preview: 1 see v2, then all at once; back at once for 10 minutes more
  outrigger rollout start -f rollout.yaml";

#[derive(Debug, clap::Args)]
pub(crate) struct Start {
    /// The service.
    #[arg(required_unless_present = "file")]
    service: Option<String>,
    /// A file with a Rollout, or - for standard input, in place of the service and the flags.
    #[arg(short, long, conflicts_with_all = ["service", "from", "to"], value_name = "FILE|-")]
    file: Option<String>,
    /// The version that has the traffic.
    #[arg(long, value_name = "VERSION", required_unless_present = "file")]
    from: Option<String>,
    /// The version that shall have it.
    #[arg(long, value_name = "VERSION", required_unless_present = "file")]
    to: Option<String>,
    /// Its namespace.
    #[arg(short, long, default_value = "default", env = "OUTRIGGER_NAMESPACE")]
    namespace: String,
    /// The name of the rollout. Without it, that of the service.
    #[arg(long)]
    name: Option<String>,
    /// What the new version gets, step by step, in percent; the last is 100.
    #[arg(long, value_delimiter = ',', value_name = "PERCENT,..", conflicts_with = "blue_green")]
    steps: Vec<f64>,
    /// How long each step is held at least, such as 30s.
    #[arg(long, value_name = "TIME", requires = "steps")]
    hold: Option<String>,
    /// All at once, in place of steps.
    #[arg(long)]
    blue_green: bool,
    /// With --blue-green: how long only what --match says sees the new version before.
    #[arg(long, value_name = "TIME", requires = "blue_green")]
    preview: Option<String>,
    /// With --blue-green: how long it can go back at once, and gates are looked at, after the switch.
    #[arg(long, value_name = "TIME", requires = "blue_green")]
    max_drain: Option<String>,
    /// Requests with this header see the new version whatever its share is. May be repeated: any of them.
    #[arg(long = "match", value_name = "HEADER=VALUE")]
    matches: Vec<String>,
    /// What keeps a caller on its side: header:NAME, cookie:NAME, claim:NAME or identity.
    #[arg(long, value_name = "KEY")]
    sticky: Option<String>,
    /// Gate: at least so many percent succeed.
    #[arg(long, value_name = "PERCENT")]
    min_success: Option<f64>,
    /// Gate: at most so many points fewer succeed than of the old version.
    #[arg(long, value_name = "POINTS")]
    below_stable: Option<f64>,
    /// Gate: half of the answers come within this.
    #[arg(long, value_name = "TIME")]
    max_p50: Option<String>,
    /// Gate: 99 of 100 answers come within this.
    #[arg(long, value_name = "TIME")]
    max_p99: Option<String>,
    /// Gate: p50 and p99 are at most so many times those of the old version, such as 1.5.
    #[arg(long, value_name = "FACTOR")]
    slower: Option<f64>,
    /// Fewer requests of the new version say nothing: gates wait for them.
    #[arg(long, value_name = "NUMBER")]
    min_requests: Option<u64>,
    /// What of the past counts for gates, such as 1m.
    #[arg(long, value_name = "TIME")]
    window: Option<String>,
    /// What a gate that fails does.
    #[arg(long, value_name = "rollback|pause")]
    on_failure: Option<String>,
    /// Follow it to its end; the exit code tells how that was: 0 done, 6 it went back, 5 paused.
    #[arg(long)]
    wait: bool,
}

impl Start {
    pub(super) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let mut object = match &self.file {
            Some(file) => from_file(file)?,
            None => self.object()?,
        };
        let (namespace, name) = named(&object);
        let which = Which { name, namespace };
        if let Some(stored) = admin.object("rollouts", &which.namespace, &which.name).await? {
            is_over(&stored.object)?;
        }
        // The same once more, after it went back, is another run.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        object["metadata"]["annotations"]["outrigger.dev/started"] = now.to_string().into();
        match admin.apply(&[object], How::default()).await {
            Ok(answer) => {
                let warnings: Vec<Problem> =
                    serde_json::from_value(answer["warnings"].clone()).unwrap_or_default();
                for warning in warnings {
                    out::warn(problems::lines(&warning));
                }
            }
            Err(NotWritten::Failed(failure)) => return Err(failure),
            Err(NotWritten::Refused(refusal)) => {
                return Err(problems::failure("it was not started", &refusal.problems));
            }
        }
        if self.wait {
            return which.watch(admin, Format::Table).await;
        }
        out::say(show::line(&which.read(admin).await?));
        let Which { namespace, name } = which;
        out::say(format!("follow it with: outrigger rollout status {name} --namespace {namespace} --watch"));
        Ok(ExitCode::SUCCESS)
    }

    fn object(&self) -> Result<Value, Failure> {
        let service = self.service.clone().unwrap_or_default();
        let name = self.name.clone().unwrap_or_else(|| service.clone());
        let strategy = if self.blue_green { "blueGreen" } else { "canary" };
        let mut spec =
            json!({ "service": service, "strategy": strategy, "stable": self.from, "candidate": self.to });
        if !self.steps.is_empty() {
            let step = |weight: &f64| said(json!({ "weight": weight, "hold": self.hold }));
            spec["steps"] = self.steps.iter().map(step).collect();
        }
        let texts =
            [("preview", &self.preview), ("maxDrain", &self.max_drain), ("onFailure", &self.on_failure)];
        for (field, text) in texts {
            if let Some(text) = text {
                spec[field] = text.as_str().into();
            }
        }
        if !self.matches.is_empty() {
            spec["match"] = self.matches.iter().map(|m| header(m)).collect::<Result<_, _>>()?;
        }
        if let Some(sticky) = &self.sticky {
            spec["sticky"] = key(sticky)?;
        }
        let gates = self.gates();
        if !gates.as_object().is_none_or(Map::is_empty) {
            spec["gates"] = gates;
        }
        let metadata = json!({ "name": name, "namespace": self.namespace });
        Ok(
            json!({ "apiVersion": "outrigger.dev/v1alpha1", "kind": "Rollout", "metadata": metadata, "spec": spec }),
        )
    }

    fn gates(&self) -> Value {
        let below = self.below_stable.map(|points| -points.abs());
        let success = said(json!({ "min": self.min_success, "comparedWithStable": below }));
        let latency = json!({ "p50": self.max_p50, "p99": self.max_p99, "comparedWithStable": self.slower });
        said(json!({
            "successRate": some(success),
            "latency": some(said(latency)),
            "minRequests": self.min_requests,
            "window": self.window,
        }))
    }
}

/// Refuses to begin one that is under way: that would change it instead.
fn is_over(rollout: &Value) -> Result<(), Failure> {
    let phase = rollout["status"]["phase"].as_str().unwrap_or_default();
    if matches!(phase, "Done" | "RolledBack" | "Aborted") {
        return Ok(());
    }
    Err(Failure::failed(format!("it is under way already: {}", show::line(rollout)))
        .hint("`outrigger rollout abort` ends it; `outrigger apply` changes its steps and gates"))
}

fn from_file(file: &str) -> Result<Value, Failure> {
    let documents = Documents::read(&[file.to_owned()]).map_err(|why| match why {
        NotRead::Failed(failure) => failure,
        NotRead::Refused(problems) => problems::failure(&format!("{file} was refused"), &problems),
    })?;
    let all: Vec<Value> = documents.objects().map(outrigger_control::spec::Object::to_json).collect();
    match <[Value; 1]>::try_from(all) {
        Ok([one]) if one["kind"] == "Rollout" => Ok(one),
        _ => Err(Failure::usage(format!("{file} is not one Rollout"))
            .hint("`outrigger apply -f` writes anything else")),
    }
}

fn header(text: &str) -> Result<Value, Failure> {
    let (name, value) = text.split_once('=').ok_or_else(|| {
        Failure::usage(format!("--match {text:?} is not HEADER=VALUE")).hint("write it as x-preview=1")
    })?;
    Ok(json!({ "headers": [{ "name": name, "value": value }] }))
}

fn key(text: &str) -> Result<Value, Failure> {
    match text.split_once(':') {
        None if text == "identity" => Ok(json!({ "identity": true })),
        Some((kind @ ("header" | "cookie" | "claim"), name)) => Ok(json!({ kind: name })),
        _ => Err(Failure::usage(format!("--sticky {text:?} is no key"))
            .hint("write header:x-user, cookie:user, claim:sub or identity")),
    }
}

/// An object without what was not said.
fn said(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields.into_iter().filter(|(_, v)| !v.is_null()).collect(),
        other => other,
    }
}

/// Nothing in place of an object that says nothing.
fn some(value: Value) -> Value {
    if value.as_object().is_some_and(Map::is_empty) { Value::Null } else { value }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        start: Start,
    }

    fn object(line: &str) -> Value {
        let words = ["start"].into_iter().chain(line.split(' '));
        Line::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}")).start.object().unwrap()
    }

    #[test]
    fn every_example_of_the_help_makes_a_rollout_that_can_be_read() {
        let lines = EXAMPLES.lines().filter_map(|line| line.trim().strip_prefix("outrigger rollout start "));
        let made: Vec<Value> = lines.filter(|l| !l.starts_with("-f")).map(object).collect();
        assert_eq!(made.len(), 3);
        for object in &made {
            let read = outrigger_control::spec::read(&object.to_string(), "");
            assert!(read.is_ok(), "{object}: {read:?}");
        }
        assert_eq!(
            made[0]["spec"]["gates"],
            json!({ "successRate": { "min": 99.5 }, "latency": { "p99": "200ms" } })
        );
        assert_eq!(made[1]["spec"]["steps"][0], json!({ "weight": 5.0, "hold": "30s" }));
        assert_eq!(made[1]["spec"]["sticky"], json!({ "header": "x-user" }));
        assert_eq!(made[2]["spec"]["match"][0]["headers"][0]["name"], "x-preview");
    }

    #[test]
    fn what_goes_together_is_said_together() {
        for line in [
            "cart --from v1",
            "cart --to v2",
            "-f x cart",
            "cart --from a --to b --preview 1m",
            "cart --from a --to b --steps 1,100 --blue-green",
        ] {
            let words = ["start"].into_iter().chain(line.split(' '));
            assert!(Line::try_parse_from(words).is_err(), "{line}");
        }
        assert!(key("identity").is_ok() && key("header").is_err() && key("colour:red").is_err());
        assert!(header("x-preview").is_err());
        assert!(is_over(&json!({ "status": { "phase": "Holding" } })).is_err());
        assert!(is_over(&json!({ "status": { "phase": "RolledBack" } })).is_ok());
    }
}
