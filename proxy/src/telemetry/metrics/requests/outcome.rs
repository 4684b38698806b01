//! What came of a request, as one number by which its counts are found.

use http::HeaderMap;
use outrigger_mesh::Reason;

use super::method::MethodClass;
use crate::http::{grpc_status, headers};

/// How the answer's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it should.
    Whole,
    /// Whoever answered broke off.
    Broken,
    /// Whoever asked went away.
    Left,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it was asked.
    pub method: MethodClass,
    /// What was answered.
    pub status: u16,
    /// What gRPC says; beyond its list it is something else.
    pub grpc: Option<u8>,
    /// Why a proxy refused it.
    pub reason: Option<Reason>,
    /// How the answer ended.
    pub ended: Ended,
}

impl Outcome {
    /// What an answer's head says. `reasoned` is whether a reason in it is one of the mesh.
    pub fn of(method: MethodClass, status: u16, answer: &HeaderMap, (grpc, reasoned): (bool, bool)) -> Self {
        let grpc = grpc.then(|| status_of_grpc(answer)).flatten();
        // Most answers are good ones, and looking something up costs.
        let reasoned = reasoned && (status >= 400 || grpc.is_some_and(|code| code > 0));
        let reason = reasoned.then(|| reason(answer)).flatten();
        Self { method, status, grpc, reason, ended: Ended::Whole }
    }

    /// The number of its counts; never 0.
    pub(super) fn code(self) -> u32 {
        let grpc = self.grpc.map_or(0, |code| u32::from(code.min(17)) + 1);
        let failure = match (self.reason, self.ended) {
            (Some(reason), _) => reason as u32 + 3,
            (None, Ended::Whole) => 0,
            (None, Ended::Broken) => 1,
            (None, Ended::Left) => 2,
        };
        let status = u32::from(self.status.min(1023));
        MARK | failure << 19 | grpc << 14 | status << 4 | self.method.number()
    }

    /// Whether a number says that whoever was asked, or a proxy, did not answer well.
    pub(super) fn is_failure(code: u32) -> bool {
        let (status, grpc, failure) = (code >> 4 & 1023, code >> 14 & 31, code >> 19 & 63);
        // Who leaves has not been failed by anybody.
        failure == 1 || failure > 2 || status >= 500 || matches!(grpc, 5 | 14 | 15 | 16)
    }

    /// What a number says, as labels. `callers` is whether it is counted by who asked, for whom a bad request of its own
    /// is an error as well.
    pub(super) fn labels(code: u32, callers: bool) -> String {
        let (method, status, grpc) = (MethodClass::word(code & 15), code >> 4 & 1023, code >> 14 & 31);
        let status_word = if status == 0 { String::new() } else { status.to_string() };
        let grpc_word = match grpc {
            0 => "",
            n => grpc_status::called(n - 1).unwrap_or("_OTHER"),
        };
        let failed_by_grpc = matches!(grpc, 5 | 14 | 15 | 16);
        let error = match code >> 19 & 63 {
            0 if status >= if callers { 400 } else { 500 } => status_word.as_str(),
            0 if failed_by_grpc => grpc_word,
            0 => "",
            1 => "answer_broken",
            2 => "caller_left",
            n => Reason::ALL.get(n as usize - 3).map_or("_OTHER", |reason| reason.as_str()),
        };
        format!(
            "http_request_method=\"{method}\",http_response_status_code=\"{status_word}\",\
             rpc_response_status_code=\"{grpc_word}\",error_type=\"{error}\""
        )
    }
}

/// What is counted where there is no room for another number.
pub(super) const OTHER: &str = "http_request_method=\"_OTHER\",http_response_status_code=\"\",\
                                rpc_response_status_code=\"\",error_type=\"_OTHER\"";
const MARK: u32 = 1 << 31;
/// What gRPC says in `headers`; 255 for what it can not say.
pub(super) fn status_of_grpc(headers: &HeaderMap) -> Option<u8> {
    let status = grpc_status::read(headers.get(grpc_status::NAME)?);
    Some(status.and_then(|status| status.try_into().ok()).unwrap_or(u8::MAX))
}

fn reason(headers: &HeaderMap) -> Option<Reason> {
    let told = headers.get(headers::REASON)?.as_bytes();
    Reason::ALL.into_iter().find(|reason| reason.as_str().as_bytes() == told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_says_what_it_was_made_of() {
        let plain = Outcome {
            method: MethodClass::of(&http::Method::PUT),
            status: 200,
            grpc: None,
            reason: None,
            ended: Ended::Whole,
        };
        let labels = |outcome: Outcome| Outcome::labels(outcome.code(), true);
        let good = labels(plain);
        assert!(good.contains("_method=\"PUT\"") && good.contains("status_code=\"200\""), "{good}");
        assert!(good.ends_with("error_type=\"\""), "{good}");
        for reason in Reason::ALL {
            let told = labels(Outcome { reason: Some(reason), ..plain });
            assert!(told.ends_with(&format!("error_type=\"{reason}\"")), "{told}");
        }
        assert!(labels(Outcome { status: 404, ..plain }).ends_with("error_type=\"404\""));
        assert!(Outcome::labels(Outcome { status: 404, ..plain }.code(), false).ends_with("error_type=\"\""));
        assert!(labels(Outcome { ended: Ended::Left, ..plain }).ends_with("error_type=\"caller_left\""));
        let grpc = |code| labels(Outcome { grpc: Some(code), ..plain });
        assert!(grpc(0).contains("rpc_response_status_code=\"OK\",error_type=\"\""), "{}", grpc(0));
        assert!(grpc(14).contains("\"UNAVAILABLE\",error_type=\"UNAVAILABLE\""), "{}", grpc(14));
        assert!(grpc(5).contains("\"NOT_FOUND\",error_type=\"\""), "{}", grpc(5));
        assert!(grpc(99).contains("rpc_response_status_code=\"_OTHER\""), "{}", grpc(99));
    }
}
