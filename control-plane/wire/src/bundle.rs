//! Many resources as one file: what a sidecar keeps on disk, and what `outrigger compile` writes.
//!
//! A magic line, the SHA-256 of what follows, and the resources. A file that was cut, changed or made by something else
//! is refused, each with its own words; nothing of it is used.

use outrigger_mesh::{FeatureSet, InvalidName, Resource, ResourceName, SpiffeId};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::codec::{DecodeError, Encoded, decode};
use crate::pb;
use crate::session::{kind_of_type_url, type_url};

/// Resources of one revision, and whose copy it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// The workload whose copy this is; a compiled plan has none.
    pub owner: Option<SpiffeId>,
    /// The revision of the world that the resources come from.
    pub revision: u64,
    /// The resources. No name is there twice.
    pub resources: Vec<Resource>,
}

impl Bundle {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = pb::Bundle {
            owner: self.owner.as_ref().map(ToString::to_string),
            revision: self.revision,
            resources: self.resources.iter().map(named).collect(),
        }
        .encode_to_vec();
        let mut file = Vec::with_capacity(HEAD + body.len());
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&(body.len() as u64).to_be_bytes());
        file.extend_from_slice(&Sha256::digest(&body));
        file.extend_from_slice(&body);
        file
    }

    /// Reads a file back, for a reader who knows the features `known`.
    pub fn from_bytes(file: &[u8], known: &FeatureSet) -> Result<Self, BundleError> {
        let bundle = pb::Bundle::decode(body_of(file)?).map_err(|e| BundleError::Garbled(e.to_string()))?;
        let mut names = std::collections::HashSet::new();
        let mut resources = Vec::with_capacity(bundle.resources.len());
        for named in &bundle.resources {
            let kind = kind_of_type_url(&named.type_url)
                .ok_or_else(|| BundleError::UnknownKind(crate::codec::shortened(&named.type_url)))?;
            let resource = decode(kind, &named.name, &named.resource, known)?;
            if !names.insert(resource.name()) {
                return Err(BundleError::Twice(resource.name()));
            }
            resources.push(resource);
        }
        let owner = bundle.owner.map(|o| o.parse::<SpiffeId>()).transpose()?;
        Ok(Self { owner, revision: bundle.revision, resources })
    }
}

fn named(resource: &Resource) -> pb::Named {
    let encoded = Encoded::new(resource);
    pb::Named {
        type_url: type_url(encoded.name.kind()).to_owned(),
        name: encoded.name.to_string(),
        resource: encoded.payload.to_vec(),
    }
}

fn body_of(file: &[u8]) -> Result<&[u8], BundleError> {
    let Some(rest) = file.strip_prefix(MAGIC) else {
        return Err(foreign(file));
    };
    let (length, rest) = rest.split_first_chunk::<8>().ok_or(BundleError::Truncated)?;
    let (hash, body) = rest.split_first_chunk::<32>().ok_or(BundleError::Truncated)?;
    let length = u64::from_be_bytes(*length);
    match (body.len() as u64).cmp(&length) {
        std::cmp::Ordering::Less => Err(BundleError::Truncated),
        std::cmp::Ordering::Greater => Err(BundleError::Damaged),
        std::cmp::Ordering::Equal if Sha256::digest(body)[..] != hash[..] => Err(BundleError::Damaged),
        std::cmp::Ordering::Equal => Ok(body),
    }
}

/// What a file without our magic line is.
fn foreign(file: &[u8]) -> BundleError {
    if MAGIC.starts_with(file) {
        return BundleError::Truncated;
    }
    let Some(rest) = file.strip_prefix(FAMILY) else {
        return BundleError::Foreign;
    };
    let format: String =
        rest.iter().take(12).take_while(|b| b.is_ascii_graphic()).map(|b| char::from(*b)).collect();
    BundleError::OtherFormat(format)
}

const FAMILY: &[u8] = b"outrigger bundle ";
const MAGIC: &[u8] = b"outrigger bundle 1\n";
const HEAD: usize = MAGIC.len() + 8 + 32;

/// Why a file is no bundle that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each text says what it is")]
pub enum BundleError {
    #[error("this is not a bundle of Outrigger")]
    Foreign,
    #[error(
        "this is a bundle of format {0:?}, and this version reads format 1: was it written by a newer version?"
    )]
    OtherFormat(String),
    #[error("the bundle ends too early: it was not written to its end")]
    Truncated,
    #[error("the bundle was changed after it was written: its checksum does not fit")]
    Damaged,
    #[error("the bundle's content can not be read: {0}")]
    Garbled(String),
    #[error("the bundle has a resource of the unknown kind {0:?}")]
    UnknownKind(String),
    #[error("the bundle has {kind} {0} twice", kind = .0.kind())]
    Twice(ResourceName),
    #[error("the bundle's owner: {0}")]
    Owner(#[from] InvalidName),
    #[error(transparent)]
    Resource(#[from] DecodeError),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary;

    fn read(file: &[u8]) -> Result<Bundle, BundleError> {
        Bundle::from_bytes(file, &FeatureSet::all())
    }

    #[test]
    fn each_kind_of_bad_file_has_its_own_words() {
        let bundle = Bundle { owner: None, revision: 7, resources: Vec::new() };
        let file = bundle.to_bytes();
        assert_eq!(read(&file), Ok(bundle));
        assert_eq!(read(b""), Err(BundleError::Truncated));
        assert_eq!(read(&file[..10]), Err(BundleError::Truncated));
        assert_eq!(read(&file[..file.len() - 1]), Err(BundleError::Truncated));
        assert_eq!(read(b"{\"kind\": \"Service\"}"), Err(BundleError::Foreign));
        assert_eq!(read(b"outrigger bundle 2\nxyz"), Err(BundleError::OtherFormat("2".into())));
        let mut flipped = file.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(read(&flipped), Err(BundleError::Damaged));
        assert_eq!(read(&[&file[..], b"x"].concat()), Err(BundleError::Damaged));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_bundle_reads_back_as_it_was(
            resources in proptest::collection::vec(arbitrary::resource(), 0..6), revision in any::<u64>(),
        ) {
            let names: std::collections::HashSet<_> = resources.iter().map(Resource::name).collect();
            prop_assume!(names.len() == resources.len());
            let owner = "spiffe://mesh.local/ns/shop/sa/cart".parse().ok();
            let bundle = Bundle { owner, revision, resources };
            prop_assert_eq!(read(&bundle.to_bytes()), Ok(bundle));
        }

        #[test]
        fn no_flipped_bit_goes_unnoticed(
            resources in proptest::collection::vec(arbitrary::resource(), 1..3),
            at in any::<prop::sample::Index>(), bit in 0_u8..8,
        ) {
            let mut file = Bundle { owner: None, revision: 1, resources }.to_bytes();
            *at.get_mut(&mut file) ^= 1 << bit;
            prop_assert!(read(&file).is_err());
        }
    }
}
