//! Rules for text whose form can be told: the rule decides, and the form is what the document of the admin API says of it.
//! A form accepts all that its rule does; where a rule says more than a form can, the form is the wider of the two.

use serde_json::{Value as Json, json};

use super::rules;
use super::schema::Shape;

/// The form of a text, as JSON Schema knows it.
pub(super) struct Form {
    pattern: Option<&'static str>,
    /// In characters, both included.
    length: (usize, usize),
}

impl Form {
    const fn pattern(pattern: &'static str, longest: usize) -> Self {
        Self { pattern: Some(pattern), length: (1, longest) }
    }

    pub(super) fn json_schema(&self) -> Json {
        let mut schema = json!({ "type": "string" });
        if let Some(pattern) = self.pattern {
            schema["pattern"] = pattern.into();
        }
        let (shortest, longest) = self.length;
        schema["minLength"] = shortest.into();
        schema["maxLength"] = longest.into();
        schema
    }
}

/// [`rules::label`].
pub(super) const LABEL: Shape =
    Shape::Formed(rules::label, &Form::pattern("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", 63));
/// [`rules::object_name`].
pub(super) const OBJECT_NAME: Shape = Shape::Formed(
    rules::object_name,
    &Form::pattern(
        r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$",
        rules::MAX_NAME,
    ),
);
/// [`rules::version`].
pub(super) const VERSION: Shape =
    Shape::Formed(rules::version, &Form::pattern("^[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?$", 63));
/// [`rules::hostname`].
pub(super) const HOSTNAME: Shape = Shape::Formed(
    rules::hostname,
    &Form::pattern(
        r"^[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?)*\.?$",
        254,
    ),
);
/// [`rules::identity`].
pub(super) const IDENTITY: Shape = Shape::Formed(
    rules::identity,
    &Form::pattern(
        "^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?|spiffe://[a-z0-9._-]+/ns/[a-z0-9-]{1,63}/sa/[a-z0-9-]{1,63})$",
        512,
    ),
);
/// [`rules::duration`].
pub(super) const DURATION: Shape = Shape::Formed(rules::duration, &Form::pattern(SPAN, 28));
/// [`rules::any_duration`].
pub(super) const ANY_DURATION: Shape = Shape::Formed(rules::any_duration, &Form::pattern(SPAN, 28));
/// [`rules::size`].
pub(super) const SIZE: Shape = Shape::Formed(rules::size, &Form::pattern("^[0-9]+(Ki|Mi|Gi|Ti)?$", 64));
/// [`rules::share`].
pub(super) const SHARE: Shape =
    Shape::Formed(rules::share, &Form::pattern(r"^[0-9]{1,3}(\.[0-9]{1,4})?%$", 9));
/// [`rules::header_name`].
pub(super) const HEADER_NAME: Shape =
    Shape::Formed(rules::header_name, &Form::pattern("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", 65_535));
/// [`rules::path`].
pub(super) const PATH: Shape = Shape::Formed(rules::path, &Form::pattern("^/[!\"$->@-~]*$", 1_024));
/// [`rules::kind`].
pub(super) const KIND: Shape = Shape::Formed(rules::kind, &Form::pattern("^[A-Za-z][A-Za-z0-9-]*$", 63));
/// [`rules::words`].
pub(super) const WORDS: Shape = Shape::Formed(rules::words, &Form { pattern: None, length: (1, 1_024) });

const SPAN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [&Shape; 13] = [
        &LABEL,
        &OBJECT_NAME,
        &VERSION,
        &HOSTNAME,
        &IDENTITY,
        &DURATION,
        &ANY_DURATION,
        &SIZE,
        &SHARE,
        &HEADER_NAME,
        &PATH,
        &KIND,
        &WORDS,
    ];

    /// Text of the sort that people write at these places, right or nearly so.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9.-]{0,70}",
            "[A-Za-z0-9._*-]{1,8}",
            "([0-9]{1,5}(h|m|s|ms)){1,4}",
            "[0-9]{1,6}(Ki|Mi|Gi|Ti|K|)",
            "[0-9]{1,4}(\\.[0-9]{0,5})?%?",
            "(/[!-~]{0,5}){1,3}",
            "spiffe://[a-z.]{1,9}/ns/[a-z0-9-]{1,5}/sa/[a-z0-9-]{1,5}",
            "\\PC{0,12}",
        ]
    }

    #[test]
    fn a_form_accepts_whatever_its_rule_does() {
        let forms = ALL.map(|shape| {
            let Shape::Formed(rule, form) = shape else { unreachable!() };
            (rule, form.length, form.pattern.map(|p| regex::Regex::new(p).unwrap()))
        });
        proptest!(ProptestConfig::with_cases(2_000), |(text in text())| {
            for (rule, (shortest, longest), pattern) in &forms {
                if rule(&text).is_ok() {
                    prop_assert!((*shortest..=*longest).contains(&text.chars().count()), "{text:?}");
                    prop_assert!(pattern.as_ref().is_none_or(|p| p.is_match(&text)), "{pattern:?}: {text:?}");
                }
            }
        });
    }
}
