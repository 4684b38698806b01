//! The division of a service between two of its versions, while one takes the other's place.

use crate::name::Version;
use crate::policy::HashKey;
use crate::route::{RequestHead, RouteMatch, Split, key_hash};

/// How what goes to a service as a whole is divided between two of its versions. A route that names a version itself is
/// not touched by it, nor is a connection to one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Division {
    /// The version that was there.
    pub stable: Version,
    /// The version that is to take its place.
    pub candidate: Version,
    /// What the candidate gets, in parts of [`Division::WHOLE`].
    pub share: u32,
    /// Requests that see the candidate whatever its share is: any of them.
    pub preview: Vec<RouteMatch>,
    /// The key by which a caller stays on its side as the share grows. None: by chance.
    pub by: Option<HashKey>,
}

/// One of the two versions of a division.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the words of `Division`")]
pub enum Part {
    Stable,
    Candidate,
}

impl Division {
    /// A share of everything.
    pub const WHOLE: u32 = 10_000;

    /// The part that a request meets, where both can be reached. `chance` decides where no key does.
    pub fn part(&self, request: &RequestHead<'_>, chance: u64) -> Part {
        if self.preview.iter().any(|m| m.holds(request)) {
            return Part::Candidate;
        }
        self.part_of(self.by.as_ref().and_then(|by| request.key(by)).as_deref(), chance)
    }

    /// The same by its key, and for what has no head: a connection.
    pub fn part_of(&self, key: Option<&[u8]>, chance: u64) -> Part {
        let split = Split::new([Self::WHOLE.saturating_sub(self.share), self.share]);
        let names = [self.stable.as_str(), self.candidate.as_str()];
        let picked = match key {
            Some(key) => split.pick_by_key(key_hash(key), |i| key_hash(names[i].as_bytes()), |_| true),
            None => split.pick(chance),
        };
        if picked == Some(1) { Part::Candidate } else { Part::Stable }
    }

    /// The version of a part.
    pub fn version(&self, part: Part) -> &Version {
        match part {
            Part::Stable => &self.stable,
            Part::Candidate => &self.candidate,
        }
    }

    /// Whether claims of tokens decide.
    pub fn looks_at_claims(&self) -> bool {
        matches!(self.by, Some(HashKey::Claim(_))) || self.preview.iter().any(|m| !m.claims.is_empty())
    }

    /// Whether it asks who sends a request.
    pub fn looks_at_source(&self) -> bool {
        self.by == Some(HashKey::SourceIdentity) || self.preview.iter().any(RouteMatch::looks_at_source)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.stable == self.candidate {
            return Err(format!("version {} can not take its own place", self.stable));
        }
        if self.share > Self::WHOLE {
            return Err(format!("a share is at most {}", Self::WHOLE));
        }
        self.preview.iter().try_for_each(RouteMatch::check)
    }
}

impl Part {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Stable => Self::Candidate,
            Self::Candidate => Self::Stable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn division(share: u32) -> Division {
        let version = |text| Version::new(text).unwrap();
        Division {
            stable: version("v1"),
            candidate: version("v2"),
            share,
            preview: vec![],
            by: Some(HashKey::Header(http::HeaderName::from_static("x-user"))),
        }
    }

    #[test]
    fn nobody_goes_back_while_the_share_grows() {
        for user in 0..10_000_u32 {
            let key = format!("user-{user}");
            let parts =
                [100, 1_000, 5_000, 10_000].map(|share| division(share).part_of(Some(key.as_bytes()), 0));
            let candidate = parts.map(|part| part == Part::Candidate);
            assert!(candidate.is_sorted() && candidate[3], "{key}: {parts:?}");
        }
    }

    #[test]
    fn nothing_and_everything_are_exact() {
        for chance in [0, 1, u64::MAX / 2, u64::MAX] {
            assert_eq!(division(0).part_of(None, chance), Part::Stable);
            assert_eq!(division(Division::WHOLE).part_of(None, chance), Part::Candidate);
        }
        assert_eq!(division(0).part_of(Some(b"x"), 0), Part::Stable);
    }
}
