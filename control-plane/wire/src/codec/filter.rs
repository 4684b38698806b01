//! The filters of routes.

use http::{HeaderName, HeaderValue};
use outrigger_mesh::{
    Abort, Cors, DirectResponse, Fault as Planned, Filters, Fraction, HeaderChanges, Mirror, PathChange,
    Redirect, Rewrite,
};

use super::field::{self, Fault, duration_from_pb, duration_to_pb};
use super::{bulkhead, policy, route};
use crate::pb;

/// Absent where there is none.
pub(super) fn to_pb(filters: &Filters) -> Option<pb::Filters> {
    (!filters.is_empty()).then(|| pb::Filters {
        rate_limits: filters.rate_limits.iter().map(bulkhead::rate_to_pb).collect(),
        max_body: filters.max_body,
        cors: filters.cors.as_ref().map(cors_to_pb),
        faults: filters.faults.iter().map(fault_to_pb).collect(),
        redirect: filters.redirect.as_ref().map(redirect_to_pb),
        direct: filters.direct.as_ref().map(direct_to_pb),
        request: changes_to_pb(&filters.request),
        rewrite: filters.rewrite.as_ref().map(rewrite_to_pb),
        mirrors: filters.mirrors.iter().map(mirror_to_pb).collect(),
        response: changes_to_pb(&filters.response),
    })
}

pub(super) fn from_pb(filters: Option<pb::Filters>) -> Result<Filters, Fault> {
    let Some(filters) = filters else { return Ok(Filters::default()) };
    Ok(Filters {
        rate_limits: filters.rate_limits.into_iter().map(bulkhead::rate_from_pb).collect::<Result<_, _>>()?,
        max_body: filters.max_body,
        cors: filters.cors.map(cors_from_pb),
        faults: filters.faults.into_iter().map(fault_from_pb).collect::<Result<_, _>>()?,
        redirect: filters.redirect.map(redirect_from_pb).transpose()?,
        direct: filters.direct.map(direct_from_pb).transpose()?,
        request: changes_from_pb(filters.request)?,
        rewrite: filters.rewrite.map(rewrite_from_pb).transpose()?,
        mirrors: filters.mirrors.iter().map(mirror_from_pb).collect::<Result<_, _>>()?,
        response: changes_from_pb(filters.response)?,
    })
}

/// Absent where nothing changes.
pub(super) fn changes_to_pb(changes: &HeaderChanges) -> Option<pb::HeaderChanges> {
    (!changes.is_empty()).then(|| pb::HeaderChanges {
        remove: changes.remove.iter().map(ToString::to_string).collect(),
        set: changes.set.iter().map(header_to_pb).collect(),
        add: changes.add.iter().map(header_to_pb).collect(),
    })
}

pub(super) fn changes_from_pb(changes: Option<pb::HeaderChanges>) -> Result<HeaderChanges, Fault> {
    let Some(changes) = changes else { return Ok(HeaderChanges::default()) };
    Ok(HeaderChanges {
        remove: changes.remove.iter().map(|name| policy::header_name(name)).collect::<Result<_, _>>()?,
        set: changes.set.iter().map(header_from_pb).collect::<Result<_, _>>()?,
        add: changes.add.iter().map(header_from_pb).collect::<Result<_, _>>()?,
    })
}

fn header_to_pb((name, value): &(HeaderName, HeaderValue)) -> pb::HeaderValue {
    pb::HeaderValue { name: name.to_string(), value: value.as_bytes().to_vec() }
}

fn header_from_pb(header: &pb::HeaderValue) -> Result<(HeaderName, HeaderValue), Fault> {
    let name = policy::header_name(&header.name)?;
    let value = HeaderValue::from_bytes(&header.value)
        .map_err(|_| Fault::new(format!("the value of header {name} is none")))?;
    Ok((name, value))
}

fn fraction_to_pb(share: Fraction) -> pb::Fraction {
    pb::Fraction { of: share.of, out_of: share.out_of }
}

fn fraction_from_pb(share: Option<pb::Fraction>) -> Result<Fraction, Fault> {
    let share = share.ok_or_else(|| Fault::missing("a fraction"))?;
    Ok(Fraction { of: share.of, out_of: share.out_of })
}

fn cors_to_pb(cors: &Cors) -> pb::Cors {
    let all = |texts: &[std::sync::Arc<str>]| texts.iter().map(ToString::to_string).collect();
    pb::Cors {
        origins: all(&cors.origins),
        credentials: cors.credentials,
        methods: all(&cors.methods),
        headers: all(&cors.headers),
        expose: all(&cors.expose),
        max_age: cors.max_age,
    }
}

fn cors_from_pb(cors: pb::Cors) -> Cors {
    let all = |texts: Vec<String>| texts.into_iter().map(Into::into).collect();
    Cors {
        origins: all(cors.origins),
        credentials: cors.credentials,
        methods: all(cors.methods),
        headers: all(cors.headers),
        expose: all(cors.expose),
        max_age: cors.max_age,
    }
}

