//! Values that are one piece of text in every written form: read by their own rules, written as they print.

/// Reads and writes `$of` as the text that `$of::parse` reads and `Display` prints. A pattern is what a schema says of it.
macro_rules! as_text {
    ($of:ty $(, $pattern:expr)?) => {
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

        impl ::schemars::JsonSchema for $of {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                stringify!($of).into()
            }

            fn json_schema(_: &mut ::schemars::SchemaGenerator) -> ::schemars::Schema {
                ::schemars::json_schema!({ "type": "string" $(, "pattern": $pattern)? })
            }
        }
    };
}

pub(super) use as_text;
