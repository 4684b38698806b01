//! Changes to headers: each name once, and none that somebody else answers for.

use http::{HeaderName, HeaderValue};
use outrigger_mesh::HeaderChanges;

use crate::check::Found;
use crate::spec::{self, Code, HeaderFilter, Problem};

/// The changes that are written at `pointer`.
pub(super) fn changes(pointer: &str, written: &HeaderFilter, found: &mut Found) -> HeaderChanges {
    let mut seen: Vec<HeaderName> = vec![];
    let mut changes = HeaderChanges::default();
    for (field, list) in [("set", &written.set), ("add", &written.add)] {
        for (i, header) in list.iter().enumerate() {
            let at = format!("{pointer}/{field}/{i}");
            let value = HeaderValue::from_str(&header.value).map_err(|_| {
                let message = format!("{:?} is not the value of a header", header.value);
                found.add(Problem::error(format!("{at}/value"), Code::BadValue, message));
            });
            let name = name(&format!("{at}/name"), &header.name, &mut seen, found);
            let (Some(name), Ok(value)) = (name, value) else { continue };
            if field == "set" { changes.set.push((name, value)) } else { changes.add.push((name, value)) }
        }
    }
    for (i, text) in written.remove.iter().enumerate() {
        changes.remove.extend(name(&format!("{pointer}/remove/{i}"), text, &mut seen, found));
    }
    if written == &HeaderFilter::default() {
        found.add(Problem::warning(pointer, Code::MissingField, "it changes nothing"));
    }
    changes
}

/// A header that may be changed, and is not changed twice.
fn name(pointer: &str, text: &str, seen: &mut Vec<HeaderName>, found: &mut Found) -> Option<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        found.add(Problem::error(pointer, Code::BadValue, format!("{text:?} is not the name of a header")));
        return None;
    };
    if let Some((message, hint)) = reserved(&name) {
        found.add(Problem::error(pointer, Code::Conflict, message).hint(hint));
        return None;
    }
    if seen.contains(&name) {
        let message = format!("{name} is changed twice; each header is changed in one way");
        let hint = "write several values in one, joined by commas";
        found.add(Problem::error(pointer, Code::Duplicate, message).hint(hint));
        return None;
    }
    seen.push(name.clone());
    Some(name)
}

/// Why a header is not a route's to change.
pub(in crate::check) fn reserved(name: &HeaderName) -> Option<(String, &'static str)> {
    let text = name.as_str();
    if text == "host" {
        let message = "host says where a request goes and is not changed as a header";
        return Some((message.into(), "write a URLRewrite with hostname"));
    }
    if spec::is_of_connection(text) {
        let message = format!("{text} belongs to one connection, and each sidecar writes its own");
        return Some((message, "leave it out"));
    }
    if text.starts_with("x-outrigger-") || text == "x-forwarded-client-cert" {
        let message = format!("{text} is what sidecars tell each other and their applications");
        return Some((message, "choose another name"));
    }
    None
}

/// Why a header is not where callers keep their place: it is taken out of their requests, and stands in every answer.
pub(in crate::check) fn keeps_no_place(name: &HeaderName) -> Option<(String, &'static str)> {
    let text = name.as_str();
    let message = match reserved(name) {
        Some((message, _)) => message,
        None if SAYS_MORE.contains(&text) => {
            format!("{text} says something else, and what keeps a place is taken out of every request")
        }
        None => return None,
    };
    Some((message, "choose a header of its own, like x-session"))
}

/// Headers that callers, servers and sidecars look at for what they say.
const SAYS_MORE: [&str; 12] = [
    "authorization",
    "content-encoding",
    "content-type",
    "cookie",
    "location",
    "origin",
    "proxy-authorization",
    "set-cookie",
    "traceparent",
    "tracestate",
    "www-authenticate",
    "x-forwarded-for",
];
