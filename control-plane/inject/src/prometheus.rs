//! Who scrapes the pod finds the sidecar's health port, which answers with the sidecar's metrics and the application's.

use serde_json::Value;

use crate::decision::Warning;
use crate::json::{list, texts};
use crate::names::{SCRAPE, SCRAPE_PATH, SCRAPE_PORT, SCRAPE_SCHEME};

/// What becomes of the annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scraped {
    /// Annotations to set.
    pub(crate) annotations: Vec<(&'static str, String)>,
    /// Where the application's own metrics are: `PORT/PATH`.
    pub(crate) application: Option<String>,
}

pub(crate) fn merge(metadata: &Value, spec: &Value, health: u16, warnings: &mut Vec<Warning>) -> Scraped {
    let of = |wanted: &str| {
        texts(metadata, "annotations").find(|(name, _)| *name == wanted).map(|(_, value)| value)
    };
    let asked = match of(SCRAPE) {
        None => false,
        Some("true") => true,
        // It does not want to be scraped.
        Some(_) => return Scraped::default(),
    };
    let port = match of(SCRAPE_PORT) {
        Some(text) => text.parse().ok().filter(|port: &u16| *port > 0),
        None => first_port(spec),
    };
    let plain = of(SCRAPE_SCHEME).is_none_or(|scheme| scheme.eq_ignore_ascii_case("http"));
    let path = of(SCRAPE_PATH).unwrap_or("/metrics");
    let application = match port {
        Some(port) if asked && plain => Some(format!("{port}/{}", path.trim_start_matches('/'))),
        _ => None,
    };
    if asked && application.is_none() {
        let message = "where its metrics are can not be told from the prometheus.io annotations, or they come over \
                       https: they stay as they are";
        warnings.push(Warning { code: "metrics_not_merged", message: message.into() });
        return Scraped::default();
    }
    let path = "/metrics".to_owned();
    let annotations =
        vec![(SCRAPE, "true".to_owned()), (SCRAPE_PORT, health.to_string()), (SCRAPE_PATH, path)];
    Scraped { annotations, application }
}

fn first_port(spec: &Value) -> Option<u16> {
    let ports = list(spec, "containers").iter().flat_map(|container| list(container, "ports"));
    ports.filter_map(|port| port.get("containerPort")?.as_u64()).find_map(|n| u16::try_from(n).ok())
}
