//! `login`: tokens for users, by whatever name they give. It calls nobody.

use std::process::ExitCode;

use outrigger_shop::settings::Settings;
use outrigger_shop::{login, serve};

#[tokio::main]
async fn main() -> ExitCode {
    serve::exit("shop-login", run().await)
}

async fn run() -> anyhow::Result<()> {
    let settings = Settings::from_process()?;
    let router = login::router()?;
    let stop = serve::signalled()?;
    serve::http(serve::listen(settings.address).await?, router, stop).await
}
