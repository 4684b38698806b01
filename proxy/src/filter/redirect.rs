//! The answer to ask elsewhere (HTTPRequestRedirectFilter of the Gateway API).

use http::uri::Authority;
use http::{HeaderValue, Response, StatusCode, header};
use outrigger_mesh::{PortNumber, Reason, Redirect};

use crate::error::Error;
use crate::http::body::ResponseBody;
use crate::http::canonical;
use crate::request::dispatch::Arrived;

/// The redirect of a request that came to `port` and was matched by `prefix`.
pub(super) fn answer(
    redirect: &Redirect,
    arrived: &Arrived,
    prefix: Option<&str>,
    port: PortNumber,
) -> Result<Response<ResponseBody>, Error> {
    let place = place(redirect, arrived, prefix, port)?;
    let location = HeaderValue::try_from(place)
        .map_err(|_| Error::downstream(Reason::BadRequest, "no Location can be made of the target"))?;
    let mut answer = Response::new(ResponseBody::Empty);
    *answer.status_mut() = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::FOUND);
    answer.headers_mut().insert(header::LOCATION, location);
    Ok(answer)
}

fn place(
    redirect: &Redirect,
    arrived: &Arrived,
    prefix: Option<&str>,
    port: PortNumber,
) -> Result<String, Error> {
    let https = redirect.https.unwrap_or(arrived.tls);
    let asked = canonical::authority(&arrived.parts)?;
    let asked = asked.parse::<Authority>().ok();
    let host = match (&redirect.host, &asked) {
        (Some(host), _) => host.as_str(),
        (None, Some(asked)) => asked.host(),
        (None, None) => return Err(Error::downstream(Reason::BadRequest, "the request names no host")),
    };
    // A scheme that is given brings its own port along; else it is the one that was asked.
    let port = match (redirect.port, redirect.https) {
        (Some(port), _) => Some(port.get()),
        (None, Some(_)) => None,
        (None, None) => Some(port.get()),
    };
    let (scheme, usual) = if https { ("https", 443) } else { ("http", 80) };
    let port = port.filter(|port| *port != usual).map(|port| format!(":{port}")).unwrap_or_default();
    let own = arrived.target.path();
    let path = redirect.path.as_ref().map_or_else(|| own.to_owned(), |change| change.of(own, prefix));
    let query = arrived.target.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{scheme}://{host}{port}{path}{query}"))
}
