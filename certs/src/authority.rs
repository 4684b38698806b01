//! The certificate authority: a root and an intermediate, made once, and what it signs.
//!
//! What follows it is in `succession`, one that a company gives as files in `external`.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use outrigger_mesh::{Hostname, SpiffeId, Trust, TrustDomain};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, SigningKey,
    SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};
use zeroize::Zeroizing;

use crate::disk::{read_private, write_private};
use crate::error::CertError;
use crate::token::{RootHash, hex, sha256};
use crate::trust::may_sign;
use crate::verify::{is_signed_key, parse};

/// How long certificates of the authority itself live.
const ROOT_LIFE: Duration = Duration::from_hours(10 * 365 * 24);
const INTERMEDIATE_LIFE: Duration = Duration::from_hours(5 * 365 * 24);
/// Certificates begin this long before they are made: a peer's clock may be behind ours.
const SKEW: Duration = Duration::from_mins(10);
/// A request is a few hundred bytes; nothing larger is parsed.
const MAX_REQUEST: usize = 16 * 1024;

/// Signs the certificates of one trust domain.
#[derive(Debug)]
pub struct Authority {
    pub(crate) trust_domain: TrustDomain,
    /// Whom the mesh is to believe; the one above the intermediate first.
    pub(crate) roots: Vec<CertificateDer<'static>>,
    /// What goes with every leaf: the certificate of the signing key, and what is between it and the root.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) issuer: IntermediateKey,
    pub(crate) ends: Ends,
}

/// When the certificates of an authority end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The root.
    pub root: SystemTime,
    /// The first of those between the root and a leaf.
    pub intermediate: SystemTime,
}

pub(crate) struct IntermediateKey(pub(crate) Issuer<'static, KeyPair>);

impl std::fmt::Debug for IntermediateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IntermediateKey(…)")
    }
}

/// What an authority is kept as, PEM. The root's key signs the next intermediate and nothing else.
pub struct AuthorityPems {
    /// The root certificate.
    pub root: String,
    /// Its private key.
    pub root_key: Zeroizing<String>,
    /// The intermediate certificate.
    pub intermediate: String,
    /// Its private key.
    pub intermediate_key: Zeroizing<String>,
}

/// A certificate as it was signed.
#[derive(Clone, Debug)]
pub struct SignedLeaf {
    /// Leaf and intermediate, DER.
    pub chain: Vec<Vec<u8>>,
    /// From when it holds.
    pub not_before: SystemTime,
    /// Until when it holds.
    pub not_after: SystemTime,
    /// Its serial number, in hex.
    pub serial: String,
}

impl SignedLeaf {
    /// The SHA-256 of the leaf, in hex: what [`crate::Peer::certificate_sha256`] tells of whoever shows it.
    pub fn sha256(&self) -> String {
        self.chain.first().map(|leaf| hex(&sha256(leaf))).unwrap_or_default()
    }
}

/// How long a workload's certificate lives: 24 h unless set, 1 h to 90 d.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafLifetime(Duration);

impl LeafLifetime {
    /// `None` outside of 1 h to 90 d.
    pub fn new(life: Duration) -> Option<Self> {
        (Duration::from_hours(1)..=Duration::from_hours(90 * 24)).contains(&life).then_some(Self(life))
    }

    /// Any length, for tests that can not wait half an hour for a renewal.
    pub fn for_tests(life: Duration) -> Self {
        Self(life)
    }

    /// The length.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl Default for LeafLifetime {
    fn default() -> Self {
        Self(Duration::from_hours(24))
    }
}

impl Authority {
    /// Makes a new root and intermediate for `trust_domain`, together with what to keep of them.
    pub fn create(trust_domain: &TrustDomain, now: SystemTime) -> Result<(Self, AuthorityPems), CertError> {
        let make = |what| move |source| CertError::Make { what, source };
        let root_key = Zeroizing::new(new_key()?);
        let params = authority_params(&fresh_name("root", trust_domain)?, 1, ROOT_LIFE, now)?;
        let root = params.self_signed(&*root_key).map_err(make("the root certificate"))?;
        let issuer = Issuer::from_params(&params, &*root_key);
        let (intermediate, intermediate_key) = new_intermediate(trust_domain, &issuer, now + ROOT_LIFE, now)?;
        let pems = AuthorityPems {
            root: root.pem(),
            root_key: Zeroizing::new(root_key.serialize_pem()),
            intermediate: intermediate.pem(),
            intermediate_key: Zeroizing::new(intermediate_key.serialize_pem()),
        };
        Ok((Self::load(trust_domain, &pems)?, pems))
    }

