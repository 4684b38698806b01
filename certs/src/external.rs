//! An authority that a company gives as files: an intermediate of its own, with its key, and the roots to believe.
//!
//! Everything that would make the mesh refuse what it signs is found here, with a sentence that names the file and says
//! what to do. When the files change, and who must know a root before it signs, is kept by the control plane.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use outrigger_mesh::TrustDomain;
use rcgen::{Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::prelude::{GeneralName, X509Certificate};

use crate::authority::{Authority, Ends, IntermediateKey, LeafLifetime, end_of};
use crate::control_tls::control_plane_id;
use crate::disk::read_file;
use crate::error::CertError;
use crate::key::WorkloadKey;
use crate::trust::{TrustBundle, may_sign};
use crate::verify::{Role, parse, peer_from_chain};

/// Where the files are, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityFiles {
    /// The certificate that signs, then those between it and the root.
    pub cert: PathBuf,
    /// Its private key, which not everybody on the machine may read; a group may, since platforms hand secrets out so.
    pub key: PathBuf,
    /// The roots to believe.
    pub roots: PathBuf,
}

/// The certificate that signs and what may be above it, below the root: chains of the mesh are no longer.
const MAX_BETWEEN: usize = 2;
/// More roots than any change of roots needs.
const MAX_ROOTS: usize = 16;

impl AuthorityFiles {
    /// Reads and proves them.
    pub fn load(&self, trust_domain: &TrustDomain, now: SystemTime) -> Result<Authority, CertError> {
        let mut chain = certificates(&self.cert)?;
        let top = chain.last().map(|last| of(&self.cert, last)).transpose()?;
        if chain.len() > 1 && top.is_some_and(|top| signed_by(&top, &top)) {
            // Written as a whole chain: the root is believed for standing among the roots, not for coming along.
            chain.pop();
        }
        if chain.len() > MAX_BETWEEN {
            let why =
                format!("{} certificates below the root, which are more than {MAX_BETWEEN}", chain.len());
            return Err(bad(&self.cert, why));
        }
        let key = self.key_of(&chain[0])?;
        for (below, certificate) in chain.iter().enumerate() {
            proven(&self.cert, certificate, below, now)?;
        }
        let roots = self.rooted(&chain, now)?;
        let mut intermediate = None;
        for certificate in &chain {
            let end = end_of(&of(&self.cert, certificate)?);
            intermediate = Some(intermediate.map_or(end, |first: SystemTime| first.min(end)));
        }
        let root = end_of(&of(&self.roots, &roots[0])?);
        let ends = Ends { root, intermediate: intermediate.unwrap_or(root) };
        let issuer = Issuer::from_ca_cert_der(&chain[0], key).map_err(|e| bad(&self.cert, e.to_string()))?;
        let issuer = IntermediateKey(issuer);
        let authority = Authority { trust_domain: trust_domain.clone(), roots, chain, issuer, ends };
        self.try_out(&authority, now)?;
        Ok(authority)
    }

