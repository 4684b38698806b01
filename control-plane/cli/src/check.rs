//! `outrigger check`: what is wrong in a mesh without anybody having said so.
//!
//! The control plane tells of sidecars and certificates; of pods it is told by `kubectl`, since who may read them is the
//! cluster's to say and no credential of it is kept here.

mod exposed;
mod permissions;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use outrigger_inject::manifest::{self, Finding};
use serde_json::{Value, json};

use crate::args::{Control, Printed};
use crate::client::Admin;
use crate::failure::{Exit, Failure};
use crate::inject;
use crate::out::{self, Format};

/// A certificate that ends sooner was not renewed when it should have been: sidecars renew at half of a day.
const SOON: Duration = Duration::from_secs(6 * 3600);

/// Find what is wrong in a mesh: sidecars of another version than the control plane's, those that rejected a resource or
/// obey an old revision, certificates that end soon; on this machine applications beside a sidecar that listen beyond
/// loopback. And in a cluster pods that should be members and have no sidecar, what their annotations get wrong, sidecars
/// of another version, and what the control plane may not do though it has to:
///
///   kubectl get ns,svc,pods,roles,rolebindings,clusterroles,clusterrolebindings -A -o yaml | outrigger check -f -
///
/// Exits with 3 when something is wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// What `kubectl get namespaces,services,pods -A -o yaml` says, or - for standard input. May be repeated.
    #[arg(short = 'f', long = "file", value_name = "FILE|-")]
    files: Vec<String>,
    /// What the operator sets for all pods (the control plane's --inject-config), YAML or JSON.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Look at the files only, and ask no control plane.
    #[arg(long, requires = "files")]
    offline: bool,
    #[command(flatten)]
    printed: Printed,
}

impl Check {
    pub(crate) async fn run(self, control: &Control) -> Result<ExitCode, Failure> {
        let settings = inject::settings(self.config.as_deref())?;
        let (mut findings, mut looked) = (vec![], vec![]);
        for name in &self.files {
            let text = inject::read(name)?;
            let checked = manifest::check(&text, &settings, env!("CARGO_PKG_VERSION"))
                .map_err(|failed| Failure::new(Exit::Refused, format!("{name}: {failed}")))?;
            looked.push(format!("{} pods, {} of them members", checked.pods, checked.members));
            findings.extend(checked.findings);
            let objects = manifest::values(&text)
                .map_err(|failed| Failure::new(Exit::Refused, format!("{name}: {failed}")))?;
            looked.extend(permissions::missing(&objects, &mut findings));
        }
        if !self.offline {
            let admin = control.admin()?;
            looked.push(of_control_plane(&admin, &mut findings).await?);
            let beside = exposed::find(Path::new("/proc"), &mut findings);
            if beside > 0 {
                looked.push(format!("{beside} applications on this machine"));
            }
        }
        match self.printed.format {
            Format::Table => {
                for finding in &findings {
                    let place = if finding.namespace.is_empty() {
                        String::new()
                    } else {
                        format!("{}: ", finding.namespace)
                    };
                    out::say(format!(
                        "{place}{}: {} ({})\n  hint: {}",
                        finding.object, finding.message, finding.code, finding.hint
                    ));
                }
                let wrong = if findings.is_empty() {
                    "nothing is wrong".into()
                } else {
                    format!("{} wrong", findings.len())
                };
                out::say(format!("looked at {}: {wrong}", looked.join("; ")));
            }
            format => out::value(&json!({ "looked": looked, "findings": findings }), format)?,
        }
        Ok(if findings.is_empty() { ExitCode::SUCCESS } else { Exit::Refused.into() })
    }
}

