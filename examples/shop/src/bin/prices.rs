//! `prices`: what things cost, in two versions. It calls nobody.

use std::process::ExitCode;

use outrigger_shop::settings::Settings;
use outrigger_shop::{prices, serve};

#[tokio::main]
async fn main() -> ExitCode {
    serve::exit("shop-prices", run().await)
}

async fn run() -> anyhow::Result<()> {
    let settings = Settings::from_process()?;
    let router = prices::router(settings.version, settings.delay);
    let stop = serve::signalled()?;
    serve::http(serve::listen(settings.port).await?, router, stop).await
}
