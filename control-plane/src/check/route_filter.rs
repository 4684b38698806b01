//! Whether a RouteFilter holds by itself. Whether it goes together with a rule that names it is judged with the rule.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use outrigger_mesh::{
    Abort, CookieMatch, DirectResponse, Fault, Fraction, HashKey, Labels, RateLimit, RouteMatch,
};

use super::route::{conditions, reserved, value};
use super::settings::{one_of, rate_limit};
use super::{Found, access_policy};
use crate::policy::{read_key, read_rate_limit};
use crate::spec::policy::HashOn;
use crate::spec::route_filter::{self as written, OwnMatch, RouteFilter};
use crate::spec::{self, Code, Object, Problem};
use crate::world::World;

/// A filter that holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckedFilter {
    /// Conditions that every match of the rule has besides its own.
    pub conditions: RouteMatch,
    /// A fault that is put in.
    pub fault: Option<Fault>,
    /// The answer.
    pub direct: Option<DirectResponse>,
    /// The longest body.
    pub max_body: Option<u64>,
    /// How often something may be asked.
    pub rate_limits: Vec<RateLimit>,
    /// By which key requests are divided.
    pub split_by: Option<HashKey>,
    /// By which ranges of a key; the backends are those of the rule.
    pub partition: Option<(HashKey, Vec<written::Range>)>,
}

pub(super) fn check(
    object: &Object,
    spec: &RouteFilter,
    world: &World,
    found: &mut Found,
) -> Option<CheckedFilter> {
    let own = spec.conditions.as_ref().map(|own| own_conditions("/spec/match", object, own, world, found));
    let fault = spec.fault.as_ref().and_then(|f| fault(object, f, world, found));
    let direct = spec.direct_response.as_ref().map(|d| direct(d, found));
    let limits = spec.limits.clone().unwrap_or_default();
    for (i, limit) in limits.requests.iter().enumerate() {
        rate_limit(&format!("/spec/limits/requests/{i}"), limit, &limits.requests[..i], found);
    }
    let split_by = spec.split_by.as_ref().and_then(|on| key("/spec/splitBy", on, found));
    let partition = spec.partition.as_ref().and_then(|p| partition(p, found));
    if split_by.is_some() && partition.is_some() {
        let message = "a partition says where a key goes, so that nothing is left to split by";
        let problem = Problem::warning("/spec/splitBy", Code::Contradiction, message);
        found.add(problem.hint("it counts only for keys that are in no range"));
    }
    if *spec == RouteFilter::default() {
        found.add(Problem::warning("/spec", Code::MissingField, "it does nothing"));
    }
    (!found.is_fatal()).then(|| CheckedFilter {
        conditions: own.unwrap_or_default(),
        fault,
        direct,
        max_body: limits.max_body.map(spec::Size::get),
        rate_limits: limits.requests.iter().map(read_rate_limit).collect(),
        split_by,
        partition,
    })
}

fn own_conditions(at: &str, object: &Object, own: &OwnMatch, world: &World, found: &mut Found) -> RouteMatch {
    let mut callers = vec![];
    for (i, caller) in own.callers.iter().enumerate() {
        let at = format!("{at}/callers/{i}");
        callers.extend(access_policy::read_caller(&at, object, caller, world, found));
    }
    let mut cookies = vec![];
    for (i, cookie) in own.cookies.iter().enumerate() {
        let value = value(&format!("{at}/cookies/{i}/value"), cookie.kind, &cookie.value, found);
        cookies.extend(value.map(|value| CookieMatch { name: cookie.name.as_str().into(), value }));
    }
    let labels: Labels =
        own.source_labels.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect();
    let claims = own.claims.iter().filter_map(access_policy::read_claim).collect();
    RouteMatch { claims, callers, cookies, labels, ..RouteMatch::default() }
}

