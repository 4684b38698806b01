//! What a rule does to requests and answers: each filter by itself, and whether they go together.

use std::collections::HashSet;

use outrigger_mesh::{
    Filters, Fraction, HeaderChanges, Hostname, Mirror, PathChange, PathMatch, PortNumber, Redirect, Rewrite,
    RouteMatch,
};

use super::backends::{Named, Place};
use super::{Context, Extension, cors, headers};
use crate::check::Found;
use crate::spec::{
    Code, Filter, FilterType, Key, Kind, MirrorFilter, ObjectName, PathModifier, PathModifierType, Problem,
    RedirectFilter, Scheme,
};

/// The changes of a backend's own filters.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) request: HeaderChanges,
    pub(super) response: HeaderChanges,
}

/// The filters of a backend: changes to headers, and nothing else.
pub(super) fn of_backend(pointer: &str, written: &[Filter], found: &mut Found) -> Changes {
    let mut changes = Changes::default();
    once_each(&format!("{pointer}/filters"), written, found);
    for (i, filter) in written.iter().enumerate() {
        let at = format!("{pointer}/filters/{i}");
        if !union(&at, filter, found) {
            continue;
        }
        match (filter.kind, &filter.request_header_modifier, &filter.response_header_modifier) {
            (FilterType::RequestHeaderModifier, Some(header), _) => {
                changes.request = headers::changes(&format!("{at}/requestHeaderModifier"), header, found);
            }
            (FilterType::ResponseHeaderModifier, _, Some(header)) => {
                changes.response = headers::changes(&format!("{at}/responseHeaderModifier"), header, found);
            }
            _ => {
                let message = format!("a backend has no filter {}; a rule has", filter.kind.as_str());
                let problem = Problem::error(format!("{at}/type"), Code::Unsupported, message);
                found.add(problem.hint("write it among the filters of the rule, or make two rules"));
            }
        }
    }
    changes
}

