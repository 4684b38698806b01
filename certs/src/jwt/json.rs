//! A JSON object, read strictly: no member twice, not too deep, not too many.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use outrigger_mesh::ClaimValue;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The members of an object, in their order.
pub(super) type Members = Vec<(Arc<str>, ClaimValue)>;

/// Reads one object, and nothing behind it.
pub(super) fn object(text: &[u8]) -> Option<Members> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Depth(0).deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    match value {
        ClaimValue::Object(members) => Some(members),
        _ => None,
    }
}

/// How deep the value lies that is read next.
#[derive(Clone, Copy)]
struct Depth(usize);

impl Depth {
    fn below<E: Error>(self) -> Result<Self, E> {
        // An object in the claims is the second level.
        if self.0 > MAX_DEPTH { Err(E::custom("too deep")) } else { Ok(Self(self.0 + 1)) }
    }
}

impl<'de> DeserializeSeed<'de> for Depth {
    type Value = ClaimValue;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<ClaimValue, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Depth {
    type Value = ClaimValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Integer(value))
    }

    #[allow(clippy::cast_precision_loss, reason = "what no integer holds is compared with nothing")]
    fn visit_u64<E: Error>(self, value: u64) -> Result<ClaimValue, E> {
        Ok(i64::try_from(value).map_or(ClaimValue::Float(value as f64), ClaimValue::Integer))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ClaimValue, A::Error> {
        let below = self.below()?;
        let mut all = vec![];
        while let Some(item) = items.next_element_seed(below)? {
            all.push(item);
            if all.len() > MAX_ITEMS {
                return Err(A::Error::custom("too many items"));
            }
        }
        Ok(ClaimValue::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<ClaimValue, A::Error> {
        let below = self.below()?;
        let (mut all, mut seen): (Members, HashSet<Arc<str>>) = Default::default();
        while let Some(name) = members.next_key::<String>()? {
            let name: Arc<str> = name.into();
            if !seen.insert(Arc::clone(&name)) {
                return Err(A::Error::custom("a member is there twice"));
            }
            if all.len() >= MAX_ITEMS {
                return Err(A::Error::custom("too many members"));
            }
            all.push((name, members.next_value_seed(below)?));
        }
        Ok(ClaimValue::Object(all))
    }
}

/// As deep as claims may lie below the token's own object.
const MAX_DEPTH: usize = 8;
const MAX_ITEMS: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_whole_object_without_doubles_is_read() {
        assert_eq!(object(br#"{"a":1,"b":[true,null,"x",{"c":0.5}]}"#).unwrap().len(), 2);
        for bad in [
            &br#"{"a":1,"a":1}"#[..],
            br#"{"a":1,"\u0061":2}"#,
            br#"{"o":{"x":1,"x":2}}"#,
            br#"{"a":1} "#.split_last().unwrap().1.split_last().unwrap().1,
            br#"{"a":1}{}"#,
            br#"{"a":1}x"#,
            br"[]",
            br#""a""#,
            b"",
            br#"{"a":01}"#,
            br#"{"a":NaN}"#,
            br#"{"a":1,}"#,
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\xff\"}",
            br#"{"a":"\ud800"}"#,
            br"{'a':1}",
        ] {
            assert!(object(bad).is_none(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(object(deep(MAX_DEPTH).as_bytes()).is_some());
        assert!(object(deep(MAX_DEPTH + 1).as_bytes()).is_none());
        assert!(object(deep(100_000).as_bytes()).is_none());
        let many: Vec<String> = (0..=MAX_ITEMS).map(|i| format!("\"m{i}\":0")).collect();
        assert!(object(format!("{{{}}}", many.join(",")).as_bytes()).is_none());
    }
}
