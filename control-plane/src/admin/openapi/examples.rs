//! An object of each kind, so that whoever reads the document sees one that holds. Together they are a mesh: a test applies
//! them all.

use serde_json::{Value as Json, json};

use crate::spec::Kind;

/// The example of a kind.
pub(super) fn object(kind: Kind) -> Json {
    let (namespace, name) = match kind {
        Kind::MeshDefaults => ("outrigger", "mesh"),
        Kind::EgressService => ("shop", "payments"),
        Kind::Gateway => ("shop", "edge"),
        Kind::Instance => ("shop", "cart-1"),
        Kind::RouteFilter => ("shop", "slow"),
        Kind::Denylist => ("shop", "stolen"),
        _ => ("shop", "cart"),
    };
    json!({
        "apiVersion": kind.api_version(),
        "kind": kind.as_str(),
        "metadata": { "name": name, "namespace": namespace },
        "spec": specification(kind),
    })
}

/// Two objects at once.
pub(super) fn apply() -> Json {
    json!({ "items": [object(Kind::MeshService), object(Kind::HttpRoute)] })
}

/// A label is noted on an object.
pub(super) fn patch() -> Json {
    json!({ "metadata": { "labels": { "team": "checkout" } } })
}

fn specification(kind: Kind) -> Json {
    let target = json!({ "group": "outrigger.dev", "kind": "MeshService", "name": "cart" });
    let parent = json!({ "group": "", "kind": "Service", "name": "cart" });
    let backends = json!([
        { "group": "outrigger.dev", "kind": "ServiceVersion", "name": "cart.v1", "weight": 90 },
        { "group": "outrigger.dev", "kind": "ServiceVersion", "name": "cart.v2", "weight": 10 },
    ]);
    match kind {
        Kind::MeshDefaults => json!({ "outboundMode": "registryOnly", "addressRanges": ["10.42.0.0/16"] }),
        Kind::MeshService => json!({
            "ports": [{ "port": 80, "protocol": "http" }, { "port": 9000, "name": "feed", "protocol": "tcp" }],
            "owner": "checkout",
        }),
        Kind::EgressService => json!({
            "hosts": ["api.payments.example"],
            "ports": [{ "port": 443, "protocol": "http2" }],
            "tls": { "mode": "originate" },
        }),
        Kind::Gateway => json!({
            "gatewayClassName": "outrigger",
            "listeners": [{ "name": "plain", "port": 80, "protocol": "HTTP" }],
        }),
        Kind::ReferenceGrant => json!({
            "from": [{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "bank" }],
            "to": [{ "group": "", "kind": "Service" }],
        }),
        Kind::RouteFilter => json!({ "fault": { "delay": "50ms", "percent": 1 } }),
        Kind::HttpRoute => json!({ "parentRefs": [parent], "rules": [{ "backendRefs": backends }] }),
        Kind::GrpcRoute => json!({
            "parentRefs": [{ "name": "edge" }],
            "hostnames": ["grpc.shop.example"],
            "rules": [{
                "matches": [{ "method": { "service": "shop.Cart" } }],
                "backendRefs": [{ "kind": "Service", "name": "cart", "port": 80 }],
            }],
        }),
        Kind::TcpRoute => json!({
            "parentRefs": [{ "group": "", "kind": "Service", "name": "cart", "sectionName": "feed" }],
            "rules": [{ "backendRefs": backends }],
        }),
        Kind::TrafficPolicy => {
            json!({ "targetRef": target, "timeouts": { "request": "2s", "perTry": "500ms" } })
        }
        Kind::BreakerOverride => {
            json!({ "service": "cart", "mode": "forceOpen", "why": "moving the database" })
        }
        Kind::AccessPolicy => json!({
            "targetRefs": [target],
            "action": "allow",
            "rules": [{ "name": "web", "from": [{ "serviceAccount": "web" }], "methods": ["GET"] }],
        }),
        Kind::TokenPolicy => json!({
            "targetRefs": [target],
            "issuers": [{
                "name": "people",
                "issuer": "https://login.example.com",
                "audiences": ["cart"],
                "jwks": { "inline": KEYS },
            }],
        }),
        Kind::Denylist => json!({ "tokens": [{ "jti": "6f1c" }], "why": "a laptop was stolen" }),
        Kind::Rollout => {
            json!({ "service": "cart", "strategy": "canary", "stable": "v1", "candidate": "v2" })
        }
        Kind::Instance => json!({ "service": "cart", "address": "10.0.0.7", "version": "v1" }),
    }
}

/// The public key of RFC 7517, appendix A.1.
const KEYS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "1",
 "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

/// A signing request (PKCS#10) of a key that nobody has any more.
pub(super) const CSR: &str = "MIG6MGICAQAwADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABM/SElZXCFl0CFd/gcCk50nzMmfGeWUYBDBoTDP6h0vLDdrx9n6+\
Gs2yYZBO/Uf9GFfLOhaUD+x1fmTgjRN+kIqgADAKBggqhkjOPQQDAgNIADBFAiAbNkhfQa99Lk4pHyBI1qrN7SjpHMxfotY2dyB/\
JB8a0AIhAMvjsww8tC2th6g70XZGb4UQZ60yBQDC+3C/oWfjrxEL";