fn fault_to_pb(fault: &Planned) -> pb::Fault {
    pb::Fault {
        share: Some(fraction_to_pb(fault.share)),
        matches: fault.matches.iter().map(route::match_to_pb).collect(),
        delay: fault.delay.map(duration_to_pb),
        abort: fault.abort.map(|abort| match abort {
            Abort::Http(status) => pb::fault::Abort::Http(status.into()),
            Abort::Grpc(status) => pb::fault::Abort::Grpc(status.into()),
            Abort::Reset => pb::fault::Abort::Reset(pb::Nothing {}),
        }),
    }
}

fn fault_from_pb(fault: pb::Fault) -> Result<Planned, Fault> {
    let abort = |abort| match abort {
        pb::fault::Abort::Http(status) => field::status(status).map(Abort::Http),
        pb::fault::Abort::Grpc(status) => u8::try_from(status)
            .map(Abort::Grpc)
            .map_err(|_| Fault::new(format!("{status} is no status of gRPC"))),
        pb::fault::Abort::Reset(pb::Nothing {}) => Ok(Abort::Reset),
    };
    Ok(Planned {
        share: fraction_from_pb(fault.share)?,
        matches: fault.matches.into_iter().map(route::match_from_pb).collect::<Result<_, _>>()?,
        delay: fault.delay.map(duration_from_pb).transpose()?,
        abort: fault.abort.map(abort).transpose()?,
    })
}

fn path_to_pb(change: &PathChange) -> pb::PathChange {
    let change = match change {
        PathChange::Full(path) => pb::path_change::Change::Full(path.to_string()),
        PathChange::Prefix(path) => pb::path_change::Change::Prefix(path.to_string()),
    };
    pb::PathChange { change: Some(change) }
}

fn path_from_pb(change: pb::PathChange) -> Result<PathChange, Fault> {
    match change.change.ok_or_else(|| Fault::missing("the change of a path"))? {
        pb::path_change::Change::Full(path) => Ok(PathChange::Full(path.into())),
        pb::path_change::Change::Prefix(path) => Ok(PathChange::Prefix(path.into())),
    }
}

fn redirect_to_pb(redirect: &Redirect) -> pb::Redirect {
    pb::Redirect {
        https: redirect.https,
        host: redirect.host.as_ref().map(ToString::to_string),
        path: redirect.path.as_ref().map(path_to_pb),
        port: redirect.port.map(|port| port.get().into()),
        status: redirect.status.into(),
    }
}

fn redirect_from_pb(redirect: pb::Redirect) -> Result<Redirect, Fault> {
    Ok(Redirect {
        https: redirect.https,
        host: field::name_if(redirect.host.as_deref())?,
        path: redirect.path.map(path_from_pb).transpose()?,
        port: redirect.port.map(field::port_number).transpose()?,
        status: field::status(redirect.status)?,
    })
}

fn rewrite_to_pb(rewrite: &Rewrite) -> pb::Rewrite {
    pb::Rewrite {
        host: rewrite.host.as_ref().map(ToString::to_string),
        path: rewrite.path.as_ref().map(path_to_pb),
    }
}

fn rewrite_from_pb(rewrite: pb::Rewrite) -> Result<Rewrite, Fault> {
    Ok(Rewrite {
        host: field::name_if(rewrite.host.as_deref())?,
        path: rewrite.path.map(path_from_pb).transpose()?,
    })
}

fn mirror_to_pb(mirror: &Mirror) -> pb::Mirror {
    pb::Mirror {
        service: mirror.service.to_string(),
        version: mirror.version.as_ref().map(ToString::to_string),
        port: mirror.port.map(|port| port.get().into()),
        share: Some(fraction_to_pb(mirror.share)),
    }
}

fn mirror_from_pb(mirror: &pb::Mirror) -> Result<Mirror, Fault> {
    Ok(Mirror {
        service: field::name(&mirror.service)?,
        version: field::name_if(mirror.version.as_deref())?,
        port: mirror.port.map(field::port_number).transpose()?,
        share: fraction_from_pb(mirror.share)?,
    })
}

fn direct_to_pb(direct: &DirectResponse) -> pb::DirectResponse {
    pb::DirectResponse {
        status: direct.status.into(),
        headers: direct.headers.iter().map(header_to_pb).collect(),
        body: direct.body.to_vec(),
    }
}

fn direct_from_pb(direct: pb::DirectResponse) -> Result<DirectResponse, Fault> {
    Ok(DirectResponse {
        status: field::status(direct.status)?,
        headers: direct.headers.iter().map(header_from_pb).collect::<Result<_, _>>()?,
        body: direct.body.into(),
    })
}
