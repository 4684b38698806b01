//! The report of a sidecar.

use outrigger_mesh::{BUCKETS, Histogram, Reason, RefusalKey, Report, Seen, Side, TrafficKey, TrafficStats};

use super::field::{self, Fault};
use crate::pb;

pub(crate) fn report_to_pb(report: &Report) -> pb::ReportRequest {
    pb::ReportRequest {
        traffic: report.traffic.iter().map(|(key, stats)| traffic_to_pb(key, stats)).collect(),
        wanted_keys: report.wanted_keys.iter().map(ToString::to_string).collect(),
        seen: report.seen.iter().map(seen_to_pb).collect(),
        refusals: report.refusals.iter().map(|(key, count)| refusals_to_pb(key, *count)).collect(),
    }
}

pub(crate) fn report_from_pb(report: &pb::ReportRequest) -> Result<Report, Fault> {
    let entries = [report.traffic.len(), report.wanted_keys.len(), report.seen.len(), report.refusals.len()];
    let entries = entries.into_iter().max().unwrap_or(0);
    if entries > Report::MAX_ENTRIES {
        let most = Report::MAX_ENTRIES;
        return Err(Fault::new(format!("a report has {entries} entries, more than {most}")));
    }
    Ok(Report {
        traffic: report.traffic.iter().map(traffic_from_pb).collect::<Result<_, _>>()?,
        wanted_keys: report.wanted_keys.iter().map(|name| field::name(name)).collect::<Result<_, _>>()?,
        seen: report.seen.iter().map(seen_from_pb).collect::<Result<_, _>>()?,
        refusals: report
            .refusals
            .iter()
            .filter_map(|one| refusals_from_pb(one).transpose())
            .collect::<Result<_, _>>()?,
    })
}

fn refusals_to_pb(key: &RefusalKey, count: u64) -> pb::Refusals {
    pb::Refusals {
        side: side_to_pb(key.side).into(),
        service: key.service.to_string(),
        caller: key.caller.as_ref().map(ToString::to_string),
        reason: key.reason.as_str().to_owned(),
        count,
    }
}

/// `None` for a reason that is not known here: a newer sidecar may have one, and its other figures are as good as ever.
fn refusals_from_pb(refusals: &pb::Refusals) -> Result<Option<(RefusalKey, u64)>, Fault> {
    let Some(reason) = Reason::of_code(&refusals.reason) else { return Ok(None) };
    let key = RefusalKey {
        side: side_from_pb(refusals.side)?,
        service: field::name(&refusals.service)?,
        caller: field::name_if(refusals.caller.as_deref())?,
        reason,
    };
    Ok(Some((key, refusals.count)))
}

fn side_to_pb(side: Side) -> pb::Side {
    match side {
        Side::Client => pb::Side::Client,
        Side::Server => pb::Side::Server,
    }
}

fn side_from_pb(side: i32) -> Result<Side, Fault> {
    match field::value("side", side)? {
        pb::Side::Unspecified => Err(Fault::missing("side")),
        pb::Side::Client => Ok(Side::Client),
        pb::Side::Server => Ok(Side::Server),
    }
}

fn seen_to_pb(seen: &Seen) -> pb::Seen {
    pb::Seen {
        service: seen.service.to_string(),
        version: seen.version.to_string(),
        endpoints: seen.endpoints,
        well: seen.well,
    }
}

fn seen_from_pb(seen: &pb::Seen) -> Result<Seen, Fault> {
    if seen.well > seen.endpoints {
        return Err(Fault::new(format!("{}: more endpoints are well than there are", seen.service)));
    }
    Ok(Seen {
        service: field::name(&seen.service)?,
        version: field::name(&seen.version)?,
        endpoints: seen.endpoints,
        well: seen.well,
    })
}

fn traffic_to_pb(key: &TrafficKey, stats: &TrafficStats) -> pb::Traffic {
    let (buckets, counts) = stats
        .latency
        .non_zero()
        .map(|(bucket, count)| (u32::try_from(bucket).unwrap_or(u32::MAX), count))
        .unzip();
    pb::Traffic {
        side: side_to_pb(key.side).into(),
        service: key.service.to_string(),
        version: key.version.as_ref().map(ToString::to_string),
        caller: key.caller.as_ref().map(ToString::to_string),
        requests: stats.requests,
        success: stats.success,
        latency_buckets: buckets,
        latency_counts: counts,
        unanswered: stats.unanswered,
    }
}

fn traffic_from_pb(traffic: &pb::Traffic) -> Result<(TrafficKey, TrafficStats), Fault> {
    let key = TrafficKey {
        side: side_from_pb(traffic.side)?,
        service: field::name(&traffic.service)?,
        version: field::name_if(traffic.version.as_deref())?,
        caller: field::name_if(traffic.caller.as_deref())?,
    };
    if traffic.success > traffic.requests {
        return Err(Fault::new(format!("{}: more successes than requests", key.service)));
    }
    let latency = histogram_from_pb(&traffic.latency_buckets, &traffic.latency_counts)?;
    let (requests, success, unanswered) = (traffic.requests, traffic.success, traffic.unanswered);
    Ok((key, TrafficStats { requests, success, latency, unanswered }))
}

fn histogram_from_pb(buckets: &[u32], counts: &[u64]) -> Result<Histogram, Fault> {
    let sound = buckets.len() == counts.len()
        && buckets.is_sorted_by(|a, b| a < b)
        && buckets.last().is_none_or(|last| (*last as usize) < BUCKETS)
        && counts.iter().all(|count| *count > 0);
    if !sound {
        return Err(Fault::new("a histogram's buckets and counts do not agree"));
    }
    let mut histogram = Histogram::default();
    for (bucket, count) in buckets.iter().zip(counts) {
        histogram.add(*bucket as usize, *count);
    }
    Ok(histogram)
}
