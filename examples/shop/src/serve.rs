//! Listening, and ending well: on SIGTERM or SIGINT no new work is taken and what is in flight
//! finishes, within [`GRACE`].

use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::reviews::{Catalogued, ReviewsServer};

/// Ends when the service should.
pub type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Listens and says where, in one line on stderr.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("can not listen on {address}"))?;
    eprintln!("listening on {}", listener.local_addr()?);
    Ok(listener)
}

/// Ends at SIGTERM or SIGINT; from this call on they no longer kill the process.
pub fn signalled() -> anyhow::Result<Stop> {
    let mut terminate = signal(SignalKind::terminate()).context("can not listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can not listen for SIGINT")?;
    Ok(Box::pin(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }))
}

/// Serves `router` by HTTP/1.1 and by HTTP/2 without TLS until `stop`.
pub async fn http(listener: TcpListener, router: Router, stop: Stop) -> anyhow::Result<()> {
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let router = router.layer(DefaultBodyLimit::max(MAX_BODY));
    let serve = |stop| axum::serve(listener, router).with_graceful_shutdown(stop).into_future();
    bounded(stop, serve).await.context("can not serve")
}

/// Serves the gRPC service `reviews` until `stop`.
pub async fn reviews(listener: TcpListener, reviews: Catalogued, stop: Stop) -> anyhow::Result<()> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = ReviewsServer::new(reviews).max_decoding_message_size(MAX_BODY);
    let serve = |stop| {
        Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, stop)
    };
    bounded(stop, serve).await.context("can not serve")
}

/// How the process ends: `who` failed is said in one line.
pub fn exit(who: &str, ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{who}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a server that ends by itself once told to, and leaves it behind [`GRACE`] after that.
async fn bounded<S, E>(stop: Stop, serve: impl FnOnce(Stop) -> S) -> Result<(), E>
where
    S: Future<Output = Result<(), E>>,
{
    let (told, tell) = oneshot::channel();
    let server = serve(Box::pin(async move {
        stop.await;
        // The other side is gone only when the server has ended already.
        let _ = told.send(());
    }));
    let patience = async {
        match tell.await {
            Ok(()) => tokio::time::sleep(GRACE).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = server => ended,
        () = patience => {
            eprintln!("requests were still in flight after {} s", GRACE.as_secs());
            Ok(())
        }
    }
}

/// How long requests in flight may take to finish once the service was told to stop.
pub const GRACE: Duration = Duration::from_secs(5);

const MAX_BODY: usize = 16 * 1024;
const MAX_STREAMS: u32 = 256;
