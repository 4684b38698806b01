//! Which form of the text somebody wants.

/// A form in which metrics are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpositionForm {
    /// The text form of Prometheus, 0.0.4.
    #[default]
    Prometheus,
    /// `OpenMetrics` 1.0.0, with exemplars.
    OpenMetrics,
}

impl ExpositionForm {
    /// What an `Accept` header asks for. `OpenMetrics` only where it is named and not liked less than plain text: whoever
    /// says nothing, anything or nonsense gets the text of Prometheus.
    pub fn of_accept(accept: &str) -> Self {
        let liking = |wanted: &[&str]| {
            let ranges = accept.split(',').filter_map(|range| liking(range, wanted));
            ranges.fold(None, |best: Option<u32>, this| Some(best.unwrap_or(0).max(this)))
        };
        let open = liking(&["application/openmetrics-text"]).unwrap_or(0);
        let text = liking(&["text/plain", "text/*"]).unwrap_or(0);
        if open > 0 && open >= text { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Its `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// How much one range of an `Accept` header is liked, in thousandths, if it is for one of `wanted`. A version of
/// `OpenMetrics` that is not written here is not what was asked for.
fn liking(range: &str, wanted: &[&str]) -> Option<u32> {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next()?;
    if !wanted.iter().any(|wanted| kind.eq_ignore_ascii_case(wanted)) {
        return None;
    }
    let mut liked = 1000;
    for part in parts {
        let (name, value) = part.split_once('=')?;
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => liked = thousandths(value.trim()),
            "version" if !["1.0.0", "0.0.1", "0.0.4"].contains(&value.trim().trim_matches('"')) => {
                return None;
            }
            _ => {}
        }
    }
    Some(liked)
}

fn thousandths(q: &str) -> u32 {
    let q: f64 = q.parse().unwrap_or(0.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    let liked = (q.clamp(0.0, 1.0) * 1000.0) as u32;
    liked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        for (accept, form) in [
            ("", ExpositionForm::Prometheus),
            ("*/*", ExpositionForm::Prometheus),
            ("text/plain", ExpositionForm::Prometheus),
            ("application/openmetrics-text", ExpositionForm::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3",
                ExpositionForm::OpenMetrics,
            ),
            (
                "application/openmetrics-text; version=1.0.0; q=0.2, text/plain; q=0.9",
                ExpositionForm::Prometheus,
            ),
            ("application/openmetrics-text;version=9.9.9,text/plain", ExpositionForm::Prometheus),
            ("application/openmetrics-text;q=0", ExpositionForm::Prometheus),
            ("application/openmetrics-text;q", ExpositionForm::Prometheus),
            (",;=;,", ExpositionForm::Prometheus),
        ] {
            assert_eq!(ExpositionForm::of_accept(accept), form, "{accept}");
        }
    }
}
