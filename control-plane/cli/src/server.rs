//! Which control plane is asked, how it is reached, and why it is believed.
//!
//! Plain HTTP is for this machine only: a token is never sent to another in the clear.

use std::net::{IpAddr, Ipv4Addr};

use http::Uri;
use outrigger_certs::{
    AdminConnector, OutsideAlpn, OutsideConnector, OutsideName, RootHash, ShownCertificate,
    certificates_from_pem,
};
use outrigger_mesh::{Hostname, OutsideRoots};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::http::{CONNECT_WITHIN, NoAnswer};

/// A control plane's admin API by its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    secure: bool,
    host: String,
    port: u16,
}

/// Why a server is believed to be the one it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Believed {
    /// It shows the control plane's certificate of the mesh whose root has this hash (hex).
    Pin(String),
    /// It shows a certificate for its name, vouched for by these roots (PEM).
    Roots(String),
    /// The same, vouched for by what the system trusts.
    System,
}

/// A connection, whatever is below.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Server {
    /// Reads a URL such as `http://127.0.0.1:15080` or `https://mesh.example:15080`.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|e| format!("{e}"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("it must begin with http:// or https://".into()),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("it must end after the port".into());
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("it must not name a user".into());
        }
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let server = Self { secure, host, port };
        if server.address().is_none() && (!secure || Hostname::new(&server.host).is_err()) {
            let host = &server.host;
            return Err(format!("{host:?} is not an address{}", if secure { ", nor a name" } else { "" }));
        }
        Ok(server)
    }

    /// Its one spelling.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.host_and_port())
    }

    pub(crate) fn host_and_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Whether it is spoken to in TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether a token may be sent there.
    pub(crate) fn may_have_a_token(&self) -> bool {
        self.secure || self.address().is_some_and(|ip| ip.is_loopback())
    }

    fn address(&self) -> Option<IpAddr> {
        match self.host.trim_start_matches('[').trim_end_matches(']') {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            other => other.parse().ok(),
        }
    }

    /// A connection to it. Over TLS, whoever is there has proven to be `believed` when this returns.
    pub(crate) async fn connect(
        &self,
        believed: Option<&Believed>,
        shown: Option<&ShownCertificate>,
    ) -> Result<Box<dyn Io>, NoAnswer> {
        let stream = async {
            match self.address() {
                Some(ip) => TcpStream::connect((ip, self.port)).await,
                None => TcpStream::connect((self.host.as_str(), self.port)).await,
            }
        };
        let stream = tokio::time::timeout(CONNECT_WITHIN, stream).await;
        let stream =
            stream.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(NoAnswer::Connect)?;
        if !self.secure {
            return Ok(Box::new(stream));
        }
        let broken = |e: &dyn std::fmt::Display| NoAnswer::Unproven(e.to_string());
        let believed = believed.ok_or_else(|| broken(&"nothing is known by which it could be believed"))?;
        let roots = match believed {
            Believed::Pin(pin) => {
                let pin =
                    RootHash::from_hex(pin).ok_or_else(|| broken(&"the CA pin is not 64 hex digits"))?;
                let mut connector = AdminConnector::pinned(pin).map_err(|e| broken(&e))?;
                if let Some(shown) = shown {
                    connector = connector.showing(shown);
                }
                return Ok(Box::new(connector.connect(stream).await.map_err(|e| broken(&e))?));
            }
            Believed::Roots(pem) => OutsideRoots::Only(certificates_from_pem(pem).map_err(|e| broken(&e))?),
            Believed::System => OutsideRoots::System,
        };
        let name = match self.address() {
            Some(ip) => Some(OutsideName::of_address(ip)),
            None => Hostname::new(&self.host).ok().and_then(|name| OutsideName::of_host(&name)),
        };
        let name = name.ok_or_else(|| broken(&"no certificate can have its name"))?;
        let mut connector = OutsideConnector::new(&roots).map_err(|e| broken(&e))?;
        if let Some(shown) = shown {
            connector = connector.showing(shown);
        }
        let stream = connector.connect(stream, &name, OutsideAlpn::Http1).await.map_err(|e| broken(&e))?;
        Ok(Box::new(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_a_port_and_nothing_else() {
        for (url, expected) in [
            ("http://127.0.0.1:15080", Some("http://127.0.0.1:15080")),
            ("http://localhost:1/", Some("http://localhost:1")),
            ("http://[::1]:9", Some("http://[::1]:9")),
            ("https://127.0.0.1:15080", Some("https://127.0.0.1:15080")),
            ("https://Mesh.example", Some("https://mesh.example:443")),
            ("127.0.0.1:15080", None),
            ("http://127.0.0.1:15080/v1", None),
            ("http://mesh.example:80", None),
            ("https://me@mesh.example", None),
            ("https://127.0.0.1:15080@evil.example", None),
            ("ftp://127.0.0.1", None),
        ] {
            let parsed = Server::parse(url);
            assert_eq!(
                parsed.as_ref().ok().map(Server::url),
                expected.map(str::to_owned),
                "{url}: {parsed:?}"
            );
        }
    }

    #[test]
    fn a_token_goes_in_the_clear_to_this_machine_only() {
        for (url, may) in [
            ("http://127.0.0.1:15080", true),
            ("http://[::1]:1", true),
            ("http://10.0.0.1:1", false),
            ("https://10.0.0.1:1", true),
            ("https://mesh.example", true),
        ] {
            assert_eq!(Server::parse(url).unwrap().may_have_a_token(), may, "{url}");
        }
    }
}
