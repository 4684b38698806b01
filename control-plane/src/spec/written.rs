//! Values that are one piece of text in every written form: read by their own rules, written as they print.

/// Reads and writes `$of` as the text that `$of::parse` reads and `Display` prints.
macro_rules! as_text {
    ($of:ty) => {
        impl ::serde::Serialize for $of {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $of {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as ::serde::Deserialize>::deserialize(deserializer)?;
                Self::parse(&text).map_err(::serde::de::Error::custom)
            }
        }
    };
}

pub(super) use as_text;
