//! Two judges that know nothing of how patches are made: one applies them, one looks at what came out.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// Applies a JSON patch (RFC 6902) strictly: a parent that is not there, or an index beyond the end, is an error.
pub(crate) fn apply(object: &Value, patch: &Value) -> Result<Value, String> {
    let mut object = object.clone();
    for step in patch.as_array().ok_or("a patch is a list")? {
        apply_step(&mut object, step).map_err(|why| format!("{step}: {why}"))?;
    }
    Ok(object)
}

fn apply_step(object: &mut Value, step: &Value) -> Result<(), String> {
    let path = step["path"].as_str().ok_or("no path")?;
    let op = step["op"].as_str().ok_or("no op")?;
    let (parent, last) = path.rsplit_once('/').ok_or("the whole object is never replaced")?;
    let last = last.replace("~1", "/").replace("~0", "~");
    let parent = object.pointer_mut(parent).ok_or("its parent is not there")?;
    let value = step.get("value").cloned();
    match parent {
        Value::Object(members) => match op {
            "add" => drop(members.insert(last, value.ok_or("no value")?)),
            "replace" => *members.get_mut(&last).ok_or("not there")? = value.ok_or("no value")?,
            "remove" => drop(members.shift_remove(&last).ok_or("not there")?),
            _ => return Err("unknown op".into()),
        },
        Value::Array(elements) => {
            let at: usize = last.parse().map_err(|_| "no index")?;
            match op {
                "add" if at <= elements.len() => elements.insert(at, value.ok_or("no value")?),
                "replace" if at < elements.len() => elements[at] = value.ok_or("no value")?,
                "remove" if at < elements.len() => drop(elements.remove(at)),
                _ => return Err("no such index, or unknown op".into()),
            }
        }
        _ => return Err("its parent holds nothing".into()),
    }
    Ok(())
}

/// Everything that is wrong with `pod` as a member of the mesh, whose sidecar is a native one or not.
pub(crate) fn faults(pod: &Value, native: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut want = |holds: bool, what: &str| {
        if !holds {
            found.push(what.to_owned());
        }
    };
    let spec = &pod["spec"];
    let (first, main) = (names(&spec["initContainers"]), names(&spec["containers"]));
    let all: Vec<String> = first.iter().chain(&main).cloned().collect();
    want(unique(&all), "two containers have one name");
    want(unique(&names(&spec["volumes"])), "two volumes have one name");
    if native {
        let ours = ["outrigger-init".to_owned(), "outrigger-proxy".to_owned()];
        want(first.starts_with(&ours), "native: init, then proxy, then the rest");
        want(!main.contains(&ours[1]), "native: the proxy is an initial container");
    } else {
        want(first.last().is_some_and(|name| name == "outrigger-init"), "classical: the redirection is last");
        want(main.first().is_some_and(|name| name == "outrigger-proxy"), "classical: the proxy is first");
    }
    let (proxy, init) = (of(pod, "outrigger-proxy"), of(pod, "outrigger-init"));
    want((proxy["restartPolicy"] == "Always") == native, "restartPolicy Always means native");
    want(native || proxy.get("startupProbe").is_none(), "classical: nothing waits for a startup probe");
    let told = pod["metadata"]["annotations"]["outrigger.dev/status"].as_str();
    want(told.is_some_and(|s| serde_json::from_str::<Value>(s).is_ok()), "the status tells");
    let label = if env(&init, "OUTRIGGER_INIT_INBOUND_MODE") == "off" { "outbound" } else { "true" };
    want(pod["metadata"]["labels"]["outrigger.dev/injected"] == label, "the label tells");
    let mut members = pod["metadata"]["annotations"].as_object().into_iter().flatten();
    want(members.all(|(_, value)| value.is_string()), "annotations are texts");
    found.extend(lists(pod));
    found.extend(security(&proxy, &init));
    found.extend(wiring(spec, &proxy, &init));
    found
}

