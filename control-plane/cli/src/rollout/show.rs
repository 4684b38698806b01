//! Where a rollout is, drawn: in one line, or whole.

use owo_colors::OwoColorize;
use serde_json::Value;

use crate::kind::named;
use crate::out;

/// In one line.
pub(super) fn line(rollout: &Value) -> String {
    let (namespace, name) = named(rollout);
    let (spec, status) = (&rollout["spec"], &rollout["status"]);
    let (from, to) = (word(&spec["stable"]), word(&spec["candidate"]));
    let why = match status["waitsFor"].as_str() {
        Some(waits) => format!("waits for {waits}"),
        None => word(&status["why"]),
    };
    let weight = number(&status["weight"]);
    format!("{namespace}/{name} {from} to {to}: {}, {weight} % on {to}; {why}", word(&status["phase"]))
}

/// Whole: weights, figures of both versions, gates, what it waits for and why it is there.
/// Of so many columns, as far as that can be.
pub(super) fn whole(rollout: &Value, columns: usize) -> String {
    let (namespace, name) = named(rollout);
    let (spec, status) = (&rollout["spec"], &rollout["status"]);
    let (from, to) = (word(&spec["stable"]), word(&spec["candidate"]));
    let phase = word(&status["phase"]);
    let title = format!("{namespace}/{name}: {from} to {to}, {}", word(&spec["strategy"]));
    let mut lines = vec![format!("{}   {}", title.bold(), coloured(&phase))];
    let beside = format!("{} % on {to}{}", number(&status["weight"]), step(status));
    lines.push(format!("{}  {beside}", bar(status, columns.saturating_sub(beside.len() + 4))));
    if status["waitsFor"].is_string() {
        lines.push(format!("waits for {}", word(&status["waitsFor"])));
    }
    lines.push(String::new());
    lines.push(versions(status));
    let gates = status["gates"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !gates.is_empty() {
        lines.push(String::new());
        lines.push(self::gates(gates));
    }
    lines.push(String::new());
    lines.push(acknowledged(&status["acknowledged"]));
    if status["why"].is_string() {
        lines.push(format!("why: {}", word(&status["why"])));
    }
    lines.join("\n")
}

/// The longest bar, and the shortest.
const BAR: (usize, usize) = (40, 10);

/// A bar for which there is this room.
fn bar(status: &Value, room: usize) -> String {
    let long = room.clamp(BAR.1, BAR.0);
    let share = status["weight"].as_f64().unwrap_or(0.0) / 100.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 40")]
    let mut full = (share.clamp(0.0, 1.0) * long as f64).round() as usize;
    // A candidate that gets anything shows.
    if share > 0.0 {
        full = full.max(1);
    }
    format!("[{}{}]", "#".repeat(full).green(), "-".repeat(long - full.min(long)))
}

fn step(status: &Value) -> String {
    let weights = status["weights"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(step) = status["step"].as_u64().filter(|_| weights.len() > 1) else { return String::new() };
    let weights: Vec<String> = weights.iter().map(number).collect();
    format!(", step {step} of {} ({})", weights.len(), weights.join(" "))
}

fn versions(status: &Value) -> String {
    let row = |role: &str, of: &Value| {
        let rate = of["successRate"].as_f64().map_or_else(|| "-".into(), |rate| format!("{rate:.2} %"));
        let cells =
            [word(&of["version"]), number(&of["requests"]), rate, millis(&of["p50Ms"]), millis(&of["p99Ms"])];
        let cells = cells.into_iter().chain([number(&of["endpoints"])]);
        [role.to_owned()].into_iter().chain(cells).collect::<Vec<_>>()
    };
    let rows = [row("stable", &status["stable"]), row("candidate", &status["candidate"])];
    out::table(&["role", "version", "requests", "success", "p50", "p99", "endpoints"], rows)
}

fn gates(all: &[Value]) -> String {
    let row = |gate: &Value| {
        let result = match gate["result"].as_str() {
            Some("pass") => "pass".green().to_string(),
            Some("fail") => "fail".red().to_string(),
            Some("notYet") => "not yet".yellow().to_string(),
            _ => "-".to_owned(),
        };
        let name = match gate["gate"].as_str() {
            Some("successRate") => "success",
            Some("successComparedWithStable") => "success beside stable",
            Some("latencyComparedWithStable") => "latency beside stable",
            Some(other) => other,
            None => "-",
        };
        format!("{result}  {name} is {}, wanted {}", word(&gate["has"]), word(&gate["wants"]))
    };
    all.iter().map(row).collect::<Vec<_>>().join("\n")
}

fn acknowledged(acks: &Value) -> String {
    let proxies = acks["proxies"].as_u64().unwrap_or(0);
    let missing = acks["missing"].as_array().map(Vec::as_slice).unwrap_or_default();
    if missing.is_empty() {
        return format!("sidecars that know the service: {proxies}, all obey");
    }
    let told = missing.iter().take(10).map(|one| format!("  {}: {}", word(&one["proxy"]), word(&one["why"])));
    let count = acks["missingCount"].as_u64().unwrap_or(0);
    let head = format!("sidecars that know the service: {proxies}, of which {count} do not obey yet");
    [head].into_iter().chain(told).collect::<Vec<_>>().join("\n")
}

fn coloured(phase: &str) -> String {
    match phase {
        "Done" => phase.green().to_string(),
        "RolledBack" | "RollingBack" | "Aborted" => phase.red().to_string(),
        "Paused" => phase.yellow().to_string(),
        _ => phase.cyan().to_string(),
    }
}

/// What was written, on one line: what somebody gave as a reason moves nobody's cursor.
fn word(value: &Value) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    value.as_str().unwrap_or("-").chars().map(plain).collect()
}

/// A number as people write it: without decimals where it has none.
fn number(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".into(), |n| n.to_string())
}

fn millis(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rollout() -> Value {
        json!({
            "metadata": { "name": "cart", "namespace": "shop" },
            "spec": { "service": "cart", "strategy": "canary", "stable": "v1", "candidate": "v2" },
            "status": {
                "phase": "Holding", "weight": 10.0, "step": 2, "steps": 4, "weights": [1.0, 10.0, 50.0, 100.0],
                "why": "2 sidecars acknowledged 10 %", "waitsFor": "12 s more at this weight",
                "candidate": { "version": "v2", "requests": 1204, "successRate": 99.917, "p50Ms": 1.2, "p99Ms": 11.0, "endpoints": 1 },
                "stable": { "version": "v1", "requests": 10822, "successRate": 100.0, "p50Ms": 1.1, "p99Ms": 9.0, "endpoints": 3 },
                "gates": [
                    { "gate": "successRate", "wants": "at least 99 %", "has": "99.92 %", "result": "pass" },
                    { "gate": "p99", "wants": "at most 200 ms", "has": "3 of 20 requests of the candidate", "result": "notYet" },
                ],
                "acknowledged": { "proxies": 2, "missing": [{ "proxy": "web-1", "why": "has not answered" }], "missingCount": 1 },
            },
        })
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn whole_it_shows_weights_figures_gates_and_who_is_missing() {
        let text = plain(&whole(&rollout(), 100));
        for part in [
            "shop/cart: v1 to v2, canary   Holding",
            "[####------------------------------------]  10 % on v2, step 2 of 4 (1 10 50 100)",
            "waits for 12 s more at this weight",
            "stable     v1       10822",
            "candidate  v2       1204      99.92 %   1.2 ms  11.0 ms  1",
            "pass  success is 99.92 %, wanted at least 99 %",
            "not yet  p99 is 3 of 20 requests of the candidate",
            "2, of which 1 do not obey yet\n  web-1: has not answered",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn where_there_is_less_room_the_bar_is_shorter_and_what_it_means_is_there() {
        let second = |columns| plain(&whole(&rollout(), columns)).lines().nth(1).unwrap().to_owned();
        assert_eq!(second(60), "[##-----------------]  10 % on v2, step 2 of 4 (1 10 50 100)");
        assert_eq!(second(20), "[#---------]  10 % on v2, step 2 of 4 (1 10 50 100)");
    }

    #[test]
    fn in_one_line_it_tells_what_it_waits_for() {
        assert_eq!(
            line(&rollout()),
            "shop/cart v1 to v2: Holding, 10 % on v2; waits for 12 s more at this weight"
        );
    }
}
