//! A request asks for something else there than here (HTTPURLRewriteFilter of the Gateway API).

use http::uri::PathAndQuery;
use http::{HeaderValue, header};
use outrigger_mesh::Rewrite;

use crate::attempt::send::Outgoing;

/// Rewrites the Host and the path of a request that was matched by `prefix`. The query stays.
pub(super) fn apply(rewrite: &Rewrite, head: &mut Outgoing, prefix: Option<&str>) {
    if let Some(host) = rewrite.host.as_ref().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
        // What the caller named, wherever it stood, is gone.
        head.authority = None;
        head.headers.insert(header::HOST, host);
    }
    if let Some(change) = &rewrite.path {
        let path = change.of(head.target.path(), prefix);
        let target = match head.target.query() {
            Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
            None => PathAndQuery::try_from(path),
        };
        if let Ok(target) = target {
            head.target = target;
        }
    }
}
