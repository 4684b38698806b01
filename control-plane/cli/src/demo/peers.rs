//! Who calls whom, as the receiving sidecars saw it in their handshakes; and who is connected.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::claims::Claim;
use super::plant::{Instance, NAMESPACE, Plant, TRUST_DOMAIN};
use crate::client::Admin;
use crate::failure::Failure;
use crate::proxy;

/// How many sidecars are connected to the control plane.
pub(super) async fn connected(admin: &Admin) -> Result<usize, Failure> {
    Ok(proxy::items(&admin.list("proxies", None).await?).len())
}

/// States for every service who called it: exactly those who should, each by the identity of its certificate.
pub(super) async fn callers(plant: &Plant, python: bool) -> Result<Vec<Claim>, Failure> {
    let mut claims = Vec::new();
    for (service, expected) in EXPECTED {
        if *service == RECOMMENDATIONS && !python {
            continue;
        }
        let expected: Vec<&str> =
            expected.iter().copied().filter(|caller| python || *caller != RECOMMENDATIONS).collect();
        let mut seen = BTreeSet::new();
        for instance in plant.instances().iter().filter(|i| i.part.service == *service) {
            seen.extend(seen_by(instance).await?);
        }
        let wanted: BTreeSet<String> = expected.iter().map(|account| identity(account)).collect();
        let told = seen.iter().map(|id| short(id)).collect::<Vec<_>>().join(", ");
        let says = format!("{service} was called by {} and by nobody else", expected.join(", "));
        claims.push(Claim::new(says, seen == wanted, format!("in handshakes: {told}")));
    }
    Ok(claims)
}

/// States that what speaks no TLS is turned away at an inbound port.
pub(super) async fn plaintext_refused(plant: &Plant) -> Claim {
    let says = "plaintext is refused at an inbound port";
    let Some(address) = plant.instances().iter().find_map(Instance::inbound) else {
        return Claim::new(says, false, "no sidecar takes anything");
    };
    let tried = tokio::time::timeout(Duration::from_secs(5), async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: prices.shop\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    });
    match tried.await {
        Ok(Ok(answer)) if answer.starts_with(b"HTTP/") => {
            Claim::new(says, false, String::from_utf8_lossy(&answer).lines().next().unwrap_or_default())
        }
        Ok(Ok(_)) => Claim::new(says, true, "the connection was closed"),
        Ok(Err(e)) => Claim::new(says, true, e.to_string()),
        Err(_) => Claim::new(says, false, "the connection stays open"),
    }
}

/// Who calls whom in the shop.
const EXPECTED: &[(&str, &[&str])] = &[
    ("prices", &["web", "cart", RECOMMENDATIONS]),
    ("cart", &["web"]),
    ("reviews", &["web"]),
    (RECOMMENDATIONS, &["web"]),
];

const RECOMMENDATIONS: &str = "recommendations";

fn identity(account: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{account}")
}

fn short(identity: &str) -> String {
    identity.rsplit_once("/sa/").map_or(identity, |(_, account)| account).to_owned()
}

/// The callers that a receiving sidecar counted, from its own metrics.
async fn seen_by(instance: &Instance) -> Result<BTreeSet<String>, Failure> {
    let metrics = instance.ask("/stats/prometheus").await?;
    Ok(callers_in(&metrics))
}

fn callers_in(metrics: &str) -> BTreeSet<String> {
    let inbound = metrics.lines().filter(|line| !line.starts_with('#') && line.contains("side=\"server\""));
    let caller = |line: &str| Some(line.split_once("caller=\"")?.1.split_once('"')?.0.to_owned());
    inbound.filter_map(caller).filter(|caller| !caller.is_empty()).collect()
}
