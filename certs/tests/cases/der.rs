//! Certificates written byte by byte: what a library for making certificates would refuse to make is what is wanted
//! here.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

/// A certificate before it is signed. Every part is bytes and may be changed.
#[derive(Clone)]
pub(crate) struct Draft {
    /// 2 stands for v3.
    pub version: u8,
    pub serial: Vec<u8>,
    /// The algorithm as the signed part names it, and as the signature does.
    pub algorithms: (Vec<u8>, Vec<u8>),
    pub issuer: &'static str,
    pub subject: &'static str,
    /// Seconds from now.
    pub life: (i64, i64),
    /// The whole SubjectPublicKeyInfo.
    pub key: Vec<u8>,
    pub extensions: Vec<Extension>,
    /// What stands behind the certificate.
    pub trailing: Vec<u8>,
    /// Changes a bit of the signature.
    pub forged: bool,
}

#[derive(Clone)]
pub(crate) struct Extension {
    pub oid: &'static [u8],
    pub critical: bool,
    pub value: Vec<u8>,
}

pub(crate) const SAN: &[u8] = &[0x55, 29, 17];
pub(crate) const BASIC: &[u8] = &[0x55, 29, 19];
pub(crate) const USAGE: &[u8] = &[0x55, 29, 15];
pub(crate) const EXTENDED: &[u8] = &[0x55, 29, 37];
pub(crate) const NAME_CONSTRAINTS: &[u8] = &[0x55, 29, 30];
/// 2.5.29.54, inhibitAnyPolicy: known to nobody here.
pub(crate) const UNKNOWN: &[u8] = &[0x55, 29, 54];

pub(crate) const CLIENT: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
pub(crate) const SERVER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
pub(crate) const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
pub(crate) const ANY_USAGE: &[u8] = &[0x55, 29, 37, 0];

pub(crate) const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
pub(crate) const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1];
pub(crate) const RSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5];
pub(crate) const RSA_MD5: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P224: &[u8] = &[0x2b, 0x81, 4, 0, 33];

/// A key that signs, and that leaves show.
pub(crate) struct Key(EcdsaKeyPair, Vec<u8>);

impl Key {
    pub(crate) fn new() -> Self {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
        Self(pair, pkcs8.as_ref().to_vec())
    }

    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.1
    }

    pub(crate) fn point(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }

    pub(crate) fn info(&self) -> Vec<u8> {
        spki(&[oid(EC), oid(P256)].concat(), &self.point())
    }
}

impl Draft {
    /// A leaf that keeps every rule.
    pub(crate) fn leaf(key: &Key, issuer: &'static str, uri: &str) -> Self {
        Self {
            subject: "leaf",
            extensions: vec![
                critical(USAGE, key_usage(0x80)),
                plain(EXTENDED, extended(&[CLIENT, SERVER])),
                plain(SAN, names(&[uri.as_bytes()])),
            ],
            ..Self::authority(key, issuer, "leaf", None)
        }
    }

    /// The certificate of an authority.
    pub(crate) fn authority(
        key: &Key,
        issuer: &'static str,
        subject: &'static str,
        pathlen: Option<u8>,
    ) -> Self {
        Self {
            version: 2,
            serial: vec![0x11, 0x22, 0x33],
            algorithms: (algorithm(ECDSA_SHA256), algorithm(ECDSA_SHA256)),
            issuer,
            subject,
            life: (-60, 3600),
            key: key.info(),
            extensions: vec![critical(BASIC, basic(true, pathlen)), critical(USAGE, key_usage(0x04))],
            trailing: Vec::new(),
            forged: false,
        }
    }

    /// Takes one extension out and puts others in its place.
    pub(crate) fn replace(&mut self, oid: &[u8], by: impl IntoIterator<Item = Extension>) {
        self.extensions.retain(|e| e.oid != oid);
        self.extensions.extend(by);
    }

    /// The certificate, DER.
    pub(crate) fn sign(&self, by: &Key) -> Vec<u8> {
        let now = time::OffsetDateTime::now_utc();
        let at = |seconds: i64| generalized(now + time::Duration::seconds(seconds));
        let listed: Vec<u8> = self.extensions.iter().flat_map(Extension::der).collect();
        let mut parts = vec![
            tlv(0x02, &self.serial),
            self.algorithms.0.clone(),
            name(self.issuer),
            sequence(&[at(self.life.0), at(self.life.1)].concat()),
            name(self.subject),
            self.key.clone(),
        ];
        if self.version > 0 {
            parts.insert(0, tlv(0xa0, &tlv(0x02, &[self.version])));
        }
        if !self.extensions.is_empty() {
            parts.push(tlv(0xa3, &sequence(&listed)));
        }
        let signed = sequence(&parts.concat());
        let mut signature = vec![0];
        signature.extend_from_slice(by.0.sign(&SystemRandom::new(), &signed).unwrap().as_ref());
        if self.forged {
            let last = signature.len() - 1;
            signature[last] ^= 1;
        }
        let whole = sequence(&[signed, self.algorithms.1.clone(), tlv(0x03, &signature)].concat());
        [whole, self.trailing.clone()].concat()
    }
}

