//! `outrigger-proxy log-level [FILTER] [--for 10m] [--data FOLDER]`: shows what the sidecar beside it logs, or changes that
//! for a time.

use clap::Parser;

use crate::beside::Beside;

/// What to ask of the sidecar.
#[derive(Debug, Parser)]
#[command(
    name = "outrigger-proxy log-level",
    about = "Shows what the sidecar logs, or changes it for a time"
)]
pub struct Asked {
    /// What to log: a level (error, warn, info, debug, trace) or a list such as `info,h2=debug`. Shows it when left out.
    filter: Option<String>,
    /// For how long, 24h at most.
    #[arg(long = "for", value_name = "DURATION", default_value = "10m")]
    lasting: String,
    #[command(flatten)]
    sidecar: Beside,
}

impl Asked {
    /// Asks; what the sidecar says, or why it does not do it.
    pub fn run(&self) -> Result<String, String> {
        let question = match &self.filter {
            None => "GET /logging".to_owned(),
            Some(filter) => format!("POST /logging?level={}&for={}", encoded(filter), encoded(&self.lasting)),
        };
        self.sidecar.ask(&question)
    }
}

/// `text` as a value in a query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_filter_has_in_it_is_encoded() {
        assert_eq!(encoded("info,h2=debug"), "info%2Ch2%3Ddebug");
    }
}
