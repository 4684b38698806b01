//! Which origins of browsers may ask.

use std::sync::Arc;

use outrigger_mesh::Cors;

use crate::check::Found;
use crate::spec::{Code, CorsFilter, Problem};

/// What is written at `pointer`.
pub(super) fn cors(pointer: &str, written: &CorsFilter, found: &mut Found) -> Cors {
    let lists = [
        ("allowOrigins", &written.allow_origins, true),
        ("allowMethods", &written.allow_methods, true),
        ("allowHeaders", &written.allow_headers, true),
        ("exposeHeaders", &written.expose_headers, false),
    ];
    for (field, list, alone) in lists {
        let at = format!("{pointer}/{field}");
        if alone && list.len() > 1 && list.iter().any(|word| word == "*") {
            let problem = Problem::error(
                at.clone(),
                Code::Contradiction,
                "* stands for all, so nothing stands beside it",
            );
            found.add(problem.hint("leave * out, or everything else"));
        }
        for (i, word) in list.iter().enumerate() {
            if list[..i].iter().any(|other| other.eq_ignore_ascii_case(word)) {
                let message = format!("{word} is there twice");
                found.add(Problem::error(format!("{at}/{i}"), Code::Duplicate, message));
            }
        }
    }
    if written.allow_origins.is_empty() {
        let message = "no origin may ask";
        found.add(Problem::warning(format!("{pointer}/allowOrigins"), Code::MissingField, message));
    }
    let words = |list: &[String]| list.iter().map(|word| Arc::from(word.as_str())).collect();
    Cors {
        origins: words(&written.allow_origins),
        credentials: written.allow_credentials == Some(true),
        methods: words(&written.allow_methods),
        headers: words(&written.allow_headers),
        expose: words(&written.expose_headers),
        max_age: written.max_age.unwrap_or(Cors::MAX_AGE),
    }
}
