//! What is printed, and how: colours only on a terminal, tables that fit, JSON and YAML for programs.
//!
//! A reader that went away (`outrigger get services | head -1`) is no error: writing then stops without a word.

use std::io::Write;

use clap::ValueEnum;
use comfy_table::presets;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

use crate::failure::Failure;

/// The forms of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For people and files.
    Yaml,
    /// For programs.
    Json,
}

/// Prints one line, or several.
pub(crate) fn say(text: impl AsRef<str>) {
    write(&mut anstream::stdout(), text.as_ref());
}

/// Prints one line, or several, where warnings and errors go.
pub(crate) fn warn(text: impl AsRef<str>) {
    write(&mut anstream::stderr(), text.as_ref());
}

/// In one piece and at once, so that what goes to standard error stands where it belongs.
fn write(to: &mut impl Write, text: &str) {
    let _ = to.write_all(format!("{text}\n").as_bytes());
    let _ = to.flush();
}

/// Prints a value for a program, or for a file.
pub(crate) fn value(value: &Value, format: Format) -> Result<(), Failure> {
    let text = match format {
        Format::Json => serde_json::to_string_pretty(value).map_err(|e| Failure::failed(e.to_string()))?,
        Format::Yaml | Format::Table => yaml(value)?,
    };
    say(text.trim_end());
    Ok(())
}

/// A value as YAML.
pub(crate) fn yaml(value: &Value) -> Result<String, Failure> {
    serde_saphyr::to_string(value).map_err(|e| Failure::failed(format!("can not be written as YAML: {e}")))
}

/// A table for people, headed by these words.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|word| word.to_uppercase()));
    table.add_rows(rows);
    table.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n")
}

/// How many columns the terminal has.
pub(crate) fn width() -> usize {
    size().0
}

/// How many columns and rows the terminal has.
pub(crate) fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    size.filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or((80, 24))
}

/// Whether the terminal knows how to move its cursor.
pub(crate) fn can_be_drawn_on() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty())
}

/// Whether colours are wanted where standard output goes.
pub(crate) fn in_colour() -> bool {
    anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
}

/// Whether standard output is a terminal.
pub(crate) fn on_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdout())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_its_columns_up_and_leaves_nothing_at_the_ends() {
        let text =
            table(&["name", "port"], [vec!["cart".into(), "80".into()], vec!["w".into(), "8080".into()]]);
        assert_eq!(text, "NAME  PORT\ncart  80\nw     8080");
    }

    #[test]
    fn yaml_keeps_text_apart_from_numbers() {
        let value = serde_json::json!({"a": {"b": [1, "2", true]}, "c": "x: y"});
        assert_eq!(yaml(&value).unwrap().trim(), "a:\n  b:\n  - 1\n  - \"2\"\n  - true\nc: \"x: y\"");
    }
}