impl Context<'_> {
    /// The filters of a rule.
    pub(super) fn filters(
        &self,
        pointer: &str,
        written: &[Filter],
        matches: &[RouteMatch],
        found: &mut Found,
    ) -> Filters {
        let mut filters = Filters::default();
        let list = format!("{pointer}/filters");
        once_each(&list, written, found);
        for (i, filter) in written.iter().enumerate() {
            let at = format!("{list}/{i}");
            if union(&at, filter, found) {
                self.filter(&at, filter, matches, &mut filters, found);
            }
        }
        if filters.redirect.is_some() && filters.rewrite.is_some() {
            let message = "what is redirected is asked for elsewhere, so that nothing here is rewritten";
            let problem = Problem::error(list.clone(), Code::Contradiction, message);
            found.add(problem.hint("keep one of RequestRedirect and URLRewrite"));
        }
        if filters.mirrors.len() > Filters::MAX_MIRRORS {
            let message = format!("a rule has at most {} mirrors", Filters::MAX_MIRRORS);
            found.add(Problem::error(list, Code::TooLarge, message));
        }
        filters
    }

    fn filter(
        &self,
        at: &str,
        filter: &Filter,
        matches: &[RouteMatch],
        filters: &mut Filters,
        found: &mut Found,
    ) {
        let at = format!("{at}/{}", filter.kind.field());
        if let Some(written) = &filter.request_header_modifier {
            filters.request = headers::changes(&at, written, found);
        }
        if let Some(written) = &filter.response_header_modifier {
            filters.response = headers::changes(&at, written, found);
        }
        if let Some(written) = &filter.request_mirror {
            filters.mirrors.extend(self.mirror(&at, written, found));
        }
        if let Some(written) = &filter.request_redirect {
            filters.redirect = redirect(&at, written, matches, found);
        }
        if let Some(written) = &filter.url_rewrite {
            let path = written.path.as_ref().map(|p| path(&format!("{at}/path"), p, matches, found));
            if written.hostname.is_none() && written.path.is_none() {
                found.add(Problem::warning(at.clone(), Code::MissingField, "it rewrites nothing"));
            }
            let host = written.hostname.as_deref().map(|h| hostname(&format!("{at}/hostname"), h, found));
            filters.rewrite = Some(Rewrite { host: host.flatten(), path: path.flatten() });
        }
        if let Some(written) = &filter.cors {
            filters.cors = Some(cors::cors(&at, written, found));
        }
    }

    /// The filters of our own that a rule names.
    pub(super) fn extensions(&self, pointer: &str, written: &[Filter], found: &mut Found) -> Vec<Extension> {
        let mut all: Vec<Extension> = vec![];
        for (i, filter) in written.iter().enumerate() {
            let Some(named) =
                filter.extension_ref.as_ref().filter(|_| filter.kind == FilterType::ExtensionRef)
            else {
                continue;
            };
            let at = format!("{pointer}/filters/{i}/extensionRef");
            let extension = if (named.group.as_str(), named.kind.as_str()) == ("outrigger.dev", "RouteFilter")
            {
                let name = ObjectName::new(&named.name).map_err(|e| {
                    found.add(Problem::error(format!("{at}/name"), Code::BadValue, e));
                });
                let Ok(name) = name else { continue };
                Extension::Filter(Key {
                    kind: Kind::RouteFilter,
                    namespace: self.key.namespace.clone(),
                    name,
                })
            } else {
                Extension::Foreign(format!("{:?} of the group {:?}", named.kind, named.group))
            };
            if all.contains(&extension) {
                let problem = Problem::error(at, Code::Duplicate, "the same filter is there twice");
                found.add(problem.hint("name it once"));
                continue;
            }
            all.push(extension);
        }
        all
    }

    fn mirror(&self, at: &str, written: &MirrorFilter, found: &mut Found) -> Option<Mirror> {
        if written.percent.is_some() && written.fraction.is_some() {
            let problem =
                Problem::error(at, Code::Contradiction, "percent and fraction say the same thing twice");
            found.add(problem.hint("keep one of them"));
        }
        let share = match (written.percent, written.fraction) {
            (Some(percent), _) => Fraction { of: percent, out_of: 100 },
            (None, Some(part)) => {
                let out_of = part.denominator.unwrap_or(100);
                if part.numerator > out_of {
                    let message = format!("{}/{out_of} is more than everything", part.numerator);
                    found.add(Problem::error(format!("{at}/fraction/numerator"), Code::BadValue, message));
                }
                Fraction { of: part.numerator, out_of }
            }
            (None, None) => Fraction::ALL,
        };
        match self.named_backend(&format!("{at}/backendRef"), &written.backend_ref, found)? {
            Named::Known(Place { service, version, port }) => Some(Mirror { service, version, port, share }),
            // There is nobody to send copies to.
            Named::Foreign => None,
        }
    }
}

fn redirect(
    at: &str,
    written: &RedirectFilter,
    matches: &[RouteMatch],
    found: &mut Found,
) -> Option<Redirect> {
    let status = written.status_code.unwrap_or(302);
    if !Redirect::STATUSES.contains(&status) {
        let problem = Problem::error(
            format!("{at}/statusCode"),
            Code::BadValue,
            format!("{status} is no status of a redirect"),
        );
        found.add(problem.hint("write one of 301, 302, 303, 307, 308"));
        return None;
    }
    if *written == RedirectFilter::default() {
        let message = "it redirects to where it was asked, again and again";
        found.add(
            Problem::error(at, Code::Contradiction, message).hint("write scheme, hostname, path or port"),
        );
        return None;
    }
    let path = written.path.as_ref().map(|p| path(&format!("{at}/path"), p, matches, found));
    let host = written.hostname.as_deref().map(|h| hostname(&format!("{at}/hostname"), h, found));
    Some(Redirect {
        https: written.scheme.map(|scheme| scheme == Scheme::Https),
        host: host.flatten(),
        path: path.flatten(),
        port: written.port.and_then(PortNumber::new),
        status,
    })
}

