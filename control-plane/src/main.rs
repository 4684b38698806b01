//! `outrigger-control`: settings → app → wait for a signal.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Parser;
use outrigger_control::app::{self, App};
use outrigger_control::settings::Settings;
use outrigger_process::{log, panics};
use tokio::signal::unix::{SignalKind, signal};

/// A start reads the whole store at once, and a large mesh lives in small pieces: jemalloc gives back what is free, where the
/// system's allocator keeps it. Its settings are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let settings = Settings::parse();
    if let Err(why) = log::init(&settings.log, settings.log_format) {
        return refuse(&anyhow!(why).context("--log"), 2);
    }
    panics::install();
    let ran = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("can not start the runtime")
        .and_then(|runtime| runtime.block_on(run(settings)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => refuse(&why, 3),
    }
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    // Keys lie in this process's memory: no core file, no other process that reads it.
    outrigger_certs::harden_process().context("can not keep other processes out of this one's memory")?;
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let ready_file = settings.ready_file.clone();
    let app = app::build(settings).await?;
    if let Some(file) = &ready_file {
        tell_ready(file, &app).with_context(|| format!("can not write {}", file.display()))?;
    }
    tracing::info!(push = %app.push, admin = %app.admin, "serving");
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("ending: sidecars serve on with what they have");
    app.shutdown().await;
    Ok(())
}

/// Whole or not at all: whoever waits for the file must never read half of it.
fn tell_ready(file: &Path, app: &App) -> std::io::Result<()> {
    let text = serde_json::json!({
        "push": app.push.to_string(),
        "admin": app.admin.to_string(),
        "webhook": app.webhook.map(|address| address.to_string()),
        "pid": std::process::id(),
    });
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, text.to_string())?;
    std::fs::rename(&fresh, file)
}

/// One line that says what is wrong.
fn refuse(why: &anyhow::Error, code: u8) -> ExitCode {
    let line = format!("{why:#}").split_whitespace().collect::<Vec<_>>().join(" ");
    // Nobody is left to tell when the last line can not be written.
    let _ = writeln!(std::io::stderr(), "outrigger-control: {line}");
    ExitCode::from(code)
}
