//! Everything that is counted, as a page.

use std::fmt::Write as _;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use outrigger_mesh::{ExpositionForm, MetricKind, exposition_as, write_family};

use super::pages::{AdminState, Page, seconds_left, text, unix};
use crate::breaker;
use crate::drain::Phase;
use crate::telemetry::process;
use outrigger_process::panics;

impl AdminState {
    /// The metrics in the form that is asked for.
    pub(super) fn metrics(&self, headers: &HeaderMap) -> Page {
        let form = form(headers);
        page(form, &exposition_as(form, &self.prometheus_text()))
    }

    /// Everything that is counted, in the text form of Prometheus, with exemplars behind their samples.
    pub(crate) fn prometheus_text(&self) -> String {
        let mut out = self.live.prometheus();
        breaker::metrics::write(&mut out, &self.registry.live_services());
        self.registry.write_budgets(&mut out);
        self.own(&mut out);
        self.certificate(&mut out);
        self.configuration(&mut out);
        process::write(&mut out);
        self.live.runtimes.write(&mut out);
        out
    }

    fn own(&self, out: &mut String) {
        let ready = self.readiness.is_ready() && self.drain.phase() == Phase::Serving;
        let overload = &self.live.overload;
        gauge(out, "outrigger_ready", "Whether the sidecar can serve.", u8::from(ready));
        write_family(out, BUILD, MetricKind::Gauge, "Always 1; the version of the program is a label.");
        let _never = writeln!(out, "{BUILD}{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        counter(out, "outrigger_panics_total", "Panics of the program, which it survived.", panics::count());
        let help = "Times that memory came near its limit.";
        counter(out, "outrigger_memory_shedding_total", help, overload.episodes());
        let help = "Whether new requests are refused, as memory is near its limit.";
        gauge(out, "outrigger_memory_shedding_now", help, u8::from(overload.check().is_err()));
    }

    fn certificate(&self, out: &mut String) {
        if let Some(identity) = self.identity.get() {
            let (end, left) = (identity.expires_at(), seconds_left(identity.expires_at()));
            gauge(out, "outrigger_cert_expiry_seconds", "Time until the own certificate ends.", left);
            let help = "When the own certificate ends, in seconds since 1970.";
            gauge(out, "outrigger_cert_expiry_timestamp_seconds", help, unix(end));
        }
        if let Some(renewal) = self.renewal.get() {
            counter(out, "outrigger_cert_renewals_total", "Certificates renewed.", renewal.renewals());
            let help = "Renewals that failed.";
            counter(out, "outrigger_cert_renewal_failures_total", help, renewal.failures());
        }
    }

    fn configuration(&self, out: &mut String) {
        let Some(link) = self.link.get() else { return };
        let help = "Whether the control plane is linked.";
        gauge(out, "outrigger_control_connected", help, u8::from(link.is_connected()));
        let help = "Links made to the control plane.";
        counter(out, "outrigger_control_connections_total", help, *link.connections().borrow());
        let help = "Latest revision something was applied of.";
        gauge(out, "outrigger_config_revision", help, link.revision());
        counter(out, "outrigger_config_rejected_total", "Resources refused.", link.rejected_total());
        let help = "Resources that are refused now: their last good form is in force.";
        gauge(out, "outrigger_config_rejected_now", help, link.rejected_now());
        if let Some(applied) = link.applied_at() {
            let help = "When something was applied last, in seconds since 1970.";
            gauge(out, "outrigger_config_applied_timestamp_seconds", help, unix(applied));
        }
        if let Some(heard) = link.heard_at() {
            let age = SystemTime::now().duration_since(heard).unwrap_or_default().as_secs();
            let help = "Time since the control plane was linked last; 0 while it is.";
            gauge(out, "outrigger_config_age_seconds", help, if link.is_connected() { 0 } else { age });
        }
    }
}

/// The form of metrics that is asked for.
pub(crate) fn form(headers: &HeaderMap) -> ExpositionForm {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    ExpositionForm::of_accept(&accepts.collect::<Vec<_>>().join(","))
}

/// A page of metrics.
pub(crate) fn page(form: ExpositionForm, metrics: &str) -> Page {
    let mut page = text(StatusCode::OK, metrics);
    let kind = HeaderValue::from_static(form.content_type());
    page.headers_mut().insert(header::CONTENT_TYPE, kind);
    page
}

fn gauge(out: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    write_family(out, name, MetricKind::Gauge, help);
    let _never = writeln!(out, "{name} {value}");
}

fn counter(out: &mut String, name: &str, help: &str, value: u64) {
    write_family(out, name, MetricKind::Counter, help);
    let _never = writeln!(out, "{name} {value}");
}

const BUILD: &str = "outrigger_build_info";
