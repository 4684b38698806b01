//! The counts of requests as text for Prometheus.

use outrigger_mesh::{MetricKind, Side, write_family};

use super::table::RequestTable;

impl RequestTable {
    /// Writes everything.
    pub fn write(&self, out: &mut String) {
        let (client, server) = (self.all(Side::Client), self.all(Side::Server));
        let whole = [
            (
                "http_client_request_duration_seconds",
                &client,
                true,
                "Time of requests of the application, to the last byte of the answer.",
            ),
            (
                "http_server_request_duration_seconds",
                &server,
                false,
                "Time of requests to the application, to the last byte of the answer.",
            ),
        ];
        for (name, all, callers, help) in whole {
            write_family(out, name, MetricKind::Histogram, help);
            for (labels, series) in all {
                series.write_whole(out, name, labels, callers);
            }
        }
        let sides = [("client", &client), ("server", &server)];
        let name = "outrigger_upstream_duration_seconds";
        let help = "Time in which heads of answers were waited for, all attempts of a request together.";
        write_family(out, name, MetricKind::Histogram, help);
        for (side, all) in sides {
            for (labels, series) in all {
                series.write_upstream(out, name, &format!("side=\"{side}\",{labels}"));
            }
        }
        let name = "outrigger_proxy_duration_seconds";
        let help = "Time of requests in this proxy, with all its waiting, to the heads of their answers.";
        write_family(out, name, MetricKind::Histogram, help);
        for (side, all) in sides {
            for (labels, series) in all {
                series.write_added(out, name, &format!("side=\"{side}\",{labels}"));
            }
        }
    }
}
