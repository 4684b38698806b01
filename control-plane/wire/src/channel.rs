//! gRPC over connections that somebody else makes.

use std::io;

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint};

/// A channel over what `connect` makes: at the first call, and anew whenever the last one ended. The name in `endpoint` is
/// only what HTTP/2 wants as `:authority`. To be made within a tokio runtime.
pub(crate) fn over<F, IO>(endpoint: &Endpoint, connect: F) -> Channel
where
    F: Fn() -> BoxFuture<'static, io::Result<IO>> + Send + Sync + 'static,
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
        let connection = connect();
        async move { connection.await.map(TokioIo::new) }
    }))
}
