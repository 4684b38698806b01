//! The one page for people. It is made of the catalogue alone, so nothing in it needs escaping.

use std::fmt::Write;

use crate::catalogue::Item;

/// A page that lists `items`.
pub(super) fn of_items(items: &[Item]) -> String {
    let rows = items.iter().fold(String::new(), |mut rows, Item { id, name, description, .. }| {
        // Writing to a String can not fail.
        let _ = writeln!(
            rows,
            "<li><a href=\"/items/{id}\">{name}</a> <a href=\"/price/{id}\">price</a><br>{description}</li>"
        );
        rows
    });
    format!("{HEAD}<ul>\n{rows}</ul>\n</html>\n")
}

const HEAD: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>The outrigger shop</title>
<style>
body { font: 16px/1.5 sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
li { margin-bottom: .7rem }
</style>
<h1>The outrigger shop</h1>
<p>Everything for a small boat and a long way.</p>
";
