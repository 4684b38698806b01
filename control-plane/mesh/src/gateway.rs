//! The edge of the mesh: what a proxy in gateway mode listens for and where it sends it.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use crate::name::{Hostname, InvalidName, Label, PortNumber, ServiceName};
use crate::route::Route;

/// A gateway, whole: listeners with the routes attached to them. Private to the workload that serves it, which is the
/// service account of its own name in its own namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Its full name.
    pub name: ServiceName,
    /// Its listeners, in the order written; never empty.
    pub listeners: Vec<Listener>,
}

/// One port and host name of a gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its name, unique in the gateway.
    pub name: Label,
    /// The port. Several listeners may share one: the host name tells them apart.
    pub port: PortNumber,
    /// The host names it is for; `None` for all.
    pub hostname: Option<HostPattern>,
    /// What it speaks.
    pub kind: ListenerKind,
    /// The routes attached to it, the oldest first.
    pub routes: Vec<GatewayRoute>,
}

/// What a listener speaks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// HTTP in plaintext.
    Http,
    /// HTTP over TLS, which ends here. The certificates are files of the gateway, by these names; the first is shown
    /// to those who name no host.
    Https {
        /// Names of certificates, never empty.
        certificates: Vec<Label>,
    },
}

/// A route for some host names.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayRoute {
    /// The host names; empty: all of the listener's.
    pub hostnames: Vec<HostPattern>,
    /// What it matches and where that goes. Backends name services of the mesh.
    pub route: Route,
}

impl Gateway {
    /// Proves that the parts agree: at least one listener, no name twice, no port that speaks two things, routes that
    /// are sound.
    pub fn checked(self) -> Result<Self, InvalidGateway> {
        let fault = |what: String| Err(InvalidGateway { gateway: self.name.clone(), what });
        if self.listeners.is_empty() {
            return fault("it has no listener".into());
        }
        let (mut names, mut places) = (HashSet::new(), HashSet::new());
        for listener in &self.listeners {
            if !names.insert(&listener.name) {
                return fault(format!("listener {} is there twice", listener.name));
            }
            if !places.insert((listener.port, &listener.hostname)) {
                return fault(format!("listener {} has the port and host name of another", listener.name));
            }
            if matches!(&listener.kind, ListenerKind::Https { certificates } if certificates.is_empty()) {
                return fault(format!("listener {} has no certificate", listener.name));
            }
            let tls = |l: &Listener| l.kind != ListenerKind::Http;
            if self.listeners.iter().any(|l| l.port == listener.port && tls(l) != tls(listener)) {
                return fault(format!("port {} speaks both HTTP and HTTPS", listener.port));
            }
            for attached in &listener.routes {
                if let Err(what) = attached.route.check() {
                    return fault(format!("route {}: {what}", attached.route.name));
                }
            }
        }
        Ok(self)
    }
}

/// Parts of a gateway that do not hold together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("gateway {gateway}: {what}")]
pub struct InvalidGateway {
    gateway: ServiceName,
    what: String,
}

/// A host name, or all names below one: `*.example.com` (Gateway API, `Hostname`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern {
    wild: bool,
    name: Hostname,
}

impl HostPattern {
    /// Whether `host` is meant. A wildcard stands for one or more labels.
    pub fn matches(&self, host: &Hostname) -> bool {
        if !self.wild {
            return *host == self.name;
        }
        let rest = host.as_str().strip_suffix(self.name.as_str());
        rest.is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }

    /// Whether it stands for more than one name.
    pub fn is_wild(&self) -> bool {
        self.wild
    }

    /// The name, without the wildcard.
    pub fn name(&self) -> &Hostname {
        &self.name
    }

    /// How exactly it says what it means: an exact name before every wildcard, a longer wildcard before a shorter.
    pub fn specificity(&self) -> (bool, usize) {
        (!self.wild, self.name.as_str().len())
    }

    /// The pattern of the names that both mean; `None` where there is none.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let (exact, wide) =
            if self.specificity() >= other.specificity() { (self, other) } else { (other, self) };
        let within = if exact.wild {
            wide.wild && (exact.name == wide.name || wide.matches(&exact.name))
        } else {
            wide.matches(&exact.name)
        };
        within.then(|| exact.clone())
    }
}

impl FromStr for HostPattern {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (wild, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        Ok(Self { wild, name: Hostname::new(name)? })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.wild { "*." } else { "" })?;
        self.name.fmt(f)
    }
}

impl fmt::Debug for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_wildcard_stands_for_labels_and_not_for_the_name_itself() {
        let host = |text: &str| Hostname::new(text).unwrap();
        let wild = pattern("*.Example.com");
        assert!(wild.matches(&host("a.example.com")) && wild.matches(&host("a.b.example.com")));
        assert!(!wild.matches(&host("example.com")) && !wild.matches(&host("aexample.com")));
        for bad in ["*", "*.", "a.*.b", "*a.b", ""] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_meet_in_the_more_exact_one() {
        for (a, b, both) in [
            ("a.b.c", "*.b.c", Some("a.b.c")),
            ("*.b.c", "*.c", Some("*.b.c")),
            ("*.b.c", "*.b.c", Some("*.b.c")),
            ("*.b.c", "b.c", None),
            ("a.b", "a.c", None),
        ] {
            let met = pattern(a).intersection(&pattern(b)).map(|p| p.to_string());
            assert_eq!(met.as_deref(), both, "{a} {b}");
            assert_eq!(pattern(b).intersection(&pattern(a)).map(|p| p.to_string()).as_deref(), both);
        }
    }
}