/// What the control plane knows of its sidecars; what was looked at.
async fn of_control_plane(admin: &Admin, findings: &mut Vec<Finding>) -> Result<String, Failure> {
    let proxies = admin.list("proxies", None).await?;
    let certificates = admin.list("certs", None).await?;
    let (proxies, latest) = (items(&proxies), proxies["revision"].as_u64());
    for proxy in proxies {
        of_proxy(proxy, latest, findings);
    }
    let now =
        i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs());
    let certificates = items(&certificates);
    for leaf in certificates {
        of_certificate(leaf, now.unwrap_or(i64::MAX), findings);
    }
    Ok(format!("{} sidecars and {} certificates", proxies.len(), certificates.len()))
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn of_proxy(proxy: &Value, latest: Option<u64>, findings: &mut Vec<Finding>) {
    let mut find = |code, message: String, hint: &str| {
        let object = format!("sidecar {}", proxy["node"].as_str().unwrap_or("?"));
        findings.push(Finding { code, namespace: String::new(), object, message, hint: hint.into() });
    };
    let version = proxy["version"].as_str().unwrap_or_default();
    if !version.is_empty() && version != env!("CARGO_PKG_VERSION") {
        let message = format!("it is of version {version}, this program of {}", env!("CARGO_PKG_VERSION"));
        find("version_skew", message, "restart what it stands beside with the new version");
    }
    for rejected in proxy["rejected"].as_array().into_iter().flatten() {
        let text = |field: &str| rejected[field].as_str().unwrap_or("?");
        let message = format!("it rejected {}: {}", text("name"), text("reason"));
        find("rejected", message, "the last good one stays in force: outrigger history tells what changed");
    }
    if let (Some(acked), Some(latest)) = (proxy["ackedRevision"].as_u64(), latest)
        && acked < latest
    {
        let message = format!("it obeys revision {acked}, and {latest} is in force");
        find("behind", message, "if it stays so, look at its log");
    }
}

fn of_certificate(leaf: &Value, now: i64, findings: &mut Vec<Finding>) {
    // One that was never shown may never have arrived, and one that was replaced ends in peace.
    let until = leaf["notAfter"].as_str().and_then(seconds);
    let Some(left) = until.map(|until| until - now).filter(|left| *left < SOON.as_secs().cast_signed())
    else {
        return;
    };
    if leaf["seen"].is_null() || leaf["replaced"].as_bool() == Some(true) {
        return;
    }
    let hours = left.max(0) / 3600;
    findings.push(Finding {
        code: "expiring",
        namespace: String::new(),
        object: format!("certificate of {}", leaf["identity"].as_str().unwrap_or("?")),
        message: format!("it ends in {hours} h"),
        hint: "a sidecar renews at half of its certificate's life: look at outrigger_cert_renewal_failures_total".into(),
    });
}

/// A moment of RFC 3339 in UTC, in seconds of Unix.
fn seconds(moment: &str) -> Option<i64> {
    let (date, time) = moment.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let time = time.split(['.', 'Z']).next()?;
    let mut time = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    // Days since 1970-01-01, with years that begin in March.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sidecars_that_lag_reject_or_are_old_are_found() {
        let mut findings = vec![];
        let good =
            json!({"node": "a", "version": env!("CARGO_PKG_VERSION"), "ackedRevision": 4, "rejected": []});
        of_proxy(&good, Some(4), &mut findings);
        assert!(findings.is_empty());
        let bad = json!({"node": "b", "version": "0.0.1", "ackedRevision": 3, "rejected": [{"name": "shop/cart", "reason": "too new"}]});
        of_proxy(&bad, Some(4), &mut findings);
        let codes: Vec<_> = findings.iter().map(|f| f.code).collect();
        assert_eq!(codes, ["version_skew", "rejected", "behind"]);
    }

    #[test]
    fn certificates_that_end_soon_are_found() {
        assert_eq!(seconds("2026-11-22T07:00:00.5Z"), Some(1_795_330_800));
        assert_eq!(seconds("2000-03-01T00:00:00Z"), Some(951_868_800));
        let leaf = |until: &str| json!({"identity": "spiffe://x", "notAfter": until, "seen": "2026-11-22T00:00:00Z"});
        let mut findings = vec![];
        of_certificate(&leaf("2026-11-22T23:00:00Z"), 1_795_330_800, &mut findings);
        assert!(findings.is_empty());
        of_certificate(&leaf("2026-11-22T09:00:00Z"), 1_795_330_800, &mut findings);
        assert_eq!(findings[0].message, "it ends in 2 h");
    }
}
