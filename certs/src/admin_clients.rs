//! Client certificates at the admin API: those of the mesh, and those of an authority of the operator's own.
//!
//! The two never mix: what the mesh vouches for is a workload's identity, what the other authority vouches for are the
//! names that stand in a certificate, whatever they spell.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::GeneralName;

use crate::error::PeerError;
use crate::peer::Peer;
use crate::tls::provider;
use crate::trust::may_sign;
use crate::verify::{MAX_CHAIN, Role, Roots, parse};

/// Who a client proved to be.
#[derive(Clone, Debug)]
pub enum AdminClient {
    /// A workload of the mesh.
    Workload(Peer),
    /// Whoever the operator's own authority says.
    Named(NamedClient),
}

/// A client with a certificate of the operator's own authority. There is no other way to make one than to verify it.
#[derive(Clone, Debug)]
pub struct NamedClient {
    names: Arc<[ClientName]>,
    not_after: SystemTime,
}

impl NamedClient {
    /// The names in its certificate, in their order; at least one.
    pub fn names(&self) -> &[ClientName] {
        &self.names
    }

    /// When its certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

/// A name in a certificate, with what kind of name it is: `cn:deploy`, `dns:ci.example`, `email:ada@example.org`,
/// `uri:https://example.org/ci`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientName(String);

impl ClientName {
    fn new(kind: &str, name: &str) -> Option<Self> {
        // What could be mistaken in a log or a list is no name.
        let good = !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(|b| b.is_ascii_graphic());
        good.then(|| Self(format!("{kind}:{name}")))
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ClientName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = text.split_once(':').unwrap_or_default();
        let known = KINDS.contains(&kind).then(|| Self::new(kind, name)).flatten();
        known.ok_or("write it as cn:NAME, dns:NAME, email:NAME or uri:NAME")
    }
}

/// An authority of the operator's own, in a file that is read again when it changes.
pub struct ClientAuthority {
    file: PathBuf,
    anchors: ArcSwap<Anchors>,
}

struct Anchors {
    changed: SystemTime,
    all: Vec<TrustAnchor<'static>>,
}

impl ClientAuthority {
    /// Reads the file: one or more certificates of authorities, PEM.
    pub fn read(file: &Path) -> Result<Self, String> {
        let anchors = Anchors::read(file)?;
        Ok(Self { file: file.to_owned(), anchors: ArcSwap::from_pointee(anchors) })
    }

    /// Reads the file again if it has changed; told is whether it has. The last good one stays in use where that fails.
    pub(crate) fn refresh(&self) -> Result<bool, String> {
        if self.anchors.load().changed == modified(&self.file)? {
            return Ok(false);
        }
        self.anchors.store(Arc::new(Anchors::read(&self.file)?));
        Ok(true)
    }

    fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<NamedClient, PeerError> {
        let (leaf, intermediates) = chain.split_first().ok_or(PeerError::Absent)?;
        if chain.len() > MAX_CHAIN {
            return Err(PeerError::LongChain(chain.len()));
        }
        let parsed = parse(leaf)?;
        let malformed = |e: x509_parser::error::X509Error| PeerError::Malformed(e.to_string());
        if parsed.basic_constraints().map_err(malformed)?.is_some_and(|c| c.value.ca) {
            return Err(PeerError::Authority);
        }
        // A server's certificate of the same authority proves nobody to be a client.
        let usage = parsed.extended_key_usage().map_err(malformed)?;
        if !usage.is_some_and(|usage| usage.value.client_auth) {
            return Err(PeerError::Usage("clients of TLS"));
        }
        let anchors = self.anchors.load();
        EndEntityCert::try_from(leaf)
            .and_then(|cert| {
                let (algorithms, usage) = (webpki::ALL_VERIFICATION_ALGS, KeyUsage::client_auth());
                cert.verify_for_usage(algorithms, &anchors.all, intermediates, now, usage, None, None)
                    .map(|_| ())
            })
            .map_err(|e| match e {
                webpki::Error::CertExpired { .. } => PeerError::Expired,
                webpki::Error::CertNotValidYet { .. } => PeerError::NotYetValid,
                other => PeerError::Chain(other.to_string()),
            })?;
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let names = names(&parsed)?;
        if names.is_empty() {
            return Err(PeerError::Malformed("there is no name in it".into()));
        }
        Ok(NamedClient { names: names.into(), not_after: UNIX_EPOCH + Duration::from_secs(seconds) })
    }
}

impl fmt::Debug for ClientAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())
    }
}

