//! A thousand sidecars before one control plane: each has its own certificate, connection and discovery stream, decodes
//! what it is sent and acknowledges it. Changes are made through the admin API and by registering instances; what is
//! measured is written to standard output as JSON.
//!
//! Starting control planes, repeating this for meshes of several sizes and drawing is the matter of `measure.py` beside it.

#![allow(clippy::print_stdout, reason = "its standard output is what it is for")]

mod admin;
mod changes;
mod churn;
mod figures;
mod mesh;
mod sidecar;
mod stall;
mod tap;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value as Json, json};

use admin::Admin;
use figures::Process;
use mesh::Mesh;
use sidecar::Fleet;

/// Sidecars that measure a control plane.
#[derive(Clone, Debug, Parser)]
struct Settings {
    /// Where the admin API of the control plane listens.
    #[arg(long)]
    admin: SocketAddr,
    /// Where sidecars connect.
    #[arg(long)]
    push: SocketAddr,
    /// The process of the control plane, whose CPU time and memory are read.
    #[arg(long)]
    pid: u32,
    /// How many sidecars there are.
    #[arg(long, default_value_t = 1_000)]
    sidecars: usize,
    /// How many services there are.
    #[arg(long, default_value_t = 1_000)]
    services: usize,
    /// How many endpoints each of them has, beside those that sidecars register.
    #[arg(long, default_value_t = 10)]
    endpoints: usize,
    /// How many services each sidecar uses, of which the first is used by all.
    #[arg(long, default_value_t = 10)]
    uses: usize,
    /// The services and endpoints are there already.
    #[arg(long)]
    planted: bool,
    /// Plants, and ends.
    #[arg(long)]
    only_plant: bool,
    /// How many changes of each kind are made, one after the other.
    #[arg(long, default_value_t = 50)]
    changes: usize,
    /// Endpoint changes a second.
    #[arg(long, default_value_t = 1_000)]
    churn: u32,
    /// For so many seconds; 0: none.
    #[arg(long, default_value_t = 0)]
    churn_seconds: u64,
    /// How many sidecars stop to read at the end; the others must not notice.
    #[arg(long, default_value_t = 0)]
    stalled: usize,
}

fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    outrigger_certs::warm_up()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("{}", runtime.block_on(measure(settings))?);
    Ok(())
}

async fn measure(settings: Settings) -> anyhow::Result<Json> {
    let (admin, process) = (Admin::new(settings.admin), Process::new(settings.pid));
    let mesh = Mesh::new(&settings);
    let begun = (Instant::now(), process.cpu()?);
    if !settings.planted {
        mesh.plant(&admin).await?;
    }
    let planting = json!({ "seconds": figures::seconds(begun.0.elapsed()), "cpu": process.cpu()? - begun.1 });
    if settings.only_plant {
        return Ok(json!({ "planting": planting, "memory": process.memory()? }));
    }
    let before = (Instant::now(), process.cpu()?, process.memory()?);
    let fleet = Fleet::connect(&settings, &mesh, &admin).await?;
    fleet.settle(Duration::from_millis(500)).await;
    let connecting = json!({
        "seconds": figures::seconds(before.0.elapsed()),
        "cpu": process.cpu()? - before.1,
        "bytesPerSidecar": fleet.bytes() / fleet.len() as u64,
        "memoryBefore": before.2,
    });
    let changes = changes::measure(&settings, &mesh, &admin, &fleet, &process).await?;
    let churned = match settings.churn_seconds {
        0 => Json::Null,
        seconds => churn::measure(&settings, seconds, &fleet, &process).await?,
    };
    let stalled = match settings.stalled {
        0 => Json::Null,
        _ => stall::measure(&settings, &mesh, &admin, &fleet).await?,
    };
    let convergence = admin.metrics("outrigger_control_push").await?;
    Ok(json!({
        "sidecars": settings.sidecars,
        "services": settings.services,
        "endpoints": settings.services * settings.endpoints + settings.sidecars,
        "uses": settings.uses,
        "planting": planting,
        "connecting": connecting,
        "changes": changes,
        "churn": churned,
        "stalled": stalled,
        "memory": process.memory()?,
        "told": convergence,
    }))
}