impl Extension {
    fn der(&self) -> Vec<u8> {
        let critical = if self.critical { tlv(0x01, &[0xff]) } else { Vec::new() };
        sequence(&[oid(self.oid), critical, tlv(0x04, &self.value)].concat())
    }
}

pub(crate) fn plain(oid: &'static [u8], value: Vec<u8>) -> Extension {
    Extension { oid, critical: false, value }
}

pub(crate) fn critical(oid: &'static [u8], value: Vec<u8>) -> Extension {
    Extension { oid, critical: true, value }
}

/// Subject alternative names: URIs of any bytes.
pub(crate) fn names(uris: &[&[u8]]) -> Vec<u8> {
    sequence(&uris.iter().flat_map(|uri| tlv(0x86, uri)).collect::<Vec<_>>())
}

pub(crate) fn basic(ca: bool, pathlen: Option<u8>) -> Vec<u8> {
    let ca = if ca { tlv(0x01, &[0xff]) } else { Vec::new() };
    sequence(&[ca, pathlen.map(|n| tlv(0x02, &[n])).unwrap_or_default()].concat())
}

/// The first eight bits of a key usage, digitalSignature being 0x80, keyCertSign 0x04 and cRLSign 0x02.
pub(crate) fn key_usage(bits: u8) -> Vec<u8> {
    let unused = u8::try_from(bits.trailing_zeros().min(7)).unwrap();
    tlv(0x03, &[unused, bits])
}

pub(crate) fn extended(usages: &[&[u8]]) -> Vec<u8> {
    sequence(&usages.iter().flat_map(|u| oid(u)).collect::<Vec<_>>())
}

/// Constraints on one kind of name: `tag` 0x86 are URIs, 0x82 host names.
pub(crate) fn constraints(permitted: bool, tag: u8, base: &str) -> Vec<u8> {
    let trees = sequence(&tlv(tag, base.as_bytes()));
    sequence(&tlv(if permitted { 0xa0 } else { 0xa1 }, &trees))
}

pub(crate) fn algorithm(name: &[u8]) -> Vec<u8> {
    let rsa = name.starts_with(&RSA[..7]);
    sequence(&[oid(name), if rsa { tlv(0x05, &[]) } else { Vec::new() }].concat())
}

/// An RSA key of so many bits. Nobody has the private one.
pub(crate) fn rsa_info(bits: usize) -> Vec<u8> {
    let mut modulus = vec![0, 0xc5];
    modulus.resize(bits / 8 + 1, 0x5b);
    let key = sequence(&[tlv(0x02, &modulus), tlv(0x02, &[1, 0, 1])].concat());
    spki(&[oid(RSA), tlv(0x05, &[])].concat(), &key)
}

/// A key on a curve of 112 bits of strength.
pub(crate) fn p224_info() -> Vec<u8> {
    let mut point = vec![4];
    point.resize(57, 0x17);
    spki(&[oid(EC), oid(P224)].concat(), &point)
}

/// The key of `key`, its point written in short.
pub(crate) fn compressed_info(key: &Key) -> Vec<u8> {
    let point = key.point();
    let short = [&[2 + (point[64] & 1)], &point[1..33]].concat();
    spki(&[oid(EC), oid(P256)].concat(), &short)
}

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    sequence(&[sequence(algorithm), tlv(0x03, &[&[0], key].concat())].concat())
}

fn oid(bytes: &[u8]) -> Vec<u8> {
    tlv(0x06, bytes)
}

fn name(common: &str) -> Vec<u8> {
    let attribute = sequence(&[oid(&[0x55, 4, 3]), tlv(0x0c, common.as_bytes())].concat());
    sequence(&tlv(0x31, &attribute))
}

fn generalized(at: time::OffsetDateTime) -> Vec<u8> {
    let (d, t) = (at.date(), at.time());
    let text = format!(
        "{:02}{:02}{:02}{:02}{:02}{:02}Z",
        d.year() % 100,
        u8::from(d.month()),
        d.day(),
        t.hour(),
        t.minute(),
        t.second()
    );
    tlv(0x17, text.as_bytes())
}

fn sequence(content: &[u8]) -> Vec<u8> {
    tlv(0x30, content)
}

pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        n @ 0..128 => out.push(u8::try_from(n).unwrap()),
        n @ 128..256 => out.extend([0x81, u8::try_from(n).unwrap()]),
        n => {
            let n = u16::try_from(n).unwrap();
            out.push(0x82);
            out.extend(n.to_be_bytes());
        }
    }
    out.extend_from_slice(content);
    out
}
