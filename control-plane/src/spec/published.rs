//! What can be written, as schemas for the document of the admin API: from the tables that judge it, with the words of the
//! types behind them.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::Value as Json;

use super::schema::Words;
use super::{
    AccessPolicy, BreakerOverride, Denylist, EgressService, Gateway, GrpcRoute, HttpRoute, Instance, Kind,
    MeshDefaults, MeshService, ReferenceGrant, Rollout, RouteFilter, TcpRoute, TokenPolicy, TrafficPolicy,
    metadata,
};

/// The specification of a kind.
pub(crate) fn specification(kind: Kind) -> Json {
    kind.spec_shape().json_schema(Words::of(&type_of(kind)))
}

/// `metadata` of an object of this kind.
pub(crate) fn metadata_of(kind: Kind) -> Json {
    let mut schema = metadata::SHAPE.json_schema(Words::of(&Schema::default()));
    schema["properties"]["name"] = name_of(kind);
    for (field, words) in [
        ("name", "Its name in its namespace."),
        ("namespace", "Its namespace, `default` unless said."),
        ("labels", "Notes to select by."),
        ("annotations", "Notes for people and tools."),
        (
            "resourceVersion",
            "The version of it that was read. A write that has it is refused where there is another by now.",
        ),
    ] {
        schema["properties"][field]["description"] = words.into();
    }
    schema
}

/// The name of an object of this kind.
pub(crate) fn name_of(kind: Kind) -> Json {
    let form = if kind.name_is_label() { &super::forms::LABEL } else { &super::forms::OBJECT_NAME };
    form.json_schema(Words::of(&Schema::default()))
}

/// A namespace as it stands in paths.
pub(crate) fn label() -> Json {
    super::forms::LABEL.json_schema(Words::of(&Schema::default()))
}

/// The versions under which a kind may be written.
pub(crate) fn versions(kind: Kind) -> Vec<&'static str> {
    std::iter::once(kind.api_version()).chain(kind.also_version()).collect()
}

/// Whether an object of this kind says something without a specification.
pub(crate) fn stands_alone(kind: Kind) -> bool {
    matches!(kind, Kind::MeshService | Kind::MeshDefaults)
}

fn type_of(kind: Kind) -> Schema {
    fn of<T: JsonSchema>() -> Schema {
        SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>()
    }
    match kind {
        Kind::MeshDefaults => of::<MeshDefaults>(),
        Kind::MeshService => of::<MeshService>(),
        Kind::EgressService => of::<EgressService>(),
        Kind::Gateway => of::<Gateway>(),
        Kind::ReferenceGrant => of::<ReferenceGrant>(),
        Kind::RouteFilter => of::<RouteFilter>(),
        Kind::HttpRoute => of::<HttpRoute>(),
        Kind::GrpcRoute => of::<GrpcRoute>(),
        Kind::TcpRoute => of::<TcpRoute>(),
        Kind::TrafficPolicy => of::<TrafficPolicy>(),
        Kind::BreakerOverride => of::<BreakerOverride>(),
        Kind::AccessPolicy => of::<AccessPolicy>(),
        Kind::TokenPolicy => of::<TokenPolicy>(),
        Kind::Denylist => of::<Denylist>(),
        Kind::Rollout => of::<Rollout>(),
        Kind::Instance => of::<Instance>(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::unknown_to_types;
    use super::*;

    #[test]
    fn what_a_table_lets_through_the_type_behind_it_knows() {
        let found: Vec<String> = Kind::ALL
            .into_iter()
            .flat_map(|kind| unknown_to_types(kind.spec_shape(), Words::of(&type_of(kind)), kind.as_str()))
            .collect();
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn every_field_says_what_it_is_for() {
        fn mute(schema: &Json, at: &str, found: &mut Vec<String>) {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                if field.get("description").is_none() {
                    found.push(format!("{at}.{name}"));
                }
                mute(field, &format!("{at}.{name}"), found);
                mute(&field["items"], &format!("{at}.{name}[]"), found);
            }
        }
        let mut found = vec![];
        for kind in Kind::ALL {
            mute(&specification(kind), kind.as_str(), &mut found);
        }
        assert!(found.is_empty(), "{found:#?}");
    }
}