    /// Takes up an authority that was kept. Parts that do not belong together are found here, not by the first workload
    /// whose certificate nobody believes.
    pub fn load(trust_domain: &TrustDomain, pems: &AuthorityPems) -> Result<Self, CertError> {
        let certificate = |what, pem: &str| {
            CertificateDer::from_pem_slice(pem.as_bytes())
                .map_err(|e| CertError::Unreadable { what, why: e.to_string() })
        };
        let unreadable = |what| move |e: rcgen::Error| CertError::Unreadable { what, why: e.to_string() };
        let key = KeyPair::from_pem(&pems.intermediate_key).map_err(unreadable("the intermediate's key"))?;
        let root_key =
            Zeroizing::new(KeyPair::from_pem(&pems.root_key).map_err(unreadable("the root's key"))?);
        let intermediate = certificate("the intermediate certificate", &pems.intermediate)?;
        let root = certificate("the root certificate", &pems.root)?;
        let ends = {
            let (root, intermediate) = (parse(&root)?, parse(&intermediate)?);
            belong_together(&root, &root_key, &intermediate, &key)?;
            Ends { root: end_of(&root), intermediate: end_of(&intermediate) }
        };
        let issuer = Issuer::from_ca_cert_der(&intermediate, key)
            .map_err(unreadable("the intermediate certificate"))?;
        let issuer = IntermediateKey(issuer);
        let (roots, chain) = (vec![root], vec![intermediate]);
        Ok(Self { trust_domain: trust_domain.clone(), roots, chain, issuer, ends })
    }

    /// The authority kept in `folder` (0700, files 0600), made there the first time. A folder that holds a part of one,
    /// a corrupt one or one of another trust domain is an error, and nothing in it is changed.
    pub fn open_or_create(folder: &Path, trust_domain: &TrustDomain) -> Result<Self, CertError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| CertError::File { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
        let mode = fs::metadata(folder).map_err(failed(folder))?.mode() & 0o777;
        if mode & 0o022 != 0 {
            return Err(CertError::OpenFolder { path: folder.to_path_buf(), mode });
        }
        // Two processes must never make two roots: only the holder of the lock looks and makes.
        let lock = folder.join("lock");
        let held = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock);
        let held = held.map_err(failed(&lock))?;
        rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|e| failed(&lock)(e.into()))?;

        let file = folder.join("authority.pem");
        let Some(text) = read_private(&file)? else {
            let (authority, pems) = Self::create(trust_domain, SystemTime::now())?;
            write_private(&file, pems.to_text(trust_domain).as_bytes())?;
            return Ok(authority);
        };
        let (kept, pems) = AuthorityPems::from_text(&text).map_err(|why| CertError::File {
            path: file.clone(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, why),
        })?;
        if &kept != trust_domain {
            return Err(CertError::OtherTrustDomain { expected: trust_domain.clone(), got: kept });
        }
        Self::load(trust_domain, &pems)
    }

    /// Signs the key of a request for `id`. Every name in the certificate comes from `id`, none from the request.
    pub fn sign(
        &self,
        csr_der: &[u8],
        id: &SpiffeId,
        lifetime: LeafLifetime,
        now: SystemTime,
    ) -> Result<SignedLeaf, CertError> {
        if id.trust_domain() != &self.trust_domain {
            let why = format!("{id} is not of trust domain {}", self.trust_domain);
            return Err(CertError::Request(why));
        }
        self.sign_with(csr_der, lifetime, now, |from, to| leaf_params(id, from, to))
    }

    /// Signs the key of a request as that of a server of these names, which is no workload.
    pub(crate) fn sign_server(
        &self,
        csr_der: &[u8],
        names: &[Hostname],
        lifetime: LeafLifetime,
        now: SystemTime,
    ) -> Result<SignedLeaf, CertError> {
        self.sign_with(csr_der, lifetime, now, |from, to| server_params(names, from, to))
    }

    fn sign_with(
        &self,
        csr_der: &[u8],
        lifetime: LeafLifetime,
        now: SystemTime,
        params: impl FnOnce(SystemTime, SystemTime) -> Result<CertificateParams, CertError>,
    ) -> Result<SignedLeaf, CertError> {
        if csr_der.len() > MAX_REQUEST {
            let why = format!("{} bytes are too many for a request", csr_der.len());
            return Err(CertError::Request(why));
        }
        let key = requested_key(csr_der).map_err(CertError::Request)?;
        let end = self.ends.root.min(self.ends.intermediate);
        if now >= end {
            return Err(CertError::AuthorityExpired);
        }
        let (not_before, not_after) = (now - SKEW, (now + lifetime.get()).min(end));
        let params = params(not_before, not_after)?;
        let serial = params.serial_number.as_ref().map(|s| hex(s.as_ref())).unwrap_or_default();
        let leaf = params
            .signed_by(&key, &self.issuer.0)
            .map_err(|source| CertError::Make { what: "a certificate", source })?;
        let chain = std::iter::once(leaf.der()).chain(&self.chain).map(|c| c.to_vec()).collect();
        Ok(SignedLeaf { chain, not_before, not_after, serial })
    }

    /// The trust domain it signs for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The root certificate, DER.
    pub fn root_der(&self) -> &[u8] {
        self.roots.first().map_or(&[], AsRef::as_ref)
    }

    /// The SHA-256 of the certificate of the key that signs, in hex.
    pub fn intermediate_sha256(&self) -> String {
        self.chain.first().map(|c| hex(&sha256(c))).unwrap_or_default()
    }

    /// When its certificates end. No leaf lives longer.
    pub fn ends(&self) -> Ends {
        self.ends
    }

    /// What a join token carries of the root.
    pub fn root_sha256(&self) -> RootHash {
        RootHash::of(self.root_der())
    }

    /// The roots as a resource to push.
    pub fn trust(&self) -> Trust {
        let roots = self.roots.iter().map(|root| root.as_ref().into()).collect();
        Trust { trust_domain: self.trust_domain.clone(), roots }
    }
}