impl Anchors {
    fn read(file: &Path) -> Result<Self, String> {
        let bad = |e: &dyn fmt::Display| format!("{}: {e}", file.display());
        let changed = modified(file)?;
        let ders: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(|e| bad(&e))?.collect();
        let mut all = vec![];
        for der in ders.map_err(|e| bad(&e))? {
            let parsed = parse(&der).map_err(|e| bad(&e))?;
            if !may_sign(&parsed) {
                return Err(bad(&"a certificate in it is of no authority"));
            }
            all.push(webpki::anchor_from_trusted_cert(&der).map_err(|e| bad(&e))?.to_owned());
        }
        if all.is_empty() {
            return Err(bad(&"there is no certificate in it"));
        }
        Ok(Self { changed, all })
    }
}

fn modified(file: &Path) -> Result<SystemTime, String> {
    std::fs::metadata(file).and_then(|meta| meta.modified()).map_err(|e| format!("{}: {e}", file.display()))
}

/// The names in a certificate. The common name counts only where there is no other, as everywhere else.
fn names(leaf: &x509_parser::prelude::X509Certificate<'_>) -> Result<Vec<ClientName>, PeerError> {
    let malformed = |e: x509_parser::error::X509Error| PeerError::Malformed(e.to_string());
    let mut names = vec![];
    if let Some(alternative) = leaf.subject_alternative_name().map_err(malformed)? {
        for name in &alternative.value.general_names {
            names.extend(match name {
                GeneralName::DNSName(name) => ClientName::new("dns", name),
                GeneralName::RFC822Name(name) => ClientName::new("email", name),
                GeneralName::URI(name) => ClientName::new("uri", name),
                GeneralName::Invalid(..) => {
                    return Err(PeerError::Malformed("a name in it is not text".into()));
                }
                _ => None,
            });
        }
        return Ok(names);
    }
    let common: Vec<&str> = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok()).collect();
    Ok(match common[..] {
        [one] => ClientName::new("cn", one).into_iter().collect(),
        _ => vec![],
    })
}

/// Whom the admin API takes certificates of.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) roots: Roots,
    pub(crate) authority: Option<Arc<ClientAuthority>>,
}

impl Clients {
    pub(crate) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<AdminClient, PeerError> {
        let of_the_mesh = self.roots.verify(chain, Role::Client, now);
        match (of_the_mesh, &self.authority) {
            (Ok(peer), _) => Ok(AdminClient::Workload(peer)),
            (Err(why), None) => Err(why),
            (Err(_), Some(authority)) => authority.verify(chain, now).map(AdminClient::Named),
        }
    }
}

/// What rustls asks about a client's chain. None has to be shown; one that is shown must verify.
pub(crate) struct AdminVerifier {
    pub(crate) clients: Clients,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AdminVerifier {
    pub(crate) fn new(clients: Clients) -> Self {
        Self { clients, algorithms: provider().signature_verification_algorithms }
    }
}

impl fmt::Debug for AdminVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminVerifier")
    }
}

impl ClientCertVerifier for AdminVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain: Vec<_> =
            std::iter::once(leaf).chain(rest).map(|c| CertificateDer::from(c.as_ref())).collect();
        let refused = |e| rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(e))));
        self.clients.verify(&chain, now).map(|_| ClientCertVerified::assertion()).map_err(refused)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

