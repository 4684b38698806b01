//! The traffic between services, as the sidecars report it to the control plane.

use serde_json::Value;

use crate::out;

/// The traffic of one version of a service.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    service: String,
    version: String,
    per_second: f64,
    success: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

/// The rows in `GET /v1/stats`, by service and version.
pub(super) fn rows(stats: &Value) -> Vec<Row> {
    let items = stats["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut rows: Vec<Row> = items.iter().filter_map(row).collect();
    rows.sort_by(|a, b| (&a.service, &a.version).cmp(&(&b.service, &b.version)));
    rows
}

/// The table of them.
pub(super) fn table(rows: &[Row]) -> String {
    let time = |ms: Option<f64>| ms.map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"));
    let rows = rows.iter().map(|row| {
        vec![
            row.service.clone(),
            row.version.clone(),
            format!("{:.0}", row.per_second),
            format!("{:.2} %", row.success * 100.0),
            time(row.p50_ms),
            time(row.p99_ms),
        ]
    });
    out::table(&["service", "version", "requests/s", "success", "p50", "p99"], rows)
}

fn row(item: &Value) -> Option<Row> {
    Some(Row {
        service: format!("{}/{}", item["namespace"].as_str().unwrap_or("-"), item["service"].as_str()?),
        version: item["version"].as_str().unwrap_or("-").to_owned(),
        per_second: item["rps"].as_f64().unwrap_or(0.0),
        success: item["success"].as_f64().unwrap_or(1.0),
        p50_ms: item["p50Ms"].as_f64(),
        p99_ms: item["p99Ms"].as_f64(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn traffic_is_told_by_service_and_version() {
        let stats = json!({"items": [
            {"namespace": "shop", "service": "prices", "version": "v2", "rps": 12.4, "success": 0.995, "p50Ms": 1.26, "p99Ms": 9.0},
            {"namespace": "shop", "service": "cart", "version": null, "rps": 0.0, "success": 1.0, "p50Ms": null},
        ]});
        let text = table(&rows(&stats));
        assert_eq!(
            text,
            "SERVICE      VERSION  REQUESTS/S  SUCCESS   P50     P99\n\
             shop/cart    -        0           100.00 %  -       -\n\
             shop/prices  v2       12          99.50 %   1.3 ms  9.0 ms"
        );
    }
}
