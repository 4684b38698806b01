//! What goes along with the calls of the application: the token of the request for whose sake a call is made, where the
//! called service wants it so; and what does not leave the mesh.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use outrigger_mesh::{Claims, IssuerName, ServiceName, TokenRules, TokenTravel};

use super::cache;
use super::exchange::{Answer, NotExchanged};
use super::gate::{self, claims_to_be_of, of_bearer};
use super::known::Known;
use super::{Verified, verify};
use crate::error::Error;

/// Makes the tokens of one attempt what they are to be where it goes. `mesh`: whether that is a sidecar of the mesh,
/// proven so.
pub fn outgoing(
    known: &Known,
    travel: TokenTravel,
    mesh: bool,
    served: Option<&Arc<Verified>>,
    headers: &mut HeaderMap,
) {
    match travel {
        // What is exchanged is not known here; see [`exchange`].
        TokenTravel::Keep | TokenTravel::Exchange { .. } => {}
        TokenTravel::Attach => attach(known, mesh, served, headers),
        TokenTravel::Strip => strip(known, served, headers),
    }
}

fn attach(known: &Known, mesh: bool, served: Option<&Arc<Verified>>, headers: &mut HeaderMap) {
    let Some(served) = served.filter(|_| mesh && !headers.contains_key(header::AUTHORIZATION)) else {
        return;
    };
    // What was good when it came may be over or revoked by now.
    if verify::accept(&known.load(), served, None, gate::now()).is_ok() {
        put(headers, served.secret());
    }
}

fn put(headers: &mut HeaderMap, token: &[u8]) {
    let mut value = zeroize::Zeroizing::new(Vec::with_capacity(token.len() + 7));
    value.extend_from_slice(b"Bearer ");
    value.extend_from_slice(token);
    if let Ok(mut value) = HeaderValue::from_bytes(&value) {
        // Kept out of the tables of HPACK.
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
}

/// Whether a token of the mesh is to go along, and in place of which: where the application sends none, or the very one
/// that came in.
pub fn to_exchange<'a>(
    known: &Known,
    served: Option<&'a Arc<Verified>>,
    headers: &HeaderMap,
) -> Option<&'a Arc<Verified>> {
    let served = served?;
    let own = gate::bearer(headers).ok()?;
    if own.is_some_and(|own| own != served.secret())
        || (own.is_none() && headers.contains_key(header::AUTHORIZATION))
    {
        return None;
    }
    verify::accept(&known.load(), served, None, gate::now()).is_ok().then_some(served)
}

/// Puts what was exchanged in place of `served`. What the control plane does not exchange does not go on either.
pub fn exchanged(
    answer: Answer,
    or_original: bool,
    service: &ServiceName,
    served: &Verified,
    headers: &mut HeaderMap,
) -> Result<(), Error> {
    match answer {
        Ok(exchanged) => put(headers, exchanged.secret()),
        Err(NotExchanged::Refused) => drop(headers.remove(header::AUTHORIZATION)),
        Err(NotExchanged::Unavailable) if or_original => put(headers, served.secret()),
        Err(NotExchanged::Unavailable) => return Err(NotExchanged::refuse(service)),
    }
    Ok(())
}

/// Takes out every token that is the mesh's: of an issuer that anybody in it believes, or the one that came in. Others are
/// the application's own affair: an outside host's own keys are carried in the same header.
fn strip(known: &Known, served: Option<&Arc<Verified>>, headers: &mut HeaderMap) {
    let known = known.load();
    for name in [header::AUTHORIZATION, header::PROXY_AUTHORIZATION] {
        let is_ours = |value: &HeaderValue| {
            let came_in = served.is_some_and(|served| contains(value.as_bytes(), served.secret()));
            came_in || claims_to_be_of(value).is_some_and(|iss| known.knows_iss(&iss))
        };
        if headers.get_all(&name).iter().any(is_ours) {
            headers.remove(&name);
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len().max(1)).any(|window| window == part)
}

/// The claims by which a call of the application is routed: those of the token that it carries itself, if any issuer of the
/// mesh signed it, else of the request for whose sake it is made. Its audience does not matter: nothing is allowed by it.
pub fn claims(known: &Known, served: Option<&Arc<Verified>>, headers: &HeaderMap) -> Option<Arc<Verified>> {
    let mut own = headers.get_all(header::AUTHORIZATION).iter();
    let (known, now) = (known.load(), gate::now());
    let found = match (own.next(), own.next()) {
        (None, _) => Arc::clone(served?),
        (Some(one), None) => {
            let issuers: Vec<IssuerName> = known.issuers().map(|keys| keys.issuer.name.clone()).collect();
            let max = TokenRules::MAX_BYTES as usize;
            cache::prove(&known, issuers.iter(), of_bearer(one)?, max, now).ok()?
        }
        (Some(_), Some(_)) => return None,
    };
    verify::accept(&known, &found, None, now).ok()?;
    Some(found)
}

/// The claims of a token, if there is one.
pub fn of(token: Option<&Arc<Verified>>) -> Option<&Claims> {
    token.map(|token| token.claims())
}
