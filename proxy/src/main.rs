//! The sidecar's process: settings, then [`app::build`], then waiting for a signal.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use outrigger_process::{log, panics};
use outrigger_proxy::app::{self, StartError};
use outrigger_proxy::drain::{Ask, Drain};
use outrigger_proxy::health::wait::Wait;
use outrigger_proxy::leave::Leave;
use outrigger_proxy::listen::descriptors;
use outrigger_proxy::log_level;
use outrigger_proxy::ready;
use outrigger_proxy::settings::{Args, Settings};
use tokio::signal::unix::{Signal, SignalKind, signal};

fn main() -> ExitCode {
    match ready::asked(std::env::args().skip(1)) {
        None => {}
        Some(Ok(())) => return ExitCode::SUCCESS,
        Some(Err(why)) => return fail(NOT_READY, &why),
    }
    if std::env::args_os().nth(1).is_some_and(|word| word == "wait") {
        return wait();
    }
    if std::env::args_os().nth(1).is_some_and(|word| word == "log-level") {
        return log_level();
    }
    if std::env::args_os().nth(1).is_some_and(|word| word == "leave") {
        let left = Leave::parse_from(std::env::args_os().skip(1)).run();
        return left.map_or_else(|why| fail(NOT_READY, &why), |()| ExitCode::SUCCESS);
    }
    let args = Args::parse();
    // Read here and nowhere else: a token in the environment would be seen in `--help`.
    let token = std::env::var("OUTRIGGER_JOIN_TOKEN").ok();
    let settings = Settings::new(args, token.as_deref()).and_then(|settings| {
        log::init(&settings.log, settings.log_format)?;
        Ok(settings)
    });
    let settings = match settings {
        Ok(settings) => settings,
        Err(mistakes) => return fail(WRONG_SETTINGS, &mistakes),
    };
    panics::install();
    descriptors::raise_limit();
    if let Err(error) = outrigger_certs::harden_process() {
        tracing::warn!(%error, "the process's memory can be read by others of the same user");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(CAN_NOT_START, &error.to_string()),
    };
    match runtime.block_on(run(settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, why)) => fail(code, &why),
    }
}

/// `outrigger-proxy wait …`: another program in the same file, since an image without a shell has no other.
fn wait() -> ExitCode {
    let wait = Wait::parse_from(std::env::args_os().skip(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(|e| e.to_string()).and_then(|runtime| runtime.block_on(wait.run())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(NOT_STARTED, &why),
    }
}

/// `outrigger-proxy log-level …`: what the sidecar beside this process logs.
fn log_level() -> ExitCode {
    match log_level::Asked::parse_from(std::env::args_os().skip(1)).run() {
        Ok(told) => {
            // Whoever reads it may have gone.
            let _ = writeln!(std::io::stdout(), "{told}");
            ExitCode::SUCCESS
        }
        Err(why) => fail(NOT_READY, &why),
    }
}

/// Until it is told to end; else the exit code and why.
async fn run(settings: Settings) -> Result<(), (u8, String)> {
    let mut signals = Signals::new().map_err(|e| (CAN_NOT_START, e.to_string()))?;
    let app = tokio::select! {
        app = app::build(settings) => app.map_err(|e| (code_of(&e), e.to_string()))?,
        // Nothing serves yet, so there is nothing to finish.
        () = signals.next() => return Ok(()),
    };
    let bound = &app.bound;
    tracing::info!(outbound = %bound.outbound, inbound = ?bound.inbound, admin = %bound.admin, uid = %bound.uid, "serving");
    let drain = app.drain.clone();
    tokio::select! {
        ended = app.wait() => ended.map_err(|why| (CAN_NOT_START, why)),
        () = pass_on(signals, drain) => Ok(()),
    }
}

/// The first signal ends in order, the second at once.
async fn pass_on(mut signals: Signals, drain: Drain) {
    signals.next().await;
    drain.ask(Ask::End);
    signals.next().await;
    drain.ask(Ask::Now);
    std::future::pending::<()>().await;
}

struct Signals(Signal, Signal);

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

fn code_of(error: &StartError) -> u8 {
    if error.address_is_taken() { ADDRESS_IS_TAKEN } else { CAN_NOT_START }
}

fn fail(code: u8, why: &str) -> ExitCode {
    for line in why.lines() {
        eprintln!("outrigger-proxy: {line}");
    }
    ExitCode::from(code)
}

const NOT_STARTED: u8 = 1;
const WRONG_SETTINGS: u8 = 2;
const CAN_NOT_START: u8 = 3;
/// Known to `outrigger run`, which takes other ports then.
const ADDRESS_IS_TAKEN: u8 = 4;
/// `outrigger-proxy ready`: it does not serve, or is not there.
const NOT_READY: u8 = 1;
