//! The tables as JSON Schema (2020-12), for the document of the admin API.
//!
//! What is accepted is what the table says, since the table is what refuses. The type that a table stands before knows
//! more words: what each field is for is taken from there ([`Words`]). What is there but not supported yet is left out: it
//! is refused.

use schemars::Schema;
use serde_json::{Map, Value as Json, json};

use super::{Field, Shape};

/// What the type behind a table says of itself.
#[derive(Clone, Copy)]
pub(in crate::spec) struct Words<'a> {
    /// At this place, if there is anything.
    at: Option<&'a Json>,
    /// Of the types it refers to, by name.
    all: Option<&'a Json>,
}

impl<'a> Words<'a> {
    /// Those of a whole type.
    pub(in crate::spec) fn of(schema: &'a Schema) -> Self {
        Self { at: Some(schema.as_value()), all: schema.get("$defs") }
    }

    fn at(self, at: Option<&'a Json>) -> Self {
        Self { at, ..self }
    }

    /// The type itself: behind its name, and whether or not it may be missing.
    fn meant(self) -> Self {
        let Some(at) = self.at else { return self };
        let named = at.get("$ref").and_then(Json::as_str).and_then(|name| name.strip_prefix("#/$defs/"));
        let of_several = ["anyOf", "allOf"].iter().find_map(|key| at.get(key)?.as_array());
        match (named, of_several.and_then(|all| all.iter().find(|one| one["type"] != "null"))) {
            (Some(name), _) => self.at(self.all.and_then(|all| all.get(name))).meant(),
            (None, Some(one)) => self.at(Some(one)).meant(),
            (None, None) => self,
        }
    }

    fn field(self, name: &str) -> Self {
        let of_it = self.meant().at.and_then(|at| at.get("properties")?.get(name));
        self.at(of_it)
    }

    fn items(self) -> Self {
        let of_them = self.meant().at.and_then(|at| at.get("items"));
        self.at(of_them)
    }

    /// What is said at this place, else what the type says.
    fn description(self) -> Option<&'a str> {
        let said = |of: Self| of.at.and_then(|at| at.get("description")?.as_str());
        said(self).or_else(|| said(self.meant()))
    }
}

impl Shape {
    /// What it accepts.
    pub(in crate::spec) fn json_schema(&self, words: Words<'_>) -> Json {
        let mut schema = match self {
            Self::Text(_) | Self::Like(..) => json!({ "type": "string" }),
            Self::Formed(_, form) => form.json_schema(),
            Self::Word(known) | Self::WordSoFar(known, _) => json!({ "type": "string", "enum": known }),
            Self::Integer(min, max) => {
                json!({ "type": "integer", "format": "int64", "minimum": min, "maximum": max })
            }
            Self::Decimal(min, max) => {
                let [min, max] = [min, max].map(|bound| f64::from(*bound) / 100.0);
                json!({ "type": "number", "minimum": min, "maximum": max })
            }
            Self::Bool => json!({ "type": "boolean" }),
            Self::List(of, max) => {
                json!({ "type": "array", "items": of.json_schema(words.items()), "maxItems": max })
            }
            Self::Labels => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
            Self::Object(fields) => object(fields, words),
            Self::Later(_) | Self::Anything => json!({}),
        };
        if let (Some(said), Some(schema)) = (words.description(), schema.as_object_mut()) {
            schema.shift_insert(
                0,
                "description".into(),
                said.split_whitespace().collect::<Vec<_>>().join(" ").into(),
            );
        }
        schema
    }
}

fn object(fields: &[Field], words: Words<'_>) -> Json {
    let known = fields.iter().filter(|field| !matches!(field.shape, Shape::Later(_)));
    let properties: Map<String, Json> = known
        .map(|field| (field.name.to_owned(), field.shape.json_schema(words.field(field.name))))
        .collect();
    let required: Vec<&str> = fields.iter().filter(|f| f.required).map(|f| f.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema["additionalProperties"] = false.into();
    schema
}

/// Every field that a table has and the type behind it has not, by its place. The other way round there are some: types are
/// shared by kinds of which one has more.
#[cfg(test)]
pub(in crate::spec) fn unknown_to_types(shape: &Shape, words: Words<'_>, at: &str) -> Vec<String> {
    match shape {
        Shape::List(of, _) => unknown_to_types(of, words.items(), &format!("{at}[]")),
        Shape::Object(fields) => {
            let known = fields.iter().filter(|f| !matches!(f.shape, Shape::Later(_)));
            let below = known.flat_map(|field| {
                let (of_it, at) = (words.field(field.name), format!("{at}.{}", field.name));
                let missing = of_it.at.is_none().then(|| at.clone());
                missing.into_iter().chain(unknown_to_types(field.shape, of_it, &at)).collect::<Vec<_>>()
            });
            below.collect()
        }
        _ => vec![],
    }
}
