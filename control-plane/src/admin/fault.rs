//! A request whose handler panics: it is answered, and the others on its connection go on.

use std::panic::AssertUnwindSafe;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use super::ApiError;

/// Answers also where the handler panicked. What it was about is in the log, and told to nobody.
pub(super) async fn survived(request: Request, next: Next) -> Response {
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    answer.unwrap_or_else(|_| {
        let detail = "this is a fault of the control plane; its log says where";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
    })
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn broken() -> &'static str {
        panic!("a secret that was at hand: {}", std::process::id())
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_answered_and_the_next_is_served() {
        let router = Router::new().route("/broken", get(broken)).route("/well", get(async || "well"));
        let router = router.layer(from_fn(survived));
        for (path, status, has) in [("/broken", 500, "its log says where"), ("/well", 200, "well")] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let answer = router.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status);
            let text = to_bytes(answer.into_body(), 1 << 16).await.unwrap();
            let text = String::from_utf8_lossy(&text);
            assert!(text.contains(has) && !text.contains("secret"), "{text}");
        }
    }
}
