//! `outrigger context`: names for control planes, for whoever works with several meshes.
//!
//! A context is a name for a control plane that was logged in to; what proves who we are stays with its address, so that
//! two names of one control plane are one login.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::args::{Control, Printed};
use crate::credentials::{self, Credentials};
use crate::failure::Failure;
use crate::out::{self, Format};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Context {
    /// Show the contexts; the one that commands are for bears a star.
    List(List),
    /// Give a control plane a name: the one of --server, or else the one that commands are for.
    Set(Name),
    /// Let commands be for this context from now on.
    Use(Name),
    /// Forget a name. The login stays: `outrigger logout` ends that.
    Delete(Name),
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    printed: Printed,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Name {
    name: String,
}

impl Context {
    pub(crate) fn run(self, control: &Control) -> Result<ExitCode, Failure> {
        let folder = credentials::folder()?;
        let mut kept = Credentials::load(&folder)?;
        match self {
            Self::List(list) => list.run(&kept, control)?,
            Self::Set(Name { name }) => {
                is_name(&name)?;
                let url = control.server(&kept)?.url();
                kept.contexts.insert(name.clone(), url.clone());
                kept.save(&folder)?;
                out::say(format!("{name} is {url}"));
            }
            Self::Use(Name { name }) => {
                let url = kept.of_context(&name)?.to_owned();
                kept.current = Some(url.clone());
                kept.save(&folder)?;
                out::say(format!("commands are for {name}, {url}"));
            }
            Self::Delete(Name { name }) => {
                kept.of_context(&name)?;
                kept.contexts.remove(&name);
                kept.save(&folder)?;
                out::say(format!("forgot the name {name}"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    fn run(&self, kept: &Credentials, control: &Control) -> Result<(), Failure> {
        let meant = control.server(kept)?.url();
        let items: Vec<Value> = kept
            .contexts
            .iter()
            .map(|(name, url)| {
                let known = kept.servers.contains_key(url);
                json!({ "name": name, "server": url, "login": known, "current": *url == meant })
            })
            .collect();
        if self.printed.format != Format::Table {
            return out::value(&json!({ "items": items }), self.printed.format);
        }
        if items.is_empty() {
            out::warn(format!("no control plane has a name; commands are for {meant}"));
            return Ok(());
        }
        let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
        let rows = items.iter().map(|one| {
            let star = if one["current"] == true { "*" } else { "-" };
            let login = if one["login"] == true { "yes" } else { "no" };
            vec![star.to_owned(), text(one, "name"), text(one, "server"), login.to_owned()]
        });
        out::say(out::table(&["current", "name", "server", "login"], rows));
        Ok(())
    }
}

fn is_name(name: &str) -> Result<(), Failure> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=63).contains(&name.len()) && name.chars().all(is_plain) {
        return Ok(());
    }
    Err(Failure::usage(format!("{name:?} is not a name for a context"))
        .hint("up to 63 letters, digits, dashes, underscores and dots"))
}
