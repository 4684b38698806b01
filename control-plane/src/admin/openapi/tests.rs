use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::super::routes::ROUTES;
use super::*;
use crate::audit::Author;
use crate::spec::Kind;

#[test]
fn every_route_is_in_the_document_and_nothing_else_is() {
    let routes = ROUTES.iter().filter(|(path, ..)| !PAGE.contains(path));
    let routes: BTreeSet<_> = routes.map(|(path, method, _)| (*path, method.to_string())).collect();
    let told = operations::all(&mut Schemas::new());
    let told_of: BTreeSet<_> = told.iter().map(|o| (o.path, o.method.to_string())).collect();
    let missing: Vec<_> = routes.difference(&told_of).collect();
    assert!(missing.is_empty(), "add these to admin/openapi/operations.rs: {missing:?}");
    let gone: Vec<_> = told_of.difference(&routes).collect();
    assert!(gone.is_empty(), "these are no routes: {gone:?}");
    assert_eq!(told.len(), told_of.len(), "each is there once");
    let document = document();
    let written = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|path| path.as_object().unwrap().len())
        .sum::<usize>();
    let of_kinds = told.iter().filter(|o| o.path.contains("{collection}")).count();
    assert_eq!(written, told.len() - of_kinds + of_kinds * Kind::ALL.len());
}

/// For browsers: no program asks for it.
const PAGE: [&str; 6] = ["/docs", "/docs/{file}", "/", "/dashboard", "/dashboard/", "/dashboard/{*file}"];

#[test]
fn every_name_that_is_referred_to_is_there_and_every_operation_has_one_name() {
    fn walk(at: &Json, root: &Json, wrong: &mut Vec<String>) {
        if let Some(name) = at.get("$ref").and_then(Json::as_str) {
            let found = root.pointer(name.trim_start_matches('#'));
            if found.is_none_or(Json::is_null) {
                wrong.push(name.to_owned());
            }
        }
        match at {
            Json::Object(fields) => fields.values().for_each(|inner| walk(inner, root, wrong)),
            Json::Array(items) => items.iter().for_each(|inner| walk(inner, root, wrong)),
            _ => {}
        }
    }
    let (document, mut wrong) = (document(), vec![]);
    walk(&document, &document, &mut wrong);
    assert!(wrong.is_empty(), "{wrong:?}");
    let mut names = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{name} twice");
            let summary = operation["summary"].as_str().unwrap();
            assert!(summary.ends_with('.') && summary.len() > 10, "{method} {path} says what it is");
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let of_path =
                parameters.filter(|p| p["in"] == "path").map(|p| p["description"].as_str().unwrap());
            assert!(of_path.into_iter().all(|said| !said.is_empty()), "{path}: name it in paths::parameter");
        }
    }
    let unused = document["components"]["schemas"].as_object().unwrap().keys();
    let text = document.to_string();
    let unused: Vec<_> = unused.filter(|name| !text.contains(&format!("schemas/{name}\""))).collect();
    assert_eq!(unused, ["Change"], "what nothing refers to, but for the data of events");
}

/// People read it without running anything, and a change of the API is seen in what is reviewed.
/// `OUTRIGGER_WRITE=1 cargo test -p outrigger-control --lib openapi` writes it anew.
#[test]
fn the_file_beside_the_pages_is_the_document() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let mut text = vec![];
    let by_one = serde_json::ser::PrettyFormatter::with_indent(b" ");
    document().serialize(&mut serde_json::Serializer::with_formatter(&mut text, by_one)).unwrap();
    let text = String::from_utf8(text).unwrap() + "\n";
    if std::env::var_os("OUTRIGGER_WRITE").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let same = fs::read_to_string(&file).is_ok_and(|kept| kept == text);
    assert!(same, "docs/openapi.json is of another API; write it with OUTRIGGER_WRITE=1");
    assert_eq!(document(), document(), "it is the same each time");
}

#[tokio::test]
async fn the_examples_together_are_a_mesh() {
    let house = super::super::tests::House::with(super::super::Door::local()).await;
    let items: Vec<Json> = Kind::ALL.into_iter().map(examples::object).collect();
    let documents = crate::spec::read_items(&json!({ "items": items }).to_string()).unwrap();
    let writes = documents
        .into_iter()
        .map(|document| crate::state::Write::Put { document, expect: crate::store::Expect::Anything });
    let applied = house.api.state.apply(writes.collect(), &Author::system("a test"), false).await;
    assert_eq!(applied.unwrap().changes.len(), Kind::ALL.len());
}
