//! Verifying a peer's certificate chain: the rules of SPIFFE X.509-SVID on top of path validation.
//!
//! One pure function decides, [`peer_from_chain`]. The two verifiers hand it to rustls, and every finished handshake
//! calls it again to make the [`Peer`], so that a handshake that skipped the verifier could not pass.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use outrigger_mesh::SpiffeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519};
use x509_parser::prelude::{FromDer, GeneralName, SubjectPublicKeyInfo, X509Certificate};

use crate::error::PeerError;
use crate::peer::Peer;
use crate::token::RootHash;
use crate::trust::{DomainRoots, RootFacts, RootPrint, TrustBundle, TrustStore, may_sign};

/// The longest chain of ours is the control plane's own after a change of the root: a leaf, its intermediate as signed by
/// either root, and both roots, so that who pinned either one finds it. One more is a company's own intermediate.
pub(crate) const MAX_CHAIN: usize = 6;

/// Which side of the connection presented the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The side that connected.
    Client,
    /// The side that was connected to.
    Server,
}

/// The workload that `chain` (leaf first, DER) proves at `now`.
pub fn peer_from_chain(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    role: Role,
    now: UnixTime,
) -> Result<Peer, PeerError> {
    let (leaf, intermediates) = chain.split_first().ok_or(PeerError::Absent)?;
    if chain.len() > MAX_CHAIN {
        return Err(PeerError::LongChain(chain.len()));
    }
    let parsed = parse(leaf)?;
    let id = leaf_identity(&parsed)?;
    let roots =
        bundle.roots(id.trust_domain()).ok_or_else(|| PeerError::ForeignDomain(id.trust_domain().clone()))?;
    let usage = match role {
        Role::Client => KeyUsage::client_auth(),
        Role::Server => KeyUsage::server_auth(),
    };
    // What the path above the leaf allows is learnt from the path that is chosen, so that an expired root beside its
    // successor of the same name does not spoil the verdict.
    let found = Cell::new((0, RootPrint::default()));
    let above = |path: &VerifiedPath<'_>| above_leaf(path, roots, now).map(|learnt| found.set(learnt));
    EndEntityCert::try_from(leaf)
        .and_then(|cert| {
            let algorithms = webpki::ALL_VERIFICATION_ALGS;
            cert.verify_for_usage(algorithms, roots.anchors(), intermediates, now, usage, None, Some(&above))
                .map(|_| ())
        })
        .map_err(|e| match e {
            webpki::Error::CertExpired { .. } => PeerError::Expired,
            webpki::Error::CertNotValidYet { .. } => PeerError::NotYetValid,
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                PeerError::Chain(format!("no root of {} signed it; another mesh?", id.trust_domain()))
            }
            webpki::Error::UnsupportedSignatureAlgorithmContext(_)
            | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
                PeerError::Chain("it is signed by an algorithm that is not believed here".into())
            }
            other => PeerError::Chain(other.to_string()),
        })?;
    // Whoever signed it may end before it does: it proves nothing after that.
    let (until, root) = found.get();
    let seconds = until.min(parsed.validity().not_after.timestamp());
    let not_after = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Ok(Peer::proven(id, not_after, leaf, root))
}

/// What path validation leaves open about the authorities above a leaf: that intermediates may sign certificates, that
/// there are no more of them than the root allows, and that the root's time has come and is not over. Until
/// when all of them hold, in seconds since 1970, and which root it was.
fn above_leaf(
    path: &VerifiedPath<'_>,
    roots: &DomainRoots,
    now: UnixTime,
) -> Result<(i64, RootPrint), webpki::Error> {
    let RootFacts { from, mut until, below, print } =
        roots.facts(path.anchor()).ok_or(webpki::Error::UnknownIssuer)?;
    let unix =
        |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    if now < unix(from) {
        return Err(webpki::Error::CertNotValidYet { time: now, not_before: unix(from) });
    }
    if now > unix(until) {
        return Err(webpki::Error::CertExpired { time: now, not_after: unix(until) });
    }
    for (above, intermediate) in (0_u32..).zip(path.intermediate_certificates()) {
        if below.is_some_and(|most| above >= most) {
            return Err(webpki::Error::PathLenConstraintViolated);
        }
        let der = intermediate.der();
        let intermediate = parse(&der).map_err(|_| webpki::Error::BadDer)?;
        if !may_sign(&intermediate) {
            return Err(webpki::Error::EndEntityUsedAsCa);
        }
        until = until.min(intermediate.validity().not_after.timestamp());
    }
    Ok((until, print))
}

pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PeerError> {
    match X509Certificate::from_der(der) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(PeerError::Malformed("bytes after its end".into())),
        Err(e) => Err(PeerError::Malformed(e.to_string())),
    }
}

/// The identity in a leaf, and the rules a leaf must keep (SPIFFE X.509-SVID, sections 2 to 4).
pub(crate) fn leaf_identity(leaf: &X509Certificate<'_>) -> Result<SpiffeId, PeerError> {
    let malformed = |e: x509_parser::error::X509Error| PeerError::Malformed(e.to_string());
    if leaf.basic_constraints().map_err(malformed)?.is_some_and(|c| c.value.ca) {
        return Err(PeerError::Authority);
    }
    if !is_signed_key(leaf.public_key()) {
        return Err(PeerError::Key);
    }
    let usage = leaf.key_usage().map_err(malformed)?.ok_or(PeerError::Usage("digital signatures"))?.value;
    if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
        return Err(PeerError::Usage("digital signatures, and for signing nothing else"));
    }
    let extended = leaf.extended_key_usage().map_err(malformed)?;
    let extended = extended.ok_or(PeerError::Usage("clients and servers of TLS"))?.value;
    if !extended.client_auth || !extended.server_auth {
        return Err(PeerError::Usage("clients and servers of TLS"));
    }
    let names = leaf.subject_alternative_name().map_err(malformed)?;
    let mut uris = Vec::new();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            // Another reader might read it as an identity: what can not be read is refused, not skipped.
            GeneralName::Invalid(..) => return Err(PeerError::Malformed("a name in it is not text".into())),
            _ => {}
        }
    }
    match uris[..] {
        [uri] => Ok(uri.parse()?),
        _ => Err(PeerError::UriNames(uris.len())),
    }
}

/// Whether a key is of a kind that workloads have: ECDSA P-256, uncompressed, or Ed25519.
pub(crate) fn is_signed_key(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let bits = &key.subject_public_key.data;
    if key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        return curve == Some(OID_EC_P256) && bits.len() == 65 && bits.first() == Some(&4);
    }
    key.algorithm.algorithm == OID_SIG_ED25519 && key.algorithm.parameters.is_none() && bits.len() == 32
}

/// How a verifier comes by the roots it believes.
#[derive(Clone, Debug)]
pub(crate) enum Roots {
    /// Those of the trust store at the moment of the handshake.
    Store(Arc<TrustStore>),
    /// The one with this hash, which the peer must present itself.
    Pinned(RootHash),
}

impl Roots {
    pub(crate) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<Peer, PeerError> {
        match self {
            Self::Store(store) => {
                let peer = peer_from_chain(chain, &store.load(), role, now)?;
                store.is_not_revoked(peer.id())?;
                Ok(peer)
            }
            Self::Pinned(pin) => {
                let leaf = chain.first().ok_or(PeerError::Absent)?;
                let claimed = leaf_identity(&parse(leaf)?)?;
                let bundle = TrustBundle::pinned(claimed.trust_domain(), chain, *pin).ok_or_else(|| {
                    PeerError::Chain("its root is not the one the join token names: another mesh".into())
                })?;
                peer_from_chain(chain, &bundle, role, now)
            }
        }
    }
}

/// What rustls asks about the chain of a peer.
#[derive(Debug)]
pub(crate) struct Verifier {
    roots: Roots,
    algorithms: WebPkiSupportedAlgorithms,
    /// Whether a client may present no certificate.
    optional: bool,
}

impl Verifier {
    pub(crate) fn new(roots: Roots, provider: &CryptoProvider, optional: bool) -> Self {
        Self { roots, algorithms: provider.signature_verification_algorithms, optional }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let chain: Vec<CertificateDer<'_>> =
            std::iter::once(leaf).chain(rest).map(|c| CertificateDer::from(c.as_ref())).collect();
        self.roots
            .verify(&chain, role, now)
            .map(|_| ())
            .map_err(|e| rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(e)))))
    }
}

const ONLY_TLS13: &str = "only TLS 1.3 is spoken here";

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(leaf, rest, Role::Server, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General(ONLY_TLS13.into()))
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

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        !self.optional
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
        self.verify(leaf, rest, Role::Client, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General(ONLY_TLS13.into()))
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