fn fault(object: &Object, fault: &written::Fault, world: &World, found: &mut Found) -> Option<Fault> {
    const AT: &str = "/spec/fault";
    if fault.delay.is_none() && fault.abort.is_none() {
        let problem = Problem::error(AT, Code::MissingField, "it neither delays nor aborts");
        found.add(problem.hint("add delay: 2s, or abort: {httpStatus: 503}"));
        return None;
    }
    if fault.delay.is_some_and(|delay| delay.get() > Fault::LONGEST) {
        let message = format!("a fault delays for at most {:?}", Fault::LONGEST);
        found.add(Problem::error(format!("{AT}/delay"), Code::TooLarge, message));
    }
    let abort = fault.abort.and_then(|abort| {
        let reset = abort.reset == Some(true);
        let said = [abort.http_status.is_some(), abort.grpc_status.is_some(), reset];
        one_of(&format!("{AT}/abort"), &said, "httpStatus, grpcStatus, reset: true", found);
        let http = abort.http_status.map(Abort::Http);
        http.or(abort.grpc_status.map(Abort::Grpc)).or(reset.then_some(Abort::Reset))
    });
    let matches = fault.conditions.as_ref().and_then(|written| {
        let (request, own) = written.parts();
        let at = format!("{AT}/match");
        let request = conditions(&at, &request, found)?;
        let own = own_conditions(&at, object, &own, world, found);
        let RouteMatch { claims, cookies, callers, labels, .. } = own;
        Some(RouteMatch { claims, cookies, callers, labels, ..request })
    });
    let share = Fraction { of: fault.percent.unwrap_or(100), out_of: 100 };
    let delay = fault.delay.map(spec::Duration::get);
    Some(Fault { share, matches: matches.into_iter().collect(), delay, abort })
}

fn direct(written: &written::DirectResponse, found: &mut Found) -> DirectResponse {
    const AT: &str = "/spec/directResponse";
    if written.headers.len() > 32 {
        let message = "there are more than 32 headers";
        found.add(Problem::error(format!("{AT}/headers"), Code::TooLarge, message));
    }
    let without_body = matches!(written.status, 204 | 304);
    if without_body && written.body.is_some() {
        let message = format!("an answer with the status {} has no body", written.status);
        found.add(Problem::error(format!("{AT}/body"), Code::Contradiction, message));
    }
    DirectResponse {
        status: written.status,
        headers: headers(&format!("{AT}/headers"), &written.headers, found),
        body: written.body.as_deref().unwrap_or_default().as_bytes().into(),
    }
}

fn headers(
    at: &str,
    written: &BTreeMap<String, String>,
    found: &mut Found,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut all = vec![];
    for (name, value) in written {
        let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        let read = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
        let Some((read, value)) = read else {
            found.add(Problem::error(at, Code::BadValue, format!("{name:?} is not a header with a value")));
            continue;
        };
        match reserved(&read) {
            Some((message, hint)) => found.add(Problem::error(at, Code::Conflict, message).hint(hint)),
            None => all.push((read, value)),
        }
    }
    all
}

fn key(at: &str, on: &HashOn, found: &mut Found) -> Option<HashKey> {
    let said = [
        on.header.is_some(),
        on.cookie.is_some(),
        on.query.is_some(),
        on.claim.is_some(),
        on.source.is_some(),
    ];
    one_of(at, &said, "header, cookie, query, claim, source", found);
    read_key(on)
}

fn partition(written: &written::Partition, found: &mut Found) -> Option<(HashKey, Vec<written::Range>)> {
    const AT: &str = "/spec/partition";
    if written.ranges.is_empty() {
        let message = "a partition without ranges divides nothing";
        found.add(Problem::error(format!("{AT}/ranges"), Code::MissingField, message));
    }
    for (i, range) in written.ranges.iter().enumerate() {
        if let (Some(from), Some(to)) = (&range.from, &range.to)
            && from > to
            && !from.starts_with(to.as_str())
        {
            let problem = Problem::error(
                format!("{AT}/ranges/{i}"),
                Code::Contradiction,
                format!("nothing lies from {from:?} to {to:?}"),
            );
            found.add(problem.hint("keys are compared byte by byte"));
        }
        let same = |other: &written::Range| other.from == range.from && other.to == range.to;
        if written.ranges[..i].iter().any(same) {
            let message = "an earlier range holds the same keys";
            found.add(Problem::warning(format!("{AT}/ranges/{i}"), Code::Unreachable, message));
        }
    }
    let key = key(&format!("{AT}/by"), &written.by, found)?;
    Some((key, written.ranges.clone()))
}
