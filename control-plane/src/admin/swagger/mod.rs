//! `/docs`: the document of this API as a page to read and to try things out on, Swagger UI.
//!
//! Its files are those of the crate `utoipa-swagger-ui-vendored`, which is the release archive of Swagger UI (Apache-2.0; its
//! LICENSE and NOTICE are served beside it) and nothing else. Nothing is fetched from anywhere: the policy of the page lets it ask
//! its own origin alone. It can do no more than whoever types his token into it, which it keeps as long as the page is open.

mod archive;

use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;

use super::ApiError;

/// `GET /docs`.
pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (OPENER, HeaderValue::from_static("same-origin")),
    ];
    (headers, PAGE).into_response()
}

/// `GET /docs/{file}`: what the page is made of.
pub(super) async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    let absent = || ApiError::new(StatusCode::NOT_FOUND, "the page at /docs has no such file");
    if name == "start.js" {
        return Ok(
            ([(header::CONTENT_TYPE, HeaderValue::from_static("text/javascript"))], START).into_response()
        );
    }
    let (_, place, kind) = FILES.into_iter().find(|(known, ..)| *known == name).ok_or_else(absent)?;
    let compressed = archive::gzip(SWAGGER_UI_VENDORED, place).ok_or_else(absent)?;
    // It is kept compressed, and every browser takes it so.
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_ENCODING, HeaderValue::from_static("gzip")),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600")),
    ];
    Ok((headers, compressed).into_response())
}

/// The files of the page: how they are called here, where they end in the archive, and what they are.
const FILES: [(&str, &str, &str); 5] = [
    ("swagger-ui.css", "/dist/swagger-ui.css", "text/css; charset=utf-8"),
    ("swagger-ui-bundle.js", "/dist/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    ("favicon.png", "/dist/favicon-32x32.png", "image/png"),
    ("LICENSE", "/LICENSE", "text/plain; charset=utf-8"),
    ("NOTICE", "/NOTICE", "text/plain; charset=utf-8"),
];

const PAGE: &str = include_str!("page.html");
const START: &str = include_str!("start.js");
const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// Swagger UI sets styles on elements, which `style-src` would forbid; nothing else may be but the files above.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_page_asks_for_files_that_are_there_and_for_nothing_else() {
        let asked: Vec<&str> =
            PAGE.split('"').filter(|text| text.contains('/') && !text.contains('<')).collect();
        assert_eq!(asked.len(), 4, "{asked:?}");
        for path in asked {
            let name = path.strip_prefix("/docs/").unwrap_or_else(|| panic!("{path} is not ours"));
            let response = file(Path(name.to_owned())).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{path}");
        }
        for (name, ..) in FILES {
            file(Path(name.to_owned())).await.unwrap_or_else(|e| panic!("{name}: {e:?}"));
        }
        assert!(!START.contains("http:") && !START.contains("https:"));
        assert!(file(Path("../Cargo.toml".into())).await.is_err());
    }
}
