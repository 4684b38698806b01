//! Where the sidecar listens: at its own ports, or beside them where the application has one of these.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::json::{all_containers, list};
use crate::service::Served;

/// The ports of a sidecar in one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SidecarPorts {
    pub(crate) outbound: u16,
    pub(crate) inbound: u16,
    pub(crate) admin: u16,
    pub(crate) health: u16,
    pub(crate) dns: u16,
    /// For each further port of the service.
    pub(crate) mapped: Vec<u16>,
}

/// Where another port is looked for.
const BESIDE: u16 = 15100;

impl SidecarPorts {
    pub(crate) fn choose(spec: &Value, served: Option<&Served>) -> Self {
        let mut taken: BTreeSet<u16> = declared(spec);
        taken.extend(served.iter().flat_map(|served| served.application_ports()));
        let more = served.map_or(0, |served| served.more.len());
        let usual = [OUTBOUND, INBOUND, ADMIN, HEALTH, DNS];
        let free: Vec<u16> = usual.iter().copied().filter(|port| !taken.contains(port)).collect();
        let mut choose = |wanted: u16| {
            if free.contains(&wanted) {
                return wanted;
            }
            let port = (BESIDE..u16::MAX).find(|port| !taken.contains(port)).unwrap_or(wanted);
            taken.insert(port);
            port
        };
        Self {
            outbound: choose(OUTBOUND),
            inbound: choose(INBOUND),
            admin: choose(ADMIN),
            health: choose(HEALTH),
            dns: choose(DNS),
            mapped: (0..more).map(|_| choose(0)).collect(),
        }
    }

    /// What the redirection must know as the sidecar's own.
    pub(crate) fn own(&self) -> String {
        let mut all = vec![self.admin, self.outbound, self.inbound, self.health, self.dns];
        all.extend(&self.mapped);
        all.sort_unstable();
        all.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
    }

    /// Which of the usual ones are others, with what they are.
    pub(crate) fn moved(&self) -> Vec<(u16, u16)> {
        let all = [
            (OUTBOUND, self.outbound),
            (INBOUND, self.inbound),
            (ADMIN, self.admin),
            (HEALTH, self.health),
            (DNS, self.dns),
        ];
        all.into_iter().filter(|(usual, chosen)| usual != chosen).collect()
    }
}

pub(crate) const OUTBOUND: u16 = 15001;
pub(crate) const INBOUND: u16 = 15006;
pub(crate) const ADMIN: u16 = 15000;
pub(crate) const HEALTH: u16 = 15020;
pub(crate) const DNS: u16 = 15053;

/// What the containers of the pod say they listen at.
fn declared(spec: &Value) -> BTreeSet<u16> {
    let ports = all_containers(spec).flat_map(|container| list(container, "ports"));
    let numbers = ports.filter_map(|port| port.get("containerPort")?.as_u64());
    numbers.filter_map(|number| u16::try_from(number).ok()).collect()
}
