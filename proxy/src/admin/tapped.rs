//! `/tap`: live requests on the spot, a line of JSON each, until the tap ends or the client leaves.

use std::convert::Infallible;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderValue, Response, StatusCode, Uri, header};
use http_body::Frame;
use http_body_util::{Either, Full, StreamBody};
use outrigger_mesh::{BadTap, TapFilter};

use super::pages::{AdminState, Page, percent_decoded, text};
use crate::telemetry::tap::Tap;

/// A page, or lines as they come.
pub(super) type Answer = Response<Either<Full<Bytes>, StreamBody<Lines>>>;

/// The lines of a tap.
pub(super) type Lines = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

/// A page as an answer.
pub(super) fn page(page: Page) -> Answer {
    page.map(Either::Left)
}

/// Answers with what the query wants to see.
pub(super) fn answer(state: &AdminState, uri: &Uri) -> Answer {
    let filter = match filter(uri.query().unwrap_or_default()) {
        Ok(filter) => filter,
        Err(bad) => return page(text(StatusCode::BAD_REQUEST, &format!("{bad}\n"))),
    };
    match state.tap(filter) {
        Ok(tap) => {
            let mut answer = Response::new(Either::Right(StreamBody::new(lines(tap))));
            let kind = HeaderValue::from_static("application/x-ndjson");
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            answer
        }
        Err(full) => page(text(StatusCode::TOO_MANY_REQUESTS, &format!("{full}\n"))),
    }
}

fn filter(query: &str) -> Result<TapFilter, BadTap> {
    let mut filter = TapFilter::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (field, text) = pair.split_once('=').unwrap_or((pair, ""));
        filter.set(field, &percent_decoded(text))?;
    }
    Ok(filter)
}

fn lines(tap: Tap) -> Lines {
    Box::pin(stream::unfold(tap, |mut tap| async move {
        loop {
            let lines = tap.next().await?;
            if !lines.is_empty() {
                return Some((Ok(Frame::data(Bytes::from(lines))), tap));
            }
        }
    }))
}
