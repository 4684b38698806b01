//! `web`: what people see of the shop.

use std::process::ExitCode;

use outrigger_shop::call::Outbound;
use outrigger_shop::settings::CallerSettings;
use outrigger_shop::{serve, web};

#[tokio::main]
async fn main() -> ExitCode {
    serve::exit("shop-web", run().await)
}

async fn run() -> anyhow::Result<()> {
    let settings = CallerSettings::from_process()?;
    let router = web::router(Outbound::new(settings.outbound))?;
    let stop = serve::signalled()?;
    serve::http(serve::listen(settings.service.address).await?, router, stop).await
}