/// The parts of the kept file, in order: a line with the trust domain, then four PEM blocks.
impl AuthorityPems {
    /// Everything as one text. It holds private keys.
    pub fn to_text(&self, trust_domain: &TrustDomain) -> Zeroizing<String> {
        let parts = [&self.root, &*self.root_key, &self.intermediate, &*self.intermediate_key];
        let first = format!("trust-domain: {trust_domain}\n");
        // Sized beforehand: a text that grows leaves copies of the keys behind.
        let size = first.len() + parts.iter().map(|p| p.len()).sum::<usize>();
        let mut text = Zeroizing::new(String::with_capacity(size));
        text.push_str(&first);
        for part in parts {
            text.push_str(part);
        }
        text
    }

    /// Reads [`AuthorityPems::to_text`] back. The error tells nothing of the keys.
    pub fn from_text(text: &str) -> Result<(TrustDomain, Self), String> {
        let (first, rest) = text.split_once('\n').ok_or("it is empty")?;
        let domain = first.strip_prefix("trust-domain: ").ok_or("its first line names no trust domain")?;
        let domain = TrustDomain::new(domain).map_err(|e| e.to_string())?;
        let mut blocks = Vec::new();
        let mut rest = rest;
        while let Some(end) = rest.find("-----END ") {
            let line_end = rest[end..].find('\n').map_or(rest.len(), |i| end + i + 1);
            blocks.push(rest[..line_end].to_owned());
            rest = &rest[line_end..];
        }
        let blocks: [String; 4] =
            blocks.try_into().map_err(|b: Vec<_>| format!("it has {} PEM blocks instead of 4", b.len()))?;
        let [root, root_key, intermediate, intermediate_key] = blocks;
        let (root_key, intermediate_key) = (Zeroizing::new(root_key), Zeroizing::new(intermediate_key));
        Ok((domain, Self { root, root_key, intermediate, intermediate_key }))
    }
}

