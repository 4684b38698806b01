use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path as FilePath, PathBuf};

use axum::body::to_bytes;

use super::files::FILES;
use super::*;

fn folder() -> PathBuf {
    FilePath::new(env!("CARGO_MANIFEST_DIR")).join("dashboard")
}

fn text(name: &str) -> &'static str {
    std::str::from_utf8(files::named(name).unwrap_or_else(|| panic!("{name} is not there")).content).unwrap()
}

fn is(name: &str, ending: &str) -> bool {
    FilePath::new(name).extension().is_some_and(|its| its == ending)
}

/// Our own files, not those of others.
fn ours() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|file| file.name).filter(|name| !name.starts_with("vendor/"))
}

#[test]
fn every_file_of_the_folder_is_in_the_program_and_no_other() {
    let (mut open, mut found) = (vec![folder()], BTreeSet::new());
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let listed: BTreeSet<String> = FILES.iter().map(|file| file.name.to_owned()).collect();
    assert_eq!(listed, found, "list it in admin/dashboard/files.rs");
}

/// A page that asks for a file that is not there, or for one elsewhere, does not open where there is no network.
#[test]
fn what_the_page_asks_for_is_there_and_comes_from_here() {
    let mut asked = BTreeSet::new();
    for attribute in text("index.html").split(['"', '\'']).filter(|text| text.starts_with('/')) {
        let name = attribute.strip_prefix("/dashboard/").unwrap_or_else(|| panic!("{attribute} is not ours"));
        asked.insert(name.to_owned());
    }
    assert!(asked.len() >= 5, "{asked:?}");
    for from in ours().filter(|name| is(name, "js")) {
        let imports = text(from).split("from \"").skip(1).chain(text(from).split("import(\"").skip(1));
        for import in imports.map(|rest| rest.split('"').next().unwrap()) {
            asked.insert(resolved(from, import));
        }
        for path in text(from).split('"').filter(|text| text.starts_with("/dashboard/")) {
            asked.insert(path.trim_start_matches("/dashboard/").to_owned());
        }
    }
    for name in &asked {
        assert!(files::named(name).is_some(), "{name} is asked for and not there");
    }
    let code = FILES.iter().filter(|file| is(file.name, "js"));
    for file in code {
        assert!(asked.contains(file.name), "nothing asks for {}", file.name);
    }
}

/// `../lib/api.js`, as a file of `pages/service/x.js` means it.
fn resolved(from: &str, import: &str) -> String {
    assert!(import.starts_with('.'), "{from} imports {import}, which no browser finds");
    let mut at: Vec<&str> = from.split('/').collect();
    at.pop();
    for part in import.split('/') {
        match part {
            "." => {}
            ".." => {
                at.pop();
            }
            part => at.push(part),
        }
    }
    at.join("/")
}

#[test]
fn nothing_of_ours_names_another_origin_or_does_what_the_policy_forbids() {
    for name in ours() {
        let text = text(name);
        // The namespace of SVG is a name, no place.
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for place in ["http://", "https://", "//cdn", "@import", "url("] {
            assert!(!text.contains(place), "{name} names another place: {place}");
        }
        for inline in
            ["<style", " onclick=", "javascript:", "eval(", "new Function", "innerHTML", "document.cookie"]
        {
            assert!(!text.contains(inline), "{name} has {inline}");
        }
    }
    let page = text("index.html");
    for script in page.split("<script").skip(1) {
        assert!(script.contains("src=\""), "an inline script: {script}");
    }
    assert!(!page.contains("style=\""));
}

#[test]
fn the_libraries_are_those_that_were_taken() {
    let sums: BTreeMap<&str, &str> = text("vendor/SHA256SUMS")
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, name)| (name, sum))
        .collect();
    let code =
        FILES.iter().filter(|f| f.name.starts_with("vendor/") && (is(f.name, "js") || is(f.name, "css")));
    let mut counted = 0;
    for file in code {
        let hex = sha256(file.content);
        let name = file.name.trim_start_matches("vendor/");
        assert_eq!(sums.get(name), Some(&hex.as_str()), "{name} is not what SHA256SUMS says");
        counted += 1;
    }
    assert_eq!(counted, sums.len());
    let readme = text("vendor/README.md");
    for name in ["htm", "preact", "uplot", "cytoscape"] {
        assert!(readme.contains(name) && files::named(&format!("vendor/{name}.LICENSE")).is_some(), "{name}");
    }
}

/// A reason that the dashboard does not know is shown bare.
#[test]
fn every_reason_of_a_refusal_is_told_in_words() {
    let docs = fs::read_to_string(folder().join("../../docs/refusals.md")).unwrap();
    let rows = docs.lines().filter_map(|line| line.strip_prefix("| `"));
    let reasons: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    assert!(reasons.len() > 30, "{reasons:?}");
    for reason in reasons {
        assert!(
            text("lib/reasons.js").contains(&format!("\n  {reason}: [")),
            "{reason} is not in lib/reasons.js"
        );
    }
}

#[tokio::test]
async fn every_file_is_sealed_and_sent_once() {
    for listed in FILES {
        let fresh = file(Path(listed.name.to_owned()), HeaderMap::new()).await.unwrap();
        assert_eq!(fresh.status(), StatusCode::OK);
        let header = |name: &str| fresh.headers()[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{}: {policy}", listed.name);
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cache-control"), "no-cache");
        let tag = header("etag");
        let mut known = HeaderMap::new();
        known.insert(header::IF_NONE_MATCH, format!("\"other\", W/{tag}").parse().unwrap());
        let again = file(Path(listed.name.to_owned()), known).await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()["etag"], tag.as_str());
        assert!(to_bytes(again.into_body(), 1).await.unwrap().is_empty());
    }
    for name in ["../Cargo.toml", "lib/../app.js", "", "lib", "app.js/"] {
        assert!(file(Path(name.to_owned()), HeaderMap::new()).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_browser_at_the_root_is_shown_the_dashboard_and_a_program_is_not() {
    let asks = |accepts: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accepts));
        entrance(headers, Uri::from_static("/"))
    };
    let shown = asks("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8").await;
    assert_eq!(
        (shown.status(), shown.headers()["location"].to_str().unwrap()),
        (StatusCode::FOUND, "/dashboard/")
    );
    assert_eq!(asks("*/*").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(entrance(HeaderMap::new(), Uri::from_static("/")).await.status(), StatusCode::NOT_FOUND);
}
