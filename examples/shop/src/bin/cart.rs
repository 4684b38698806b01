//! `cart`: what people are about to buy.

use std::process::ExitCode;

use outrigger_shop::call::Outbound;
use outrigger_shop::settings::CallerSettings;
use outrigger_shop::{cart, serve};

#[tokio::main]
async fn main() -> ExitCode {
    serve::exit("shop-cart", run().await)
}

async fn run() -> anyhow::Result<()> {
    let settings = CallerSettings::from_process()?;
    let router = cart::router(Outbound::new(settings.outbound));
    let stop = serve::signalled()?;
    serve::http(serve::listen(settings.service.address).await?, router, stop).await
}
