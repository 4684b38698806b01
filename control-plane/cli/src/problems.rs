//! What is wrong with resources, told with file, line and hint; all of it at once.

use outrigger_control::spec::{Problem, Severity};
use owo_colors::OwoColorize;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};
use crate::out::{self, Format};

/// An `application/problem+json` of the admin API.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Refusal {
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    pub(crate) problems: Vec<Problem>,
}

impl Refusal {
    /// Reads an answer's body. `None` when it is something else.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let refusal: Self = serde_json::from_slice(body).ok()?;
        let empty = refusal.title.is_empty() && refusal.detail.is_empty() && refusal.problems.is_empty();
        (!empty).then_some(refusal)
    }

    /// All of it in one sentence.
    pub(crate) fn sentence(&self) -> String {
        let words = if self.detail.is_empty() { &self.title } else { &self.detail };
        words.clone()
    }
}

/// Tells problems as asked, and gives the exit code for them.
pub(crate) fn tell(problems: &[Problem], format: Format) -> Result<Exit, Failure> {
    if format == Format::Table {
        for problem in problems {
            out::warn(lines(problem));
        }
        out::warn(format!("{} {}: nothing was written", "error:".red().bold(), count(errors(problems))));
    } else {
        out::value(&json!({ "problems": values(problems) }), format)?;
    }
    Ok(Exit::Refused)
}

/// Problems as a failure, for commands that write on the way.
pub(crate) fn failure(what: &str, problems: &[Problem]) -> Failure {
    let told: Vec<String> = problems.iter().map(lines).collect();
    Failure::new(Exit::Refused, format!("{what}:\n{}", told.join("\n")))
}

/// One problem for a person: `file:line:column: what is wrong`, as editors understand it, then what to do.
pub(crate) fn lines(problem: &Problem) -> String {
    let place = match place(problem) {
        place if place.is_empty() => String::new(),
        place => format!("{}: ", place.bold()),
    };
    let kind = match problem.severity {
        Severity::Warning => "warning: ".yellow().to_string(),
        Severity::Error => String::new(),
    };
    let hint = problem.hint.as_deref().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
    format!("{place}{kind}{}{hint}", problem.message)
}

/// Problems for a program.
pub(crate) fn values(problems: &[Problem]) -> Value {
    serde_json::to_value(problems).unwrap_or_default()
}

fn place(problem: &Problem) -> String {
    match (&problem.file, problem.line, problem.column) {
        (Some(file), Some(line), Some(column)) => format!("{file}:{line}:{column}"),
        (Some(file), _, _) => file.clone(),
        (None, _, _) => problem.pointer.clone(),
    }
}

fn errors(problems: &[Problem]) -> usize {
    problems.iter().filter(|problem| problem.severity == Severity::Error).count()
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".into() } else { format!("{problems} problems") }
}

#[cfg(test)]
mod tests {
    use outrigger_control::spec::Code;

    use super::*;

    #[test]
    fn a_problem_is_told_as_editors_understand_it() {
        let problem = Problem {
            file: Some("mesh/cart.yaml".into()),
            line: Some(7),
            column: Some(9),
            ..Problem::error("/spec/prot", Code::UnknownField, "unknown field \"prot\"")
                .hint("did you mean \"port\"?")
        };
        let plain = anstream::adapter::strip_str(&lines(&problem)).to_string();
        assert_eq!(plain, "mesh/cart.yaml:7:9: unknown field \"prot\"\n  hint: did you mean \"port\"?");
    }

    #[test]
    fn what_is_not_a_problem_is_not_read_as_one() {
        assert!(Refusal::read(b"<html>").is_none());
        assert!(Refusal::read(b"{}").is_none());
        assert_eq!(Refusal::read(br#"{"title":"a","detail":"b"}"#).unwrap().sentence(), "b");
    }
}
