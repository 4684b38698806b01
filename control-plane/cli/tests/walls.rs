//! The walls between the crates, as docs/ARCHITECTURE.md draws them: who may import whom, and which crate may name
//! which library. Read from the manifests and the sources, so that a wall breaks in the change that breaks it.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folder of a crate, and what of ours it may depend on. Benches and the command line may import all.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("control-plane/mesh", &[]),
    ("control-plane/process", &[]),
    ("control-plane/wire", &["mesh"]),
    ("certs", &["mesh"]),
    ("proxy", &["mesh", "wire", "certs", "process"]),
    ("proxy/init", &[]),
    ("proxy/testkit", &["mesh", "wire", "certs"]),
    ("control-plane", &["mesh", "wire", "certs", "inject", "kube", "process"]),
    ("control-plane/cli", &["mesh", "wire", "certs", "control", "inject", "proxy", "testkit"]),
    ("control-plane/inject", &[]),
    ("control-plane/kube", &["mesh", "certs"]),
    ("examples/shop", &[]),
    ("benches", &["mesh", "wire", "certs", "control", "proxy", "testkit"]),
    ("benches/push", &["mesh", "wire", "certs"]),
];

/// A library, and the only places that may name it: folders end with `/`, files do not.
const MAY_NAME: &[(&[&str], &[&str])] = &[
    (
        &["rustls", "tokio_rustls"],
        &[
            "certs/",
            "proxy/src/listen/tls.rs",
            "proxy/src/attempt/connect.rs",
            "proxy/testkit/",
            // Measures the library beside ours.
            "benches/benches/handshake.rs",
        ],
    ),
    (&["webpki", "x509_parser"], &["certs/"]),
    // A benchmark and the shop's login play issuers of tokens, another benchmark measures the library beside ours.
    (
        &["aws_lc_rs"],
        &[
            "certs/",
            "benches/benches/handshake.rs",
            "benches/benches/tokens.rs",
            "examples/shop/src/login.rs",
        ],
    ),
    (&["rcgen"], &["certs/", "proxy/testkit/"]),
    (&["rustls_native_certs"], &["certs/"]),
    (&["hickory_proto", "hickory_resolver"], &["proxy/src/dns/", "proxy/testkit/"]),
    (&["prost", "envoy_types", "tonic", "tonic_prost"], &["control-plane/wire/", "examples/shop/"]),
    (
        &["opentelemetry", "opentelemetry_http", "opentelemetry_otlp", "opentelemetry_sdk"],
        &["proxy/src/telemetry/"],
    ),
    (&["redb"], &["control-plane/src/store/"]),
    (&["kube", "k8s_openapi"], &["control-plane/kube/"]),
    (&["tracing_subscriber"], &["control-plane/process/", "proxy/tests/panics.rs"]),
    // What listens serves a router, the admin API's and the webhook's.
    (
        &["axum"],
        &[
            "control-plane/src/admin/",
            "control-plane/src/listen.rs",
            "control-plane/src/webhook/server.rs",
            "examples/shop/",
        ],
    ),
];

#[test]
fn crates_import_only_what_the_architecture_allows() {
    let mut broken = Vec::new();
    for (folder, allowed) in MAY_IMPORT {
        for found in ours_in_manifest(&root().join(folder).join("Cargo.toml")) {
            if !allowed.contains(&found.as_str()) {
                broken.push(format!("{folder} depends on outrigger-{found}"));
            }
        }
    }
    assert!(broken.is_empty(), "walls broken:\n{}", broken.join("\n"));
}

#[test]
fn libraries_are_named_only_where_they_are_wrapped() {
    let mut broken = Vec::new();
    for file in sources() {
        let name = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        for library in libraries_named(&text) {
            let rule = MAY_NAME.iter().find(|(libraries, _)| libraries.contains(&library.as_str()));
            let allowed = |places: &[&str]| {
                places.iter().any(|p| if p.ends_with('/') { name.starts_with(p) } else { name == *p })
            };
            if rule.is_some_and(|(_, places)| !allowed(places)) {
                broken.push(format!("{name} names {library}"));
            }
        }
    }
    assert!(broken.is_empty(), "walls broken:\n{}", broken.join("\n"));
}

#[test]
fn every_crate_of_the_workspace_stands_behind_a_wall() {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = text.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    let members: BTreeSet<&str> = members.split('"').skip(1).step_by(2).collect();
    let known: BTreeSet<&str> = MAY_IMPORT.iter().map(|(folder, _)| *folder).collect();
    assert_eq!(members, known);
}

/// A planted defect: the reader of sources must see each way of naming a library.
#[test]
fn the_reader_sees_each_way_of_naming_a_library() {
    for line in [
        "use rustls::Foo;",
        "    pub use tokio_rustls as t;",
        "let x = rustls::version::TLS13;",
        "impl From<tonic::Status> for E {",
    ] {
        assert_eq!(libraries_named(line).len(), 1, "{line}");
    }
    for line in ["// use rustls::Foo;", "/// [`rustls::Foo`]", "let my_rustls::x;", "\"rustls\""] {
        assert_eq!(libraries_named(line).len(), 0, "{line}");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Our crates, without the prefix, among the dependencies of a manifest, those of the tests left out.
fn ours_in_manifest(manifest: &Path) -> Vec<String> {
    let text = fs::read_to_string(manifest).unwrap();
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(header) = line.strip_prefix('[') {
            header.trim_end_matches(']').clone_into(&mut section);
        } else if section == "dependencies"
            && let Some(rest) = line.strip_prefix("outrigger-")
        {
            found.push(rest.split(['.', ' ', '=']).next().unwrap().to_owned());
        }
    }
    found
}

fn sources() -> Vec<PathBuf> {
    let mut open: Vec<PathBuf> =
        ["certs", "proxy", "control-plane", "examples", "benches"].iter().map(|d| root().join(d)).collect();
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // Tests play foreign peers, so they may name any library.
            // The floor of the comparison with other proxies is a program of its own, made of the libraries alone.
            let left_out = ["tests", "target", "peers"].iter().any(|name| path.ends_with(name));
            if path.is_dir() && !left_out {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("build.rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 50, "only {} sources found", files.len());
    files
}

/// The libraries of [`MAY_NAME`] that `text` names outside comments.
fn libraries_named(text: &str) -> BTreeSet<String> {
    let all: BTreeSet<&str> = MAY_NAME.iter().flat_map(|(names, _)| names.iter().copied()).collect();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        // What follows stands in the file's own tests, which may play a foreign peer.
        if line.starts_with("#[cfg(test)]") {
            break;
        }
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        for library in &all {
            let named = code.match_indices(library).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                let after = &code[at + library.len()..];
                let whole = before
                    .is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '_' | ':' | '"' | '-' | '.')))
                    && !after.starts_with(|c: char| c.is_alphanumeric() || c == '_');
                whole && (after.starts_with("::") || code.starts_with("use ") || code.starts_with("pub use "))
            });
            if named {
                found.insert((*library).to_owned());
            }
        }
    }
    found
}
