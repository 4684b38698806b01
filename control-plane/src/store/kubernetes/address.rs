//! Which cluster, and as whom.

use outrigger_kube::api::Address;

/// The cluster that is the store.
#[derive(Clone, Debug)]
pub struct ClusterAddress {
    /// Its API server, and how we prove ourselves to it.
    pub server: Address,
    /// The namespace of the control plane: its Secrets, ConfigMaps and Leases are there.
    pub namespace: String,
    /// What no other replica is called: the name of the pod.
    pub identity: String,
}

impl ClusterAddress {
    /// As whatever this host is called, which in a pod is the pod's name, and at random elsewhere.
    pub fn of(server: Address, namespace: String) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String = host
            .trim()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .take(100)
            .collect();
        // Two processes on one host, or one that was started again, are two.
        let identity = format!("{}-{:08x}", host.trim_matches('-'), fastrand::u32(..));
        Self { server, namespace, identity: identity.trim_start_matches('-').to_owned() }
    }
}
