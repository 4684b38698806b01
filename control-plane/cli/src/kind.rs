//! The kinds of resources that can be asked for by name.

use std::str::FromStr;

use outrigger_control::spec;
use serde_json::Value;

/// A kind of resource, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind(spec::Kind);

impl Kind {
    /// Its word in the admin API's paths.
    pub(crate) fn plural(self) -> &'static str {
        self.0.collection()
    }

    /// Whether its changes are counted as generations, as those of what comes and goes by itself are.
    pub(crate) fn is_counted_apart(self) -> bool {
        self.0 == spec::Kind::Instance
    }

    /// Its word in messages.
    pub(crate) fn word(self) -> &'static str {
        match self.0 {
            spec::Kind::MeshDefaults => "meshdefaults",
            spec::Kind::MeshService => "service",
            spec::Kind::EgressService => "egressservice",
            spec::Kind::Instance => "instance",
            spec::Kind::Gateway => "gateway",
            spec::Kind::HttpRoute => "httproute",
            spec::Kind::GrpcRoute => "grpcroute",
            spec::Kind::TcpRoute => "tcproute",
            spec::Kind::RouteFilter => "routefilter",
            spec::Kind::ReferenceGrant => "referencegrant",
            spec::Kind::TrafficPolicy => "trafficpolicy",
            spec::Kind::BreakerOverride => "breakeroverride",
            spec::Kind::AccessPolicy => "accesspolicy",
            spec::Kind::TokenPolicy => "tokenpolicy",
            spec::Kind::Denylist => "denylist",
            spec::Kind::Rollout => "rollout",
        }
    }

    /// What a table of this kind is headed by, after namespace and name.
    pub(crate) fn columns(self) -> &'static [&'static str] {
        match self.0 {
            spec::Kind::MeshDefaults => &["outbound", "ranges", "suffixes"],
            spec::Kind::MeshService => &["ports", "identities", "address"],
            spec::Kind::EgressService => &["hosts", "ports", "tls", "address"],
            spec::Kind::Instance => &["service", "version", "address", "zone"],
            spec::Kind::Gateway => &["listeners"],
            spec::Kind::HttpRoute | spec::Kind::GrpcRoute | spec::Kind::TcpRoute => {
                &["parents", "backends", "state"]
            }
            spec::Kind::RouteFilter => &["says"],
            spec::Kind::ReferenceGrant => &["from", "to"],
            spec::Kind::TrafficPolicy => &["target", "callers", "says"],
            spec::Kind::TokenPolicy => &["issuers", "requirement", "propagation"],
            spec::Kind::Denylist => &["tokens", "identities", "why"],
            spec::Kind::BreakerOverride => &["service", "route", "version", "mode", "until", "why"],
            spec::Kind::AccessPolicy => &["action", "targets", "rules"],
            spec::Kind::Rollout => &["service", "strategy", "from", "to", "state", "weight"],
        }
    }

    /// What stands under them for one resource.
    pub(crate) fn cells(self, object: &Value) -> Vec<String> {
        let spec = &object["spec"];
        match self.0 {
            spec::Kind::MeshDefaults => vec![
                spec["outboundMode"].as_str().unwrap_or("allowAny").to_owned(),
                words(&spec["addressRanges"]),
                words(&spec["suffixes"]),
            ],
            spec::Kind::MeshService => {
                vec![ports(&spec["ports"]), words(&spec["identities"]), address(object)]
            }
            spec::Kind::EgressService => vec![
                words(&spec["hosts"]),
                ports(&spec["ports"]),
                word(&spec["tls"]["mode"]),
                address(object),
            ],
            spec::Kind::Instance => vec![
                word(&spec["service"]),
                word(&spec["version"]),
                word(&spec["address"]),
                word(&spec["zone"]),
            ],
            spec::Kind::Gateway => vec![listeners(spec)],
            spec::Kind::HttpRoute | spec::Kind::GrpcRoute | spec::Kind::TcpRoute => {
                vec![parents(spec), backends(spec), state(object)]
            }
            spec::Kind::RouteFilter => vec![says(spec)],
            spec::Kind::ReferenceGrant => vec![referring(&spec["from"]), referred(&spec["to"])],
            spec::Kind::TrafficPolicy => vec![target(spec), words(&spec["callers"]), says(spec)],
            spec::Kind::AccessPolicy => vec![word(&spec["action"]), targets(object), rules(spec)],
            spec::Kind::TokenPolicy => vec![
                names(&spec["issuers"]),
                spec["requirement"].as_str().unwrap_or("required").to_owned(),
                spec["propagation"].as_str().unwrap_or("none").to_owned(),
            ],
            spec::Kind::Denylist => {
                vec![count(&spec["tokens"]), count(&spec["identities"]), word(&spec["why"])]
            }
            spec::Kind::Rollout => vec![
                word(&spec["service"]),
                word(&spec["strategy"]),
                word(&spec["stable"]),
                word(&spec["candidate"]),
                word(&object["status"]["phase"]),
                word(&object["status"]["weight"]),
            ],
            spec::Kind::BreakerOverride => vec![
                word(&spec["service"]),
                word(&spec["route"]),
                word(&spec["version"]),
                word(&spec["mode"]),
                until(object),
                word(&spec["why"]),
            ],
        }
    }
}

