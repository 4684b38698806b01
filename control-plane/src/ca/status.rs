//! What people and monitoring are told of the authority.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};
use time::OffsetDateTime;

use super::keeper::Keeper;
use super::ledger::Missing;

/// So long before its end an authority is warned of.
const WARN: Duration = Duration::from_secs(30 * 24 * 3600);
/// As many are named; the rest is counted.
const NAMED: usize = 1_000;

impl Keeper {
    /// How far a change of the root has come, and who is missing.
    pub fn rotation_status(&self) -> Json {
        let (rotation, last) = {
            let inner = self.inner();
            (inner.rotation.clone(), inner.last.clone())
        };
        let mut told = match rotation {
            None => json!({ "step": "none" }),
            Some(rotation) => {
                let missing = self.missing(&rotation, &self.fleet.holdings());
                let mut told = json!(rotation);
                told["waitsFor"] = rotation.step.waits_for().into();
                told["gateEnds"] = moment(rotation.gate_ends().into());
                told["missingCount"] = missing.len().into();
                told["missing"] = json!(missing.iter().take(NAMED).collect::<Vec<&Missing>>());
                told
            }
        };
        if let Some(last) = last {
            told["last"] = json!(last);
        }
        told["authority"] = self.authority_status();
        told
    }

    /// The certificates of the authority.
    pub fn authority_status(&self) -> Json {
        let signing = self.signing();
        let ends = signing.authority.ends();
        json!({
            "trustDomain": self.trust_domain().to_string(),
            "source": if signing.given { "files" } else { "made" },
            "root": { "sha256": signing.authority.root_sha256().to_string(), "notAfter": moment(ends.root) },
            "intermediate": {
                "sha256": signing.authority.intermediate_sha256(),
                "notAfter": moment(ends.intermediate),
            },
            "believedRoots": signing.trust.roots.len(),
            "certificates": self.certificates(),
        })
    }

    /// Certificates that are valid, by identity, those of `identity` alone where one is given.
    pub fn list(&self, identity: Option<&str>) -> Json {
        let now = OffsetDateTime::now_utc();
        let inner = self.inner();
        let wanted = |leaf: &&super::ledger::Leaf| {
            leaf.not_after > now && identity.is_none_or(|identity| leaf.identity == identity)
        };
        let mut leaves: Vec<_> = inner.ledger.all().filter(wanted).collect();
        leaves.sort_by(|a, b| (&a.identity, a.order).cmp(&(&b.identity, b.order)));
        let total = leaves.len();
        leaves.truncate(MOST_LISTED);
        json!({ "total": total, "items": leaves })
    }

    /// Metrics, as text for Prometheus.
    pub fn metrics(&self) -> String {
        let ends = self.ends();
        let own = self.own_identity().expires_at();
        let mut text = String::from(
            "# HELP outrigger_control_ca_expiry_seconds Seconds until a certificate of the authority, or the control \
             plane's own, ends.\n# TYPE outrigger_control_ca_expiry_seconds gauge\n",
        );
        for (name, end) in [("root", ends.root), ("intermediate", ends.intermediate), ("own", own)] {
            let left = seconds_until(end);
            let _ = writeln!(text, "outrigger_control_ca_expiry_seconds{{certificate=\"{name}\"}} {left}");
        }
        let _ = writeln!(
            text,
            "# HELP outrigger_control_certificates Certificates that were signed and are valid.\n\
             # TYPE outrigger_control_certificates gauge\noutrigger_control_certificates {}",
            self.certificates()
        );
        self.rotation_metrics(&mut text);
        text
    }

    fn rotation_metrics(&self, text: &mut String) {
        let rotation = self.inner().rotation.clone();
        let missing = rotation.as_ref().map_or(0, |r| self.missing(r, &self.fleet.holdings()).len());
        let paused = u8::from(rotation.as_ref().is_some_and(|r| r.paused));
        let step = rotation.as_ref().map(|r| r.step.as_str());
        text.push_str(
            "# HELP outrigger_control_rotation Whether a change of the root is at this step.\n\
             # TYPE outrigger_control_rotation gauge\n",
        );
        for name in ["distribute", "sign", "retire", "withdraw"] {
            let at = u8::from(step == Some(name));
            let _ = writeln!(text, "outrigger_control_rotation{{step=\"{name}\"}} {at}");
        }
        let _ = writeln!(
            text,
            "# HELP outrigger_control_rotation_missing Certificates that keep its gate closed.\n\
             # TYPE outrigger_control_rotation_missing gauge\noutrigger_control_rotation_missing {missing}\n\
             # HELP outrigger_control_rotation_paused Whether its gate took too long and it waits for an operator.\n\
             # TYPE outrigger_control_rotation_paused gauge\noutrigger_control_rotation_paused {paused}"
        );
    }

    /// Says in the log what ends soon. To be called now and then.
    pub fn warn_of_expiry(&self) {
        let ends = self.ends();
        let by = |made: &'static str| if self.signing().given { "replace its files" } else { made };
        for (what, end, command) in [
            ("root", ends.root, by("outrigger certs rotate-root")),
            ("intermediate", ends.intermediate, by("outrigger certs rotate-intermediate")),
        ] {
            let left = seconds_until(end);
            let days = left / (24 * 3600);
            if left <= 0 {
                tracing::error!(
                    what,
                    "a certificate of the authority has expired: nothing is signed any more"
                );
            } else if left < i64::try_from(WARN.as_secs()).unwrap_or(i64::MAX) {
                tracing::warn!(what, days, command, "a certificate of the authority ends soon; change it");
            }
        }
    }
}

const MOST_LISTED: usize = 10_000;

fn seconds_until(end: SystemTime) -> i64 {
    let now = SystemTime::now();
    let left = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    end.duration_since(now).map_or_else(|past| -left(past.duration()), left)
}

fn moment(at: SystemTime) -> Json {
    let at: OffsetDateTime = at.into();
    at.format(&time::format_description::well_known::Rfc3339).map_or(Json::Null, Json::String)
}
