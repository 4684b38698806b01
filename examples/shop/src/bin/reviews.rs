//! `reviews`: what buyers say, by gRPC. It calls nobody.

use std::process::ExitCode;

use outrigger_shop::reviews::Catalogued;
use outrigger_shop::serve;
use outrigger_shop::settings::Settings;

#[tokio::main]
async fn main() -> ExitCode {
    serve::exit("shop-reviews", run().await)
}

async fn run() -> anyhow::Result<()> {
    let settings = Settings::from_process()?;
    let stop = serve::signalled()?;
    let reviews = Catalogued { delay: settings.delay };
    serve::reviews(serve::listen(settings.address).await?, reviews, stop).await
}