const KINDS: [&str; 4] = ["cn", "dns", "email", "uri"];
const MAX_NAME: usize = 256;

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
        KeyUsagePurpose, SanType,
    };

    use super::*;

    type Signer = CertifiedIssuer<'static, KeyPair>;

    fn authority(name: &str) -> Signer {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// A client's certificate that differs from a good one, without other names, by `change`.
    fn client(by: &Signer, change: impl FnOnce(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "deploy");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        vec![params.signed_by(&KeyPair::generate().unwrap(), by).unwrap().der().clone()]
    }

    fn read(signer: &Signer) -> (tempfile::TempDir, ClientAuthority) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clients.pem");
        std::fs::write(&file, signer.pem()).unwrap();
        let read = ClientAuthority::read(&file).unwrap();
        (folder, read)
    }

    fn told(authority: &ClientAuthority, chain: &[CertificateDer<'_>]) -> String {
        match authority.verify(chain, UnixTime::now()) {
            Ok(named) => named.names().iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(why) => format!("refused: {why}"),
        }
    }

    #[test]
    fn a_certificate_is_taken_for_what_its_authority_says_and_no_other_is() {
        let (own, other) = (authority("own"), authority("own"));
        let (_folder, believed) = read(&own);
        let name = |text: &str| text.try_into().unwrap();
        let with = |names: Vec<SanType>| client(&own, |params| params.subject_alt_names = names);
        let days = |from: i64, until: i64| {
            let now = time::OffsetDateTime::now_utc();
            client(&own, |p| {
                (p.not_before, p.not_after) =
                    (now + time::Duration::days(from), now + time::Duration::days(until));
            })
        };
        let spiffe = "spiffe://mesh.local/ns/ops/sa/deploy";
        for (what, chain, expected) in [
            ("its common name", client(&own, |_| {}), "cn:deploy"),
            (
                "its other names, in place of the common one",
                with(vec![
                    SanType::DnsName(name("ci.example")),
                    SanType::Rfc822Name(name("ada@example.org")),
                ]),
                "dns:ci.example email:ada@example.org",
            ),
            (
                "a name as of the mesh is a name",
                with(vec![SanType::URI(name(spiffe))]),
                &format!("uri:{spiffe}"),
            ),
            (
                "addresses name nobody",
                with(vec![SanType::IpAddress([127, 0, 0, 1].into())]),
                "refused: the certificate can not be parsed: there is no name",
            ),
            (
                "no name",
                client(&own, |p| p.distinguished_name = rcgen::DistinguishedName::new()),
                "refused: the certificate can not be parsed: there is no name",
            ),
            (
                "a space in a name",
                client(&own, |p| p.distinguished_name.push(DnType::CommonName, "deploy admin")),
                "refused: the certificate can not be parsed: there is no name",
            ),
            ("another authority of its name", client(&other, |_| {}), "refused: the chain"),
            ("of yesterday", days(-2, -1), "refused: the certificate has expired"),
            ("of tomorrow", days(1, 2), "refused: the certificate is not yet valid"),
            (
                "a server's",
                client(&own, |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
                "refused: the certificate must be usable for clients",
            ),
            (
                "for anything",
                client(&own, |p| p.extended_key_usages.clear()),
                "refused: the certificate must be usable for clients",
            ),
            (
                "an authority's",
                client(&own, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
                "refused: the certificate is that of an authority",
            ),
            (
                "the authority itself",
                vec![own.der().clone()],
                "refused: the certificate is that of an authority",
            ),
            ("nothing", vec![], "refused: no certificate"),
        ] {
            let told = told(&believed, &chain);
            assert!(
                told.starts_with(expected) && (told == expected || told.starts_with("refused")),
                "{what}: {told}"
            );
        }
    }

    #[test]
    fn what_the_file_says_is_followed_and_what_it_does_not_say_is_passed_over() {
        let (old, new) = (authority("old"), authority("new"));
        let (folder, believed) = read(&old);
        let file = folder.path().join("clients.pem");
        let later = SystemTime::now() + Duration::from_secs(5);
        let write = |text: &str, at| {
            std::fs::write(&file, text).unwrap();
            std::fs::File::options().append(true).open(&file).unwrap().set_modified(at).unwrap();
        };
        write("nothing", later);
        assert!(believed.refresh().unwrap_err().contains("no certificate"));
        assert_eq!(told(&believed, &client(&old, |_| {})), "cn:deploy", "the last good one stays");
        write(&new.pem(), later + Duration::from_secs(5));
        assert_eq!((believed.refresh(), believed.refresh()), (Ok(true), Ok(false)));
        assert_eq!(told(&believed, &client(&new, |_| {})), "cn:deploy");
        assert!(told(&believed, &client(&old, |_| {})).starts_with("refused"));
        let leaf = CertificateParams::default().signed_by(&KeyPair::generate().unwrap(), &new).unwrap();
        write(&leaf.pem(), later + Duration::from_secs(9));
        assert!(believed.refresh().unwrap_err().contains("of no authority"));
    }

    #[test]
    fn a_name_says_what_kind_it_is() {
        for good in ["cn:deploy", "dns:ci.example", "email:ada@example.org", "uri:spiffe://a/b", "cn:a=b"] {
            assert_eq!(good.parse::<ClientName>().unwrap().to_string(), good);
        }
        for bad in ["", "deploy", "cn:", "CN:deploy", "ip:127.0.0.1", "cn:a b", "cn:a\nb", "cn:ü"] {
            assert!(bad.parse::<ClientName>().is_err(), "{bad}");
        }
    }
}
