//! Where the shared store is: `etcd://HOST:PORT,HOST:PORT/PREFIX`, and what one shows there.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use outrigger_mesh::TrustDomain;
use zeroize::Zeroizing;

/// The members of a cluster, and where in it a mesh lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdAddress {
    /// Whether TLS is spoken.
    pub(super) tls: bool,
    /// Host and port of each member.
    pub(super) members: Vec<(String, u16)>,
    /// Begins with a slash and does not end with one.
    pub(super) prefix: String,
    /// Whether the prefix was said.
    said: bool,
}

/// What is shown to the cluster, and who vouches for it. All of it lies in files.
#[derive(Clone, Debug, Default)]
pub struct EtcdSecrets {
    /// Who vouches for the members; without it what the system trusts does.
    pub roots: Option<PathBuf>,
    /// The client's certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The user's name, and the file with the password.
    pub user: Option<(String, PathBuf)>,
}

impl EtcdAddress {
    /// The prefix of a mesh that says none is its own: two meshes never meet by accident.
    #[must_use]
    pub fn of_mesh(self, trust_domain: &TrustDomain) -> Self {
        if self.said {
            return self;
        }
        Self { prefix: format!("/outrigger/{trust_domain}"), ..self }
    }
}

impl FromStr for EtcdAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (tls, rest) = match text.split_once("://") {
            Some(("etcd", rest)) => (false, rest),
            Some(("etcds", rest)) => (true, rest),
            _ => return Err(format!("{text}: write etcds://HOST:PORT,HOST:PORT, or etcd:// without TLS")),
        };
        let (members, prefix) = match rest.split_once('/') {
            Some((members, prefix)) => (members, prefix.trim_end_matches('/')),
            None => (rest, ""),
        };
        let members: Vec<_> = members.split(',').map(member).collect::<Result<_, _>>()?;
        if members.len() > MAX_MEMBERS {
            return Err(format!("{} members are more than {MAX_MEMBERS}", members.len()));
        }
        if !tls && let Some((host, _)) = members.iter().find(|(host, _)| !is_loopback(host)) {
            let why = "the keys of the mesh's authority would cross the network for everybody to read";
            return Err(format!("{host} is not this machine, and {why}: write etcds://"));
        }
        if prefix.len() > MAX_PREFIX || !prefix.split('/').all(is_segment) && !prefix.is_empty() {
            return Err(format!("{prefix}: a prefix has letters, digits, dots, dashes and slashes"));
        }
        Ok(Self { tls, members, prefix: format!("/{prefix}"), said: !prefix.is_empty() })
    }
}

impl fmt::Display for EtcdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<_> = self.members.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        write!(f, "{}://{}{}", if self.tls { "etcds" } else { "etcd" }, members.join(","), self.prefix)
    }
}

impl EtcdSecrets {
    /// The name and the password of the moment.
    pub(super) fn user(&self) -> Result<Option<(String, Zeroizing<String>)>, String> {
        let Some((name, file)) = &self.user else { return Ok(None) };
        let text = outrigger_certs::read_secret(file).map_err(|e| e.to_string())?;
        Ok(Some((name.clone(), Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()))))
    }
}

fn member(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("{text:?} is no member: write HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let is_host = host.parse::<IpAddr>().is_ok()
        || !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    if is_host { Ok((host.to_owned(), port)) } else { Err(wrong()) }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_segment(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

const MAX_MEMBERS: usize = 16;
const MAX_PREFIX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_told_as_it_was_written() {
        let one: EtcdAddress = "etcd://127.0.0.1:2379,localhost:2380,[::1]:2381/meshes/shop".parse().unwrap();
        assert_eq!(one.members[2], ("::1".into(), 2381));
        assert_eq!(one.prefix, "/meshes/shop");
        let domain: TrustDomain = "mesh.local".parse().unwrap();
        assert_eq!(one.clone().of_mesh(&domain), one);
        let other: EtcdAddress = "etcds://a.example:2379,b.example:2379".parse().unwrap();
        assert!(other.tls);
        let text = other.of_mesh(&domain).to_string();
        assert_eq!(text, "etcds://a.example:2379,b.example:2379/outrigger/mesh.local");
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        for (text, why) in [
            ("http://127.0.0.1:2379", "write etcds://"),
            ("etcd://127.0.0.1", "HOST:PORT"),
            ("etcd://127.0.0.1:0", "HOST:PORT"),
            ("etcd://", "HOST:PORT"),
            ("etcd://user@127.0.0.1:2379", "HOST:PORT"),
            ("etcd://10.0.0.1:2379", "for everybody to read"),
            ("etcds://a:1/x//y", "a prefix has"),
            ("etcds://a:1/x y", "a prefix has"),
        ] {
            let error = text.parse::<EtcdAddress>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
