//! `outrigger get --watch`: what is stored, and then each change of it as it is made.
//!
//! A watch goes on where it was when its connection ends, or its control plane. Where the changes meanwhile are not kept
//! any more everything is told again.

use std::time::Duration;

use serde_json::Value;

use crate::client::{Admin, Watched};
use crate::failure::{Exit, Failure};
use crate::get::table;
use crate::kind::{Kind, named};
use crate::out::{self, Format};

/// What is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: Option<&'a str>,
    /// All of them without one.
    pub(crate) namespace: Option<&'a str>,
    pub(crate) format: Format,
}

impl Watch<'_> {
    /// Tells what there is and then what changes, until nobody listens or it is refused.
    pub(crate) async fn run(self, admin: &Admin) -> Result<(), Failure> {
        let of = if self.kind.is_counted_apart() { "instances" } else { "config" };
        let mut since = self.all(admin).await?;
        let mut waits = FIRST_WAIT;
        loop {
            match admin.watch(of, since).await {
                Ok(Watched::Gone) => since = self.all(admin).await?,
                Ok(Watched::Events(mut events)) => {
                    waits = FIRST_WAIT;
                    while let Ok(Some(event)) = events.next().await {
                        self.event(&event.data)?;
                        since = event.id.unwrap_or(since);
                    }
                }
                Err(failure) if failure.exit() == Exit::Unreachable => {
                    if waits == FIRST_WAIT {
                        out::warn(format!("{failure}; trying again"));
                    }
                    tokio::time::sleep(waits).await;
                    waits = (waits * 2).min(LONGEST_WAIT);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Tells what there is; answers the count that changes go on from.
    async fn all(self, admin: &Admin) -> Result<u64, Failure> {
        let list = admin.list(self.kind.plural(), self.namespace).await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let items: Vec<Value> =
            items.into_iter().filter(|one| self.is_meant(named(one).1.as_str())).collect();
        match self.format {
            Format::Table if items.is_empty() => out::say(table(self.kind, &[])),
            Format::Table => out::say(table(self.kind, &items)),
            format => items.iter().try_for_each(|one| print(one, format))?,
        }
        let count = if self.kind.is_counted_apart() { "generation" } else { "revision" };
        Ok(list[count].as_u64().unwrap_or(0))
    }

    fn is_meant(self, name: &str) -> bool {
        self.name.is_none_or(|wanted| wanted == name)
    }

    /// Tells what one change did to what is watched.
    fn event(self, data: &str) -> Result<(), Failure> {
        let told: Value = serde_json::from_str(data)
            .map_err(|e| Failure::failed(format!("the control plane told of a change in no JSON: {e}")))?;
        for change in told["changes"].as_array().into_iter().flatten() {
            let object = change["object"].as_str().unwrap_or_default();
            let mut path = object.split('/');
            let (plural, namespace, name) = (path.next(), path.next(), path.next().unwrap_or_default());
            let is_here = self.namespace.is_none_or(|wanted| namespace == Some(wanted));
            if plural != Some(self.kind.plural()) || !is_here || !self.is_meant(name) {
                continue;
            }
            let action = change["action"].as_str().unwrap_or("changed");
            match self.format {
                // The head of the table was told with what there is.
                Format::Table if action == "deleted" => {
                    out::say(format!("{}  {name}  (deleted)", namespace.unwrap_or_default()));
                }
                Format::Table => {
                    let lines = table(self.kind, &[change["resource"].clone()]);
                    out::say(format!("{}  ({action})", lines.lines().nth(1).unwrap_or_default()));
                }
                format => print(change, format)?,
            }
        }
        Ok(())
    }
}

/// One value: a line of JSON, or a document of YAML.
fn print(value: &Value, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => out::say(value.to_string()),
        Format::Yaml | Format::Table => out::say(format!("---\n{}", out::yaml(value)?.trim_end())),
    }
    Ok(())
}

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
