//! `outrigger dashboard`: where the pages of the mesh are, and how one comes in.

use std::process::{Command, ExitCode, Stdio};

use serde_json::{Value, json};

use crate::args::Printed;
use crate::client::Admin;
use crate::failure::{Doing, Failure};
use crate::out::{self, Format};

/// Tell where the dashboard is, and how one comes in.
#[derive(Debug, clap::Args)]
pub(crate) struct Dashboard {
    /// Show it in the browser of this machine, too.
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    printed: Printed,
}

impl Dashboard {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        // It is asked, so that what is told is true: it runs, and takes us for somebody.
        let who = admin.whoami().await?;
        // Without anything that proves who one is: what stands in an address is kept in histories and logs.
        let url = format!("{}/dashboard/", admin.url());
        let how = how(&who);
        if self.printed.format == Format::Table {
            out::say(&url);
            out::say(how);
        } else {
            out::value(&json!({ "url": url, "login": how }), self.printed.format)?;
        }
        if self.open {
            open(&url)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// How one comes in, by how we did.
fn how(who: &Value) -> &'static str {
    match who["by"].as_str() {
        Some("local") => "whoever is on this machine comes in without a token",
        Some("certificate") => {
            "it asks for a token; `outrigger token create NAME --role viewer` makes one, or import the certificate into the browser"
        }
        _ => "it asks for a token: that of your login, or one of `outrigger token create NAME --role viewer`",
    }
}

fn open(url: &str) -> Result<(), Failure> {
    let started = Command::new("xdg-open")
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .doing("can not start xdg-open, which shows pages in a browser")?;
    if started.success() {
        return Ok(());
    }
    Err(Failure::failed("xdg-open found no browser").hint("open the address by hand"))
}
