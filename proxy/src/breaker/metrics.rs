//! The breakers of all services, as metrics.

use std::fmt::Write;
use std::sync::Arc;

use super::Phase;
use crate::live::LiveService;

/// The text form of Prometheus. Of what never moved only the state is told.
pub fn write(out: &mut String, services: &[Arc<LiveService>]) {
    endpoints(out, services);
    service(out, services);
}

fn endpoints(out: &mut String, services: &[Arc<LiveService>]) {
    head(out, "outrigger_endpoint_breaker_endpoints", "gauge", "Endpoints by the state of their breaker.");
    for live in services {
        let endpoints = live.endpoints.load();
        let members = &endpoints.subset(None).members;
        for phase in Phase::ALL {
            let count = members.iter().filter(|view| view.live.breaker.phase() == phase).count();
            let _ = writeln!(
                out,
                "outrigger_endpoint_breaker_endpoints{{service=\"{}\",state=\"{}\"}} {count}",
                live.name,
                phase.as_str()
            );
        }
    }
    let help = "Endpoint breakers that came into a state.";
    head(out, "outrigger_endpoint_breaker_transitions_total", "counter", help);
    for live in services {
        for phase in Phase::ALL {
            let count = live.endpoint_breakers.entered(phase);
            if count > 0 {
                let _ = writeln!(
                    out,
                    "outrigger_endpoint_breaker_transitions_total{{service=\"{}\",to=\"{}\"}} {count}",
                    live.name,
                    phase.as_str()
                );
            }
        }
    }
    let help = "Times that an endpoint's breaker stayed closed since too many others were open.";
    head(out, "outrigger_endpoint_breaker_held_closed_total", "counter", help);
    for live in services {
        let count = live.endpoint_breakers.held_closed();
        if count > 0 {
            let name = &live.name;
            let _ =
                writeln!(out, "outrigger_endpoint_breaker_held_closed_total{{service=\"{name}\"}} {count}");
        }
    }
}

fn service(out: &mut String, services: &[Arc<LiveService>]) {
    let all = [
        ("outrigger_service_breaker_state", "gauge", "0 closed, 1 open, 2 half-open, 3 ramping."),
        ("outrigger_service_breaker_opened_total", "counter", "Times that it opened."),
        (
            "outrigger_service_breaker_would_have_opened_total",
            "counter",
            "Times that it would have, had it acted.",
        ),
        ("outrigger_service_breaker_rejected_total", "counter", "Requests that it kept away."),
        (
            "outrigger_service_breaker_fallbacks_total",
            "counter",
            "Requests for which something else was answered.",
        ),
    ];
    for (at, (name, kind, help)) in all.into_iter().enumerate() {
        head(out, name, kind, help);
        for live in services {
            live.breakers.for_each(|labels, switch| {
                let breaker = switch.breaker();
                let value = match at {
                    0 => state(switch.state()),
                    1 => u64::from(breaker.opened()),
                    2 => breaker.group().would_open(),
                    3 => breaker.rejected(),
                    _ => switch.fallbacks(),
                };
                if at == 0 || value > 0 {
                    let _ = writeln!(out, "{name}{{service=\"{}\"{labels}}} {value}", live.name);
                }
            });
        }
    }
}

fn state(word: &str) -> u64 {
    Phase::ALL.iter().position(|p| p.as_str() == word).unwrap_or(0) as u64
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
