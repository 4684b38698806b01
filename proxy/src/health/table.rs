//! The questions that the kubelet puts to the application through the sidecar, as the injection has written them.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use outrigger_mesh::PortNumber;
use serde::Deserialize;

/// Every question, by the path at which it is asked. Whatever is not here is asked of nobody.
#[derive(Clone, Debug, Default)]
pub struct Probes(BTreeMap<String, Question>);

/// One question, and how long its answer may take.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) what: What,
    pub(super) limit: Duration,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// A GET, well when it answers 200 to 399.
    Http { port: PortNumber, path: String, tls: bool, headers: Vec<(HeaderName, HeaderValue)> },
    /// A connection, well when it is accepted.
    Tcp { port: PortNumber },
    /// The health protocol of gRPC, well when it answers SERVING.
    Grpc { port: PortNumber, service: String },
}

impl Probes {
    pub(super) fn get(&self, path: &str) -> Option<&Question> {
        self.0.get(path)
    }
}

/// As many as a pod of a hundred containers has.
const MOST: usize = 512;

impl FromStr for Probes {
    type Err = String;

    /// Reads the JSON that the injection writes: `{"/app-health/app/livez": {"http": {"port": 8080, "path": "/live", "tls":
    /// false, "headers": []}, "seconds": 1}}`.
    fn from_str(text: &str) -> Result<Self, String> {
        let written: BTreeMap<String, Written> =
            serde_json::from_str(text).map_err(|e| format!("the table of probes can not be read: {e}"))?;
        if written.len() > MOST {
            return Err(format!("{} probes are too many", written.len()));
        }
        let proven = |(path, written): (String, Written)| {
            if !path.starts_with("/app-health/") {
                return Err(format!("{path}: the path of a probe begins with /app-health/"));
            }
            let question = written.prove().map_err(|why| format!("{path}: {why}"))?;
            Ok((path, question))
        };
        written.into_iter().map(proven).collect::<Result<_, _>>().map(Self)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    http: Option<WrittenHttp>,
    tcp: Option<WrittenTcp>,
    grpc: Option<WrittenGrpc>,
    seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHttp {
    port: u16,
    path: String,
    tls: bool,
    headers: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTcp {
    port: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenGrpc {
    port: u16,
    service: String,
}

impl Written {
    fn prove(self) -> Result<Question, String> {
        let limit = Duration::from_secs(self.seconds.clamp(1, 3600));
        let port = |number| PortNumber::new(number).ok_or("0 is no port");
        let what = match (self.http, self.tcp, self.grpc) {
            (Some(http), None, None) => {
                let header = |(name, value): (String, String)| {
                    let name = name.parse::<HeaderName>().map_err(|e| format!("{name:?}: {e}"))?;
                    let value = HeaderValue::from_str(&value).map_err(|e| format!("{name}: {e}"))?;
                    Ok::<_, String>((name, value))
                };
                // Written without a slash, as the kubelet takes it, too.
                let path = format!("/{}", http.path.trim_start_matches('/'));
                let uri: Result<http::Uri, _> = path.parse();
                uri.map_err(|e| format!("the path {path:?}: {e}"))?;
                let headers = http.headers.into_iter().map(header).collect::<Result<_, _>>()?;
                What::Http { port: port(http.port)?, path, tls: http.tls, headers }
            }
            (None, Some(tcp), None) => What::Tcp { port: port(tcp.port)? },
            (None, None, Some(grpc)) => What::Grpc { port: port(grpc.port)?, service: grpc.service },
            _ => return Err("one of http, tcp and grpc is asked".into()),
        };
        Ok(Question { what, limit })
    }
}

/// Where the application's own metrics are: `9102/metrics`.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) port: PortNumber,
    pub(super) path: String,
}

impl FromStr for Metrics {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("{text:?} does not say where metrics are: write PORT/PATH, for example 9102/metrics");
        let (port, path) = text.split_once('/').ok_or_else(bad)?;
        let port = port.parse().ok().and_then(PortNumber::new).ok_or_else(bad)?;
        let path = format!("/{path}");
        let _uri: http::Uri = path.parse().map_err(|_| bad())?;
        Ok(Self { port, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_whole_or_not_at_all() {
        let good = r#"{"/app-health/app/livez": {"http": {"port": 80, "path": "x", "tls": true, "headers": [["A", "b"]]},
            "seconds": 3}, "/app-health/app/readyz": {"grpc": {"port": 1, "service": ""}, "seconds": 0}}"#;
        assert!(good.parse::<Probes>().is_ok());
        for bad in [
            "",
            "[]",
            r#"{"/other": {"tcp": {"port": 1}, "seconds": 1}}"#,
            r#"{"/app-health/a/b": {"tcp": {"port": 0}, "seconds": 1}}"#,
            r#"{"/app-health/a/b": {"seconds": 1}}"#,
            r#"{"/app-health/a/b": {"tcp": {"port": 1}, "grpc": {"port": 1, "service": ""}, "seconds": 1}}"#,
            r#"{"/app-health/a/b": {"http": {"port": 1, "path": "/ x", "tls": false, "headers": []}, "seconds": 1}}"#,
            r#"{"/app-health/a/b": {"http": {"port": 1, "path": "/", "tls": false, "headers": [["a b", ""]]}, "seconds": 1}}"#,
        ] {
            assert!(bad.parse::<Probes>().is_err(), "{bad}");
        }
        assert!("9102/metrics".parse::<Metrics>().is_ok() && "metrics".parse::<Metrics>().is_err());
    }
}
