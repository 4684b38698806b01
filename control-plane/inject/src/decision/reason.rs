//! Why pods stay as they are.

/// The kinds of reasons to leave a pod as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SkipReason {
    /// Neither it nor its namespace asks for it.
    NotAsked,
    /// The pod says no.
    DisabledByPod,
    /// The namespace says no.
    DisabledByNamespace,
    /// The label has a value that means nothing.
    InvalidValue,
    /// A namespace of the cluster itself, or the control plane's.
    SystemNamespace,
    /// The pod shares the network of its node.
    HostNetwork,
    /// It runs on Windows.
    Windows,
    /// The kubelet made it from a file of its own: it has no service account.
    StaticPod,
    /// The sidecar of another mesh is there.
    OtherMesh,
    /// Containers of our names are there that no injection added.
    OwnContainers,
    /// It is no pod, or not being made. For whoever reads reviews; [`crate::decide`] is given pods only.
    UnsupportedKind,
}

impl SkipReason {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::NotAsked,
        Self::DisabledByPod,
        Self::DisabledByNamespace,
        Self::InvalidValue,
        Self::SystemNamespace,
        Self::HostNetwork,
        Self::Windows,
        Self::StaticPod,
        Self::OtherMesh,
        Self::OwnContainers,
        Self::UnsupportedKind,
    ];

    /// Its name in metrics, events and reports.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::DisabledByPod => "disabled_by_pod",
            Self::DisabledByNamespace => "disabled_by_namespace",
            Self::InvalidValue => "invalid_value",
            Self::SystemNamespace => "system_namespace",
            Self::HostNetwork => "host_network",
            Self::Windows => "windows",
            Self::StaticPod => "static_pod",
            Self::OtherMesh => "other_mesh",
            Self::OwnContainers => "own_containers",
            Self::UnsupportedKind => "unsupported_kind",
        }
    }
}
