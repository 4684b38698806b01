//! Where a collector is, as an operator writes it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use outrigger_certs::OutsideName;
use outrigger_mesh::Hostname;

use super::Spoken;

/// The address of a collector: `http://host:port` or `https://host:port`, with a path where it wants one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Over TLS, what it has to prove to be.
    tls: Option<OutsideName>,
    /// A name or an address, without brackets.
    host: Box<str>,
    port: Option<u16>,
    /// Host and port as they were written.
    authority: Box<str>,
    /// What stands before the paths of OTLP, without a slash at its end.
    path: Box<str>,
}

impl Place {
    /// What it has to prove to be, where it is spoken to over TLS.
    pub(super) fn tls(&self) -> Option<&OutsideName> {
        self.tls.as_ref()
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The port that was written, else that of https, or OTLP's own for what is spoken.
    pub(super) fn port(&self, spoken: Spoken) -> u16 {
        self.port.unwrap_or(match (&self.tls, spoken) {
            (Some(_), _) => 443,
            (None, Spoken::Grpc) => 4317,
            (None, Spoken::Http) => 4318,
        })
    }

    /// Whether nobody else can read what goes there.
    pub fn is_private(&self) -> bool {
        let here = || self.host.parse().map_or(&*self.host == "localhost", |ip: IpAddr| ip.is_loopback());
        self.tls.is_some() || here()
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // What is wrong is not shown: a password may stand in it.
        let hint = "write it as http://host:port or https://host:port, like http://127.0.0.1:4317";
        let uri: http::Uri = text.parse().map_err(|why| format!("that is no address ({why}); {hint}"))?;
        let wrong = || format!("that is no address of a collector; {hint}");
        let authority = uri.authority().ok_or_else(wrong)?;
        if uri.query().is_some() || authority.as_str().contains('@') {
            return Err(format!("neither a query nor a password belongs there; {hint}"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        // The library passes over a port that is no number.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => None,
            Some(rest) => {
                let port = rest.strip_prefix(':').and_then(|digits| digits.parse().ok());
                Some(port.filter(|port: &u16| *port > 0).ok_or_else(wrong)?)
            }
            None => return Err(wrong()),
        };
        if host.is_empty() {
            return Err(wrong());
        }
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => {
                Some(name(host).ok_or_else(|| format!("no certificate can be for {host:?}; {hint}"))?)
            }
            _ => return Err(wrong()),
        };
        Ok(Self {
            tls,
            host: host.into(),
            port,
            authority: authority.as_str().into(),
            path: uri.path().trim_end_matches('/').into(),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

fn name(host: &str) -> Option<OutsideName> {
    match host.parse() {
        Ok(ip) => Some(OutsideName::of_address(ip)),
        Err(_) => OutsideName::of_host(&Hostname::new(host).ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_collectors_are_proven() {
        for (text, told, host, grpc, http) in [
            ("http://127.0.0.1:4317/", "http://127.0.0.1:4317", "127.0.0.1", 4317, 4317),
            ("http://otel/otlp/", "http://otel/otlp", "otel", 4317, 4318),
            ("https://otlp.example.com", "https://otlp.example.com", "otlp.example.com", 443, 443),
            ("https://[::1]:9/x", "https://[::1]:9/x", "::1", 9, 9),
        ] {
            let place: Place = text.parse().unwrap();
            assert_eq!((place.to_string().as_str(), place.host()), (told, host));
            assert_eq!((place.port(Spoken::Grpc), place.port(Spoken::Http)), (grpc, http));
            assert_eq!(place.tls().is_some(), text.starts_with("https"));
        }
        for wrong in [
            "",
            "otel:4317",
            "/x",
            "grpc://otel:4317",
            "http://",
            "http://otel:0",
            "http://otel:x",
            "http://otel:",
            "https://o_tel!:4317",
            "http://a:secret@otel",
            "http://otel/?x=secret",
        ] {
            let why = wrong.parse::<Place>().unwrap_err();
            assert!(why.contains("http://host:port") && !why.contains("secret"), "{wrong}: {why}");
        }
    }

    #[test]
    fn what_goes_over_tls_or_stays_on_this_machine_is_private() {
        for (text, private) in [
            ("https://otel:4317", true),
            ("http://localhost:4317", true),
            ("http://127.3.0.1:4317", true),
            ("http://[::1]:4317", true),
            ("http://10.0.0.1:4317", false),
            ("http://localhost.example.com:4317", false),
        ] {
            assert_eq!(text.parse::<Place>().unwrap().is_private(), private, "{text}");
        }
    }
}