/// What must be there once only, and what must be there.
fn lists(pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let volumes: BTreeSet<String> = names(&pod["spec"]["volumes"]).into_iter().collect();
    let mut ports = BTreeSet::new();
    // Ours last: a port that the application has is not theirs.
    let (ours, others): (Vec<_>, Vec<_>) =
        containers(pod).partition(|c| c["name"].as_str().is_some_and(|name| name.starts_with("outrigger-")));
    for container in others.into_iter().chain(ours) {
        let name = container["name"].as_str().unwrap_or_default();
        if !unique(&names(&container["env"])) {
            found.push(format!("{name}: two variables have one name"));
        }
        let mounts = items(&container["volumeMounts"]);
        let places: Vec<&str> = mounts.clone().filter_map(|m| m["mountPath"].as_str()).collect();
        if !unique(&places) {
            found.push(format!("{name}: two mounts at one place"));
        }
        for mount in mounts {
            if !mount["name"].as_str().is_some_and(|volume| volumes.contains(volume)) {
                found.push(format!("{name}: a mount of a volume that is not there"));
            }
        }
        for port in items(&container["ports"]).filter(|port| port["protocol"] != "UDP") {
            if !ports.insert(port["containerPort"].to_string()) && name.starts_with("outrigger-") {
                found.push(format!("{name}: its port is taken"));
            }
        }
    }
    found
}

fn security(proxy: &Value, init: &Value) -> Vec<String> {
    let of = &proxy["securityContext"];
    let restricted = of["runAsNonRoot"] == true
        && of["allowPrivilegeEscalation"] == false
        && of["readOnlyRootFilesystem"] == true
        && of["capabilities"] == json!({"drop": ["ALL"]})
        && of["seccompProfile"]["type"] == "RuntimeDefault"
        && of["runAsUser"].as_u64().is_some_and(|uid| uid > 0);
    let of = &init["securityContext"];
    let no_more = of["capabilities"] == json!({"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]})
        && of["privileged"] == false
        && of["readOnlyRootFilesystem"] == true;
    let uid = proxy["securityContext"]["runAsUser"].as_u64();
    let same_user = env(init, "OUTRIGGER_INIT_PROXY_UID").parse().ok() == uid && uid.is_some();
    let rules = [
        (restricted, "the proxy fits the profile restricted"),
        (no_more, "the redirection may change filters, and no more"),
        (same_user, "the redirection lets the proxy's user pass"),
    ];
    rules.iter().filter(|(holds, _)| !holds).map(|(_, what)| (*what).to_owned()).collect()
}

/// Whether the two containers agree with each other and with their volumes.
fn wiring(spec: &Value, proxy: &Value, init: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for part in ["requests", "limits"] {
        if !proxy["resources"][part]["memory"].is_string() {
            found.push(format!("the proxy has no {part}"));
        }
    }
    let own = env(init, "OUTRIGGER_INIT_OWN_PORTS");
    let own: BTreeSet<&str> = own.split(',').collect();
    for address in ["OUTRIGGER_PROXY_HEALTH", "OUTRIGGER_PROXY_OUTBOUND", "OUTRIGGER_PROXY_INBOUND"] {
        let address = env(proxy, address);
        let port = address.rsplit(':').next().unwrap_or_default();
        if !port.is_empty() && !own.contains(port) {
            found.push(format!("the redirection does not know the proxy's port {port}"));
        }
    }
    let token =
        items(&proxy["volumeMounts"]).find(|mount| mount["mountPath"] == "/var/run/secrets/outrigger");
    let token =
        token.and_then(|mount| items(&spec["volumes"]).find(|volume| volume["name"] == mount["name"]));
    let token = token.map(|volume| &volume["projected"]["sources"][0]["serviceAccountToken"]);
    if !token.is_some_and(|token| token["audience"] == "outrigger") {
        found.push("the token is not for the mesh".into());
    }
    found
}

/// The value of a variable, or nothing.
pub(crate) fn env(container: &Value, name: &str) -> String {
    let found = items(&container["env"]).find(|variable| variable["name"] == name);
    found.and_then(|variable| variable["value"].as_str()).unwrap_or_default().to_owned()
}

/// All containers, the initial ones first.
pub(crate) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    items(&pod["spec"]["initContainers"]).chain(items(&pod["spec"]["containers"]))
}

fn of(pod: &Value, name: &str) -> Value {
    containers(pod).find(|container| container["name"] == name).cloned().unwrap_or_default()
}

fn items(list: &Value) -> std::slice::Iter<'_, Value> {
    list.as_array().map_or(&[][..], Vec::as_slice).iter()
}

fn names(list: &Value) -> Vec<String> {
    items(list).filter_map(|element| element["name"].as_str().map(str::to_owned)).collect()
}

fn unique<T: Ord>(all: &[T]) -> bool {
    all.iter().collect::<BTreeSet<_>>().len() == all.len()
}