/// Whether each key is that of its certificate and the root signed the intermediate.
fn belong_together(
    root: &X509Certificate<'_>,
    root_key: &KeyPair,
    intermediate: &X509Certificate<'_>,
    key: &KeyPair,
) -> Result<(), CertError> {
    let is_of = |key: &KeyPair, certificate: &X509Certificate<'_>| {
        *certificate.public_key().subject_public_key.data == *key.public_key_raw()
    };
    if !is_of(root_key, root) || !is_of(key, intermediate) {
        return Err(CertError::Mismatch);
    }
    let bad = |what, why: &str| CertError::Unreadable { what, why: why.into() };
    if !may_sign(root) {
        return Err(bad("the root certificate", "it is not that of an authority"));
    }
    let signed = intermediate.issuer().as_raw() == root.subject().as_raw()
        && intermediate.verify_signature(Some(root.public_key())).is_ok();
    if !signed || !may_sign(intermediate) {
        return Err(bad("the intermediate certificate", "the root beside it did not make it an authority"));
    }
    Ok(())
}

/// The public key of a request, and nothing else of it. Its signature is checked: whoever asks holds the private key.
/// The kind of key is read from the key itself, not from the name of the signature.
fn requested_key(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, String> {
    let request = match X509CertificationRequest::from_der(csr_der) {
        Ok(([], request)) => request,
        Ok(_) => return Err("there are bytes after its end".into()),
        Err(_) => return Err("it can not be parsed".into()),
    };
    let key = &request.certification_request_info.subject_pki;
    if !is_signed_key(key) {
        return Err("only ECDSA P-256 and Ed25519 keys are signed".into());
    }
    request.verify_signature().map_err(|_| "it is not signed by the key it carries")?;
    SubjectPublicKeyInfo::from_der(key.raw).map_err(|e| e.to_string())
}

/// A key and a certificate for it, signed by `root`, which ends at `root_end`.
pub(crate) fn new_intermediate(
    trust_domain: &TrustDomain,
    root: &Issuer<'_, impl SigningKey>,
    root_end: SystemTime,
    now: SystemTime,
) -> Result<(Certificate, Zeroizing<KeyPair>), CertError> {
    let key = Zeroizing::new(new_key()?);
    let life = INTERMEDIATE_LIFE.min(root_end.duration_since(now).unwrap_or_default());
    let mut params = authority_params(&fresh_name("intermediate", trust_domain)?, 0, life, now)?;
    params.use_authority_key_identifier_extension = true;
    let made = params.signed_by(&*key, root);
    let made = made.map_err(|source| CertError::Make { what: "the intermediate certificate", source })?;
    Ok((made, key))
}

/// Roots of one mesh have names of their own: a verifier that looks for an issuer by its name finds the right one.
fn fresh_name(what: &str, trust_domain: &TrustDomain) -> Result<String, CertError> {
    let mut bytes = [0_u8; 4];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| CertError::Request("the system gives no random numbers".into()))?;
    Ok(format!("Outrigger {what} {}, {trust_domain}", hex(&bytes)))
}

pub(crate) fn end_of(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = certificate.validity().not_after.timestamp();
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn new_key() -> Result<KeyPair, CertError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| CertError::Make { what: "a key pair", source })
}

pub(crate) fn authority_params(
    name: &str,
    below: u8,
    life: Duration,
    now: SystemTime,
) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::from(now - SKEW);
    params.not_after = OffsetDateTime::from(now + life);
    params.serial_number = Some(serial()?);
    Ok(params)
}

fn leaf_params(id: &SpiffeId, from: SystemTime, to: SystemTime) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let uri = id.to_string().try_into().map_err(|source| CertError::Make { what: "a URI name", source })?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = OffsetDateTime::from(from);
    params.not_after = OffsetDateTime::from(to);
    params.serial_number = Some(serial()?);
    Ok(params)
}

fn server_params(
    names: &[Hostname],
    from: SystemTime,
    to: SystemTime,
) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for name in names {
        let name = name.as_str().to_owned().try_into();
        let name = name.map_err(|source| CertError::Make { what: "a DNS name", source })?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = OffsetDateTime::from(from);
    params.not_after = OffsetDateTime::from(to);
    params.serial_number = Some(serial()?);
    Ok(params)
}

/// 127 random bits, positive (RFC 5280, section 4.1.2.2).
fn serial() -> Result<SerialNumber, CertError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| CertError::Request("the system gives no random numbers".into()))?;
    bytes[0] = bytes[0] & 0x7f | 1;
    Ok(SerialNumber::from_slice(&bytes))
}