    fn key_of(&self, certificate: &CertificateDer<'_>) -> Result<KeyPair, CertError> {
        let text = read_file(&self.key, 0o007)?;
        if text.contains("ENCRYPTED") {
            return Err(bad(
                &self.key,
                "it is encrypted, and nobody is there to type its passphrase: decrypt it",
            ));
        }
        // What the libraries say could quote the key.
        let none = "there is no private key in it that can be used: PKCS#8, in PEM, ECDSA, RSA or Ed25519";
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| bad(&self.key, none))?;
        let key = KeyPair::try_from(&key).map_err(|_| bad(&self.key, none))?;
        if *of(&self.cert, certificate)?.public_key().subject_public_key.data == *key.public_key_raw() {
            return Ok(key);
        }
        let cert = self.cert.display();
        Err(bad(
            &self.key,
            format!("it is not the key of the first certificate in {cert}, the one that signs"),
        ))
    }

    /// The roots, the one above the chain first.
    fn rooted(
        &self,
        chain: &[CertificateDer<'static>],
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, CertError> {
        for pair in chain.windows(2) {
            if !signed_by(&of(&self.cert, &pair[0])?, &of(&self.cert, &pair[1])?) {
                return Err(bad(&self.cert, "its certificates are not in order: each is signed by the next"));
            }
        }
        let mut roots = certificates(&self.roots)?;
        if roots.len() > MAX_ROOTS {
            return Err(bad(&self.roots, format!("{} roots are more than {MAX_ROOTS}", roots.len())));
        }
        let top = of(&self.cert, &chain[chain.len() - 1])?;
        // A root may sign by itself; then nothing is between it and a leaf.
        let between = if signed_by(&top, &top) { chain.len() - 1 } else { chain.len() };
        let mut above = None;
        for (at, root) in roots.iter().enumerate() {
            let parsed = of(&self.roots, root)?;
            if !may_sign(&parsed) {
                let why = format!("{} is no authority, so nothing can be believed for it", parsed.subject());
                return Err(bad(&self.roots, why));
            }
            if above.is_none() && signed_by(&top, &parsed) {
                proven(&self.roots, root, between, now)?;
                above = Some(at);
            }
        }
        let Some(above) = above else {
            let (top, cert) = (top.subject(), self.cert.display());
            let why = format!(
                "none of its roots signed {top}, the last certificate in {cert}: add the root to the one, or what is \
                 between them to the other"
            );
            return Err(bad(&self.roots, why));
        };
        roots.swap(0, above);
        Ok(roots)
    }

    /// Signs a certificate as the mesh would and verifies it as a peer would: what constrains its use shows here.
    fn try_out(&self, authority: &Authority, now: SystemTime) -> Result<(), CertError> {
        let csr = WorkloadKey::generate()?.csr()?;
        let id = control_plane_id(&authority.trust_domain)?;
        let leaf = authority.sign(&csr, &id, LeafLifetime::default(), now)?;
        let chain: Vec<_> = leaf.chain.iter().map(|c| CertificateDer::from(c.as_slice())).collect();
        let bundle = TrustBundle::new(&[authority.trust()])?;
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        for role in [Role::Client, Role::Server] {
            peer_from_chain(&chain, &bundle, role, UnixTime::since_unix_epoch(now)).map_err(|e| {
                let why = format!("the mesh would refuse what it signs for {}: {e}", authority.trust_domain);
                let hint = "it must be free to sign for clients and servers of TLS (extendedKeyUsage), and for any name";
                bad(&self.cert, format!("{why}; {hint}"))
            })?;
        }
        Ok(())
    }
}

/// Whether the certificate of a file may sign, now, with `below` authorities between it and a leaf.
fn proven(path: &Path, der: &CertificateDer<'_>, below: usize, now: SystemTime) -> Result<(), CertError> {
    let certificate = of(path, der)?;
    let name = certificate.subject().to_string();
    let refuse = |why: String| Err(bad(path, format!("{name} {why}")));
    let constraints = certificate.basic_constraints().ok().flatten().map(|c| c.value);
    if !constraints.is_some_and(|c| c.ca) {
        return refuse(
            "is no authority (basicConstraints without CA:TRUE): an intermediate is needed".into(),
        );
    }
    let room = constraints.and_then(|c| c.path_len_constraint);
    if room.is_some_and(|room| usize::try_from(room).is_ok_and(|room| room < below)) {
        return refuse(format!("allows fewer than the {below} authorities below it (its path length)"));
    }
    if !may_sign(&certificate) {
        return refuse("may not sign certificates (keyUsage without keyCertSign)".into());
    }
    if constrains_uris(&certificate) {
        let why = "constrains URI names (nameConstraints), which TLS libraries do not evaluate but refuse: have one \
                   made without";
        return refuse(why.into());
    }
    if now < begin_of(&certificate) {
        return refuse("is not yet valid: do the clocks agree?".into());
    }
    if now >= end_of(&certificate) {
        return refuse("has expired: have it renewed".into());
    }
    Ok(())
}

fn constrains_uris(certificate: &X509Certificate<'_>) -> bool {
    let Ok(Some(constraints)) = certificate.name_constraints() else { return false };
    let both = [&constraints.value.permitted_subtrees, &constraints.value.excluded_subtrees];
    both.into_iter().flatten().flatten().any(|subtree| matches!(subtree.base, GeneralName::URI(_)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let text = read_file(path, 0)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match all {
        Ok(all) if all.is_empty() => Err(bad(path, "there is no certificate in it, in PEM")),
        Ok(all) => Ok(all),
        Err(e) => Err(bad(path, format!("it can not be read as PEM: {e}"))),
    }
}

fn of<'a>(path: &Path, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertError> {
    parse(der).map_err(|e| bad(path, e.to_string()))
}

fn signed_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

fn begin_of(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = u64::try_from(certificate.validity().not_before.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)
}

fn bad(path: &Path, why: impl Into<String>) -> CertError {
    CertError::AuthorityFile { path: path.to_path_buf(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyUsagePurpose};

    use super::*;

    /// A company's PKI in a folder: a root, an intermediate with its key.
    struct Company {
        folder: tempfile::TempDir,
        root: (CertificateParams, KeyPair),
    }

    fn authority(name: &str, below: u8) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    impl Company {
        fn new(change: impl FnOnce(&mut CertificateParams)) -> Self {
            Self::under(authority("Company root", 1), change)
        }

        fn under(params: CertificateParams, change: impl FnOnce(&mut CertificateParams)) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let key = KeyPair::generate().unwrap();
            let company = Self { folder, root: (params, key) };
            company.write("roots", &company.root.0.self_signed(&company.root.1).unwrap().pem(), 0o644);
            let mut params = authority("Mesh intermediate", 0);
            change(&mut params);
            company.sign(&params);
            company
        }

        fn sign(&self, params: &CertificateParams) {
            let key = KeyPair::generate().unwrap();
            let issuer = Issuer::from_params(&self.root.0, &self.root.1);
            self.write("cert", &params.signed_by(&key, &issuer).unwrap().pem(), 0o644);
            self.write("key", &key.serialize_pem(), 0o600);
        }

        fn write(&self, name: &str, text: &str, mode: u32) {
            let path = self.folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }

        fn load(&self) -> Result<Authority, String> {
            let path = |name: &str| self.folder.path().join(name);
            let files = AuthorityFiles { cert: path("cert"), key: path("key"), roots: path("roots") };
            files.load(&TrustDomain::new("mesh.local").unwrap(), SystemTime::now()).map_err(|e| e.to_string())
        }

        fn refused(&self, words: &str) {
            let why = self.load().expect_err(words);
            assert!(why.contains(words), "{words:?} is not in: {why}");
        }
    }

    #[test]
    fn a_sound_intermediate_of_a_company_signs() {
        let authority = Company::new(|_| {}).load().unwrap();
        assert_eq!(authority.trust().roots.len(), 1);
        assert!(authority.ends().intermediate > SystemTime::now());
    }

    #[test]
    fn each_fault_of_the_certificate_has_its_own_words() {
        let ago = |d: u64| time::OffsetDateTime::from(SystemTime::now() - Duration::from_secs(d));
        let ahead = |d: u64| time::OffsetDateTime::from(SystemTime::now() + Duration::from_secs(d));
        Company::new(|p| p.is_ca = IsCa::ExplicitNoCa).refused("without CA:TRUE");
        Company::new(|p| p.key_usages = vec![KeyUsagePurpose::CrlSign]).refused("without keyCertSign");
        Company::new(|p| p.not_after = ago(60)).refused("has expired");
        Company::new(|p| p.not_before = ahead(3600)).refused("not yet valid");
    }

    #[test]
    fn a_constraint_on_names_of_hosts_leaves_workloads_alone() {
        let only = |p: &mut CertificateParams| {
            let subtree = rcgen::GeneralSubtree::DnsName("example.com".into());
            p.name_constraints =
                Some(rcgen::NameConstraints { permitted_subtrees: vec![subtree], excluded_subtrees: vec![] });
        };
        Company::new(only).load().unwrap();
    }

    #[test]
    fn an_intermediate_for_servers_alone_is_found_by_trying_it_out() {
        let servers = rcgen::ExtendedKeyUsagePurpose::ServerAuth;
        Company::new(|p| p.extended_key_usages = vec![servers]).refused("extendedKeyUsage");
    }

    #[test]
    fn a_root_without_room_for_an_authority_below_it_is_refused() {
        let company = Company::under(authority("Company root", 0), |_| {});
        company.refused("path length");
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused_by_name() {
        let (ours, other) = (Company::new(|_| {}), Company::new(|_| {}));
        let take = |name: &str| fs::read_to_string(other.folder.path().join(name)).unwrap();
        ours.write("roots", &take("roots"), 0o644);
        ours.refused("none of its roots signed");
        let ours = Company::new(|_| {});
        ours.write("key", &take("key"), 0o600);
        ours.refused("it is not the key of the first certificate");
        ours.write("key", "no key at all", 0o600);
        ours.refused("no private key");
        ours.write("key", "-----BEGIN ENCRYPTED PRIVATE KEY-----", 0o600);
        ours.refused("it is encrypted");
        ours.write("cert", "nothing", 0o644);
        ours.refused("no certificate in it");
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let company = Company::new(|_| {});
        let key = company.folder.path().join("key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        company.refused("can be read by others");
    }

    #[test]
    fn several_roots_are_believed_and_the_one_above_comes_first() {
        let (ours, other) = (Company::new(|_| {}), Company::new(|_| {}));
        let of = |company: &Company| fs::read_to_string(company.folder.path().join("roots")).unwrap();
        let own = ours.load().unwrap().root_sha256();
        ours.write("roots", &(of(&other) + &of(&ours)), 0o644);
        let authority = ours.load().unwrap();
        assert_eq!((authority.root_sha256(), authority.trust().roots.len()), (own, 2));
    }
}
