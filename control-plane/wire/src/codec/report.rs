//! The report of a sidecar.

use outrigger_mesh::{BUCKETS, Histogram, Report, Seen, Side, TrafficKey, TrafficStats};

use super::field::{self, Fault};
use crate::pb;

pub(crate) fn report_to_pb(report: &Report) -> pb::ReportRequest {
    pb::ReportRequest {
        traffic: report.traffic.iter().map(|(key, stats)| traffic_to_pb(key, stats)).collect(),
        wanted_keys: report.wanted_keys.iter().map(ToString::to_string).collect(),
        seen: report.seen.iter().map(seen_to_pb).collect(),
    }
}

pub(crate) fn report_from_pb(report: &pb::ReportRequest) -> Result<Report, Fault> {
    let entries = report.traffic.len().max(report.wanted_keys.len()).max(report.seen.len());
    if entries > Report::MAX_ENTRIES {
        let most = Report::MAX_ENTRIES;
        return Err(Fault::new(format!("a report has {entries} entries, more than {most}")));
    }
    Ok(Report {
        traffic: report.traffic.iter().map(traffic_from_pb).collect::<Result<_, _>>()?,
        wanted_keys: report.wanted_keys.iter().map(|name| field::name(name)).collect::<Result<_, _>>()?,
        seen: report.seen.iter().map(seen_from_pb).collect::<Result<_, _>>()?,
    })
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
        side: match key.side {
            Side::Client => pb::Side::Client,
            Side::Server => pb::Side::Server,
        }
        .into(),
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
        side: match field::value("side", traffic.side)? {
            pb::Side::Unspecified => return Err(Fault::missing("side")),
            pb::Side::Client => Side::Client,
            pb::Side::Server => Side::Server,
        },
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