fn hostname(at: &str, text: &str, found: &mut Found) -> Option<Hostname> {
    Hostname::new(text).map_err(|e| found.add(Problem::error(at, Code::BadValue, e.to_string()))).ok()
}

fn path(at: &str, written: &PathModifier, matches: &[RouteMatch], found: &mut Found) -> Option<PathChange> {
    let (full, prefix) = (&written.replace_full_path, &written.replace_prefix_match);
    let (value, other, field, of_other) = match written.kind {
        PathModifierType::ReplaceFullPath => (full, prefix, "replaceFullPath", "replacePrefixMatch"),
        PathModifierType::ReplacePrefixMatch => (prefix, full, "replacePrefixMatch", "replaceFullPath"),
    };
    if other.is_some() {
        let message = format!("{of_other} belongs to the other type");
        let problem = Problem::error(format!("{at}/{of_other}"), Code::Contradiction, message);
        found.add(problem.hint("change type, or leave it out"));
    }
    let Some(value) = value else {
        let message = format!("the field {field:?} is missing");
        found.add(Problem::error(at, Code::MissingField, message).hint(format!("add {field}: /a/path")));
        return None;
    };
    if written.kind == PathModifierType::ReplaceFullPath {
        return Some(PathChange::Full(value.as_str().into()));
    }
    let by_prefix = |m: &RouteMatch| matches!(m.path, None | Some(PathMatch::Prefix(_)));
    if matches.len() > 1 || !matches.iter().all(by_prefix) {
        let message = "a prefix can only be replaced where the rule has one match, on a PathPrefix";
        let problem = Problem::error(format!("{at}/type"), Code::Contradiction, message);
        found.add(problem.hint("make a rule of its own for each prefix"));
        return None;
    }
    Some(PathChange::Prefix(value.as_str().into()))
}

/// Each filter is there once, but for copies and our own.
fn once_each(list: &str, written: &[Filter], found: &mut Found) {
    let mut seen = HashSet::new();
    for (i, filter) in written.iter().enumerate() {
        let many = matches!(filter.kind, FilterType::RequestMirror | FilterType::ExtensionRef);
        if !seen.insert(filter.kind) && !many {
            let message = format!("{} is there twice", filter.kind.as_str());
            let problem = Problem::error(format!("{list}/{i}/type"), Code::Duplicate, message);
            found.add(problem.hint("write all of it in one"));
        }
    }
}

/// Whether exactly the part is written that its type names.
fn union(at: &str, filter: &Filter, found: &mut Found) -> bool {
    let parts = [
        (FilterType::RequestHeaderModifier, filter.request_header_modifier.is_some()),
        (FilterType::ResponseHeaderModifier, filter.response_header_modifier.is_some()),
        (FilterType::RequestMirror, filter.request_mirror.is_some()),
        (FilterType::RequestRedirect, filter.request_redirect.is_some()),
        (FilterType::UrlRewrite, filter.url_rewrite.is_some()),
        (FilterType::Cors, filter.cors.is_some()),
        (FilterType::ExtensionRef, filter.extension_ref.is_some()),
    ];
    let mut sound = true;
    for (kind, written) in parts {
        let (own, field) = (kind == filter.kind, kind.field());
        if written && !own {
            let message = format!("{field} is not what a filter of the type {} is", filter.kind.as_str());
            let problem = Problem::error(format!("{at}/{field}"), Code::Contradiction, message);
            found.add(problem.hint("make two filters of it"));
            sound = false;
        }
        if own && !written {
            let message = format!("the field {field:?} is missing");
            found
                .add(Problem::error(at, Code::MissingField, message).hint(format!("add {field}: a mapping")));
            sound = false;
        }
    }
    sound
}
