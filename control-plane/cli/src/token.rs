//! `outrigger token`: tokens of the admin API.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::args::Printed;
use crate::client::Admin;
use crate::failure::{Doing, Failure};
use crate::out::{self, Format};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Token {
    /// Make a token. It is shown once, here.
    Create(Create),
    /// List the tokens, without their secrets.
    List(List),
    /// End a token at once.
    Revoke(Revoke),
}

/// Make a token. It is shown once, here.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// What it is called in the audit log.
    name: String,
    /// viewer (reads), editor (writes in its namespaces), operator (also what holds for the mesh, and join tokens) or
    /// admin (also tokens).
    #[arg(long)]
    role: String,
    /// The namespace a viewer or editor is bound to; can be given several times. The whole mesh unless said.
    #[arg(short, long = "namespace")]
    namespaces: Vec<String>,
    /// How long it is good, as 24h; a year at most.
    #[arg(long, default_value = "720h")]
    ttl: String,
    /// Write it to this file, which must not be there and only you can read, instead of showing it.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    #[command(flatten)]
    printed: Printed,
}

/// List the tokens, without their secrets.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    printed: Printed,
}

/// End a token at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Revoke {
    /// Its id, as `outrigger token list` shows it.
    id: String,
}

impl Token {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        match self {
            Self::Create(create) => create.run(admin).await?,
            Self::List(list) => list.run(admin).await?,
            Self::Revoke(revoke) => {
                let ended = admin.revoke_token(&revoke.id).await?;
                out::say(format!("revoked {} ({})", text(&ended, "name"), text(&ended, "id")));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Create {
    async fn run(self, admin: &Admin) -> Result<(), Failure> {
        let mut wanted = json!({ "name": self.name, "role": self.role, "ttl": self.ttl });
        if !self.namespaces.is_empty() {
            wanted["namespaces"] = json!(self.namespaces);
        }
        // The file first: a token that is made and then lost would stay good.
        let file = self.to.as_ref().map(|path| {
            let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            opened.doing(path.display())
        });
        let file = file.transpose()?;
        let made = admin.create_token(&wanted).await;
        let mut made = match (made, &self.to) {
            (Err(failure), Some(path)) => {
                let _absent = std::fs::remove_file(path);
                return Err(failure);
            }
            (made, _) => made?,
        };
        let secret = made["token"].as_str().unwrap_or_default().to_owned();
        if let Some(mut file) = file {
            writeln!(file, "{secret}").doing("can not write the token")?;
            if let Some(fields) = made.as_object_mut() {
                fields.remove("token");
            }
        }
        match (self.printed.format, &self.to) {
            (Format::Table, Some(path)) => {
                out::say(format!(
                    "made {} ({}), in {}",
                    text(&made, "name"),
                    text(&made, "id"),
                    path.display()
                ));
            }
            // The bare token, for programs that take it from here.
            (Format::Table, None) => {
                out::say(secret);
                out::warn(format!(
                    "made {} ({}): this is the only time it is shown",
                    text(&made, "name"),
                    text(&made, "id")
                ));
            }
            (format, _) => out::value(&made, format)?,
        }
        Ok(())
    }
}

impl List {
    async fn run(self, admin: &Admin) -> Result<(), Failure> {
        let list = admin.list("tokens", None).await?;
        if self.printed.format != Format::Table {
            return out::value(&list, self.printed.format);
        }
        let rows = list["items"].as_array().cloned().unwrap_or_default().into_iter().map(|token| {
            let some = token["namespaces"]
                .as_array()
                .map(|all| all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","));
            vec![
                text(&token, "id"),
                text(&token, "name"),
                text(&token, "role"),
                some.unwrap_or_else(|| "all".into()),
                text(&token, "state"),
                text(&token, "expires"),
                text(&token, "lastUsed"),
            ]
        });
        out::say(out::table(&["id", "name", "role", "namespaces", "state", "expires", "last used"], rows));
        Ok(())
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or("-").to_owned()
}
