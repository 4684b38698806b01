//! `prices`: what things cost, in two versions. It calls nobody.

use std::process::ExitCode;

use outrigger_shop::settings::PricesSettings;
use outrigger_shop::{prices, serve};

#[tokio::main]
async fn main() -> ExitCode {
    serve::exit("shop-prices", run().await)
}

async fn run() -> anyhow::Result<()> {
    let settings = PricesSettings::from_process()?;
    let router = prices::router(settings.version, settings.service.delay);
    let stop = serve::signalled()?;
    serve::http(serve::listen(settings.service.address).await?, router, stop).await
}
