//! The log: to stderr, with a filter that can be changed while the process runs.

use std::io::IsTerminal;
use std::sync::OnceLock;

use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// The form of the log's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The one log of the process.
static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// Begins to log. An error says what is wrong with the filter.
pub fn init(filter: &str, format: LogFormat) -> Result<(), String> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let registry = tracing_subscriber::registry().with(filter);
    let begun = match format {
        LogFormat::Text => {
            let colour = std::io::stderr().is_terminal();
            registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(colour)).try_init()
        }
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init(),
    };
    begun.map_err(|e| e.to_string())?;
    FILTER.set(handle).map_err(|_| "the log was begun twice".into())
}

/// Changes what is logged.
pub fn set_filter(filter: &str) -> Result<(), String> {
    let handle = FILTER.get().ok_or("this process does not log")?;
    handle.reload(parse(filter)?).map_err(|e| e.to_string())
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(filter).map_err(|e| format!("{filter:?} is no log filter: {e}"))
}