impl From<spec::Kind> for Kind {
    fn from(kind: spec::Kind) -> Self {
        Self(kind)
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.to_ascii_lowercase().as_str() {
            "service" | "services" | "svc" | "meshservice" | "meshservices" => {
                Ok(Self(spec::Kind::MeshService))
            }
            "instance" | "instances" => Ok(Self(spec::Kind::Instance)),
            "httproute" | "httproutes" | "route" | "routes" => Ok(Self(spec::Kind::HttpRoute)),
            "grpcroute" | "grpcroutes" => Ok(Self(spec::Kind::GrpcRoute)),
            "tcproute" | "tcproutes" => Ok(Self(spec::Kind::TcpRoute)),
            "routefilter" | "routefilters" => Ok(Self(spec::Kind::RouteFilter)),
            "referencegrant" | "referencegrants" | "grants" => Ok(Self(spec::Kind::ReferenceGrant)),
            "egressservice" | "egressservices" | "egress" => Ok(Self(spec::Kind::EgressService)),
            "gateway" | "gateways" => Ok(Self(spec::Kind::Gateway)),
            "meshdefaults" | "defaults" => Ok(Self(spec::Kind::MeshDefaults)),
            "trafficpolicy" | "trafficpolicies" | "policy" | "policies" => {
                Ok(Self(spec::Kind::TrafficPolicy))
            }
            "breakeroverride" | "breakeroverrides" => Ok(Self(spec::Kind::BreakerOverride)),
            "accesspolicy" | "accesspolicies" | "access" => Ok(Self(spec::Kind::AccessPolicy)),
            "tokenpolicy" | "tokenpolicies" => Ok(Self(spec::Kind::TokenPolicy)),
            "rollout" | "rollouts" => Ok(Self(spec::Kind::Rollout)),
            "denylist" | "denylists" => Ok(Self(spec::Kind::Denylist)),
            _ => Err(
                "the kinds are services, egressservices, gateways, httproutes, grpcroutes, tcproutes, routefilters, \
                 referencegrants, trafficpolicies, accesspolicies, tokenpolicies, denylists, rollouts, \
                 breakeroverrides, instances and meshdefaults"
                    .into(),
            ),
        }
    }
}

/// The name and namespace in a resource's metadata.
pub(crate) fn named(object: &Value) -> (String, String) {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or("default");
    (namespace.to_owned(), metadata["name"].as_str().unwrap_or_default().to_owned())
}

/// The names of a list of things.
fn names(all: &Value) -> String {
    let names = all.as_array().into_iter().flatten().filter_map(|one| one["name"].as_str());
    names.collect::<Vec<_>>().join(",")
}

/// How many there are.
fn count(all: &Value) -> String {
    all.as_array().map_or(0, Vec::len).to_string()
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The virtual address of IPv4, which applications are told first.
fn address(object: &Value) -> String {
    word(&object["status"]["addresses"][0])
}

fn words(value: &Value) -> String {
    match value.as_array() {
        Some(all) if !all.is_empty() => all.iter().map(word).collect::<Vec<_>>().join(","),
        _ => "-".into(),
    }
}

fn ports(value: &Value) -> String {
    let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let told = |port: &Value| match port["protocol"].as_str() {
        Some(protocol) => format!("{}/{protocol}", word(&port["port"])),
        None => word(&port["port"]),
    };
    all.iter().map(told).collect::<Vec<_>>().join(",")
}

fn listeners(spec: &Value) -> String {
    let all = spec["listeners"].as_array().map(Vec::as_slice).unwrap_or_default();
    let told = |l: &Value| format!("{}:{}/{}", word(&l["name"]), word(&l["port"]), word(&l["protocol"]));
    all.iter().map(told).collect::<Vec<_>>().join(",")
}

/// What a policy holds for, as `kind/name` with the rule of a route.
fn target(spec: &Value) -> String {
    let target = &spec["targetRef"];
    let rule = target["sectionName"].as_str().map(|name| format!("/{name}")).unwrap_or_default();
    format!("{}/{}{rule}", word(&target["kind"]), word(&target["name"]))
}

/// The services that an access policy is for.
fn targets(object: &Value) -> String {
    let named = object["spec"]["targetRefs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<String> = named.iter().map(|target| word(&target["name"])).collect();
    match object["metadata"]["namespace"].as_str() {
        _ if !names.is_empty() => names.join(","),
        Some("outrigger") => "the mesh".into(),
        _ => "the namespace".into(),
    }
}

/// The rules of an access policy, by name where they have one.
fn rules(spec: &Value) -> String {
    let all = spec["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    let told =
        |(i, rule): (usize, &Value)| rule["name"].as_str().map_or_else(|| i.to_string(), str::to_owned);
    if all.is_empty() { "-".into() } else { all.iter().enumerate().map(told).collect::<Vec<_>>().join(",") }
}

/// The groups of settings that a policy has.
fn says(spec: &Value) -> String {
    let all = spec.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let said: Vec<&str> = all.filter(|name| !matches!(*name, "targetRef" | "callers")).collect();
    if said.is_empty() { "-".into() } else { said.join(",") }
}

/// Until when an override holds, and whether that is over.
fn until(object: &Value) -> String {
    let at = object["spec"]["expiresAt"].as_str().unwrap_or("taken back");
    if object["status"]["expired"] == true { format!("{at} (expired)") } else { at.to_owned() }
}

/// Who may refer to something: `kind/namespace`.
fn referring(from: &Value) -> String {
    let all = from.as_array().into_iter().flatten();
    all.map(|one| format!("{}/{}", word(&one["kind"]), word(&one["namespace"]))).collect::<Vec<_>>().join(",")
}

/// To what: `kind/name`, or every one of the kind.
fn referred(to: &Value) -> String {
    let all = to.as_array().into_iter().flatten();
    let name = |one: &Value| one["name"].as_str().unwrap_or("*").to_owned();
    all.map(|one| format!("{}/{}", word(&one["kind"]), name(one))).collect::<Vec<_>>().join(",")
}

fn parents(spec: &Value) -> String {
    let all = spec["parentRefs"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().map(|parent| word(&parent["name"])).collect::<Vec<_>>().join(",")
}

/// What has become of a route: the reasons of what does not hold.
fn state(object: &Value) -> String {
    let parents = object["status"]["parents"].as_array().into_iter().flatten();
    let all = parents.flat_map(|parent| parent["conditions"].as_array().into_iter().flatten());
    let wrong = all.filter(|c| (c["type"] == "PartiallyInvalid") == (c["status"] == "True"));
    let mut reasons: Vec<String> = wrong.map(|c| word(&c["reason"])).collect();
    reasons.dedup();
    match reasons.is_empty() {
        true if object["status"]["parents"].is_array() => "Accepted".into(),
        true => "-".into(),
        false => reasons.join(","),
    }
}

fn backends(spec: &Value) -> String {
    let rules = spec["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_rule = |rule: &Value| {
        let all = rule["backendRefs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let told = |backend: &Value| {
            let weight = backend["weight"].as_u64().unwrap_or(1);
            format!("{}={weight}", word(&backend["name"]))
        };
        all.iter().map(told).collect::<Vec<_>>().join(",")
    };
    rules.iter().map(of_rule).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SERVICE: Kind = Kind(spec::Kind::MeshService);
    const ROUTE: Kind = Kind(spec::Kind::HttpRoute);

    #[test]
    fn a_kind_is_known_by_every_word_for_it() {
        for (word, kind) in [("services", SERVICE), ("MeshService", SERVICE), ("HTTPRoute", ROUTE)] {
            assert_eq!(word.parse(), Ok(kind), "{word}");
        }
        assert!("udproutes".parse::<Kind>().unwrap_err().contains("httproutes"));
    }

    #[test]
    fn a_route_shows_where_its_traffic_goes() {
        let route = json!({"kind": "HTTPRoute", "spec": {"parentRefs": [{"name": "prices"}], "rules": [
            {"backendRefs": [{"name": "prices.v1", "weight": 90}, {"name": "prices.v2", "weight": 10}]}
        ]}});
        assert_eq!(ROUTE.cells(&route), ["prices", "prices.v1=90,prices.v2=10", "-"]);
        let with = |status: &str, reason: &str| {
            let mut route = route.clone();
            let conditions = json!([{"type": "Accepted", "status": "True", "reason": "Accepted"},
                {"type": "ResolvedRefs", "status": status, "reason": reason}]);
            route["status"] = json!({"parents": [{"conditions": conditions}]});
            ROUTE.cells(&route).remove(2)
        };
        assert_eq!(with("True", "ResolvedRefs"), "Accepted");
        assert_eq!(with("False", "RefNotPermitted"), "RefNotPermitted");
    }
}
