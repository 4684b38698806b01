//! A sidecar's control side without its data path.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_certs::{ControlConnector, JoinToken};
use outrigger_mesh::{FeatureSet, Hostname, ServiceName, SpiffeId};
use outrigger_proxy::config::dial::Control;
use outrigger_proxy::config::registry::{Found, Registry};
use outrigger_proxy::config::source::{self, SourceSettings};
use outrigger_proxy::config::status::LinkStatus;
use outrigger_proxy::identity::{
    self, IdentityError, IdentitySettings, JoinSettings, Obtained, Renewal, TokenSource,
};
use outrigger_proxy::live::Live;
use outrigger_testkit::{PlanServer, eventually, resources};
use outrigger_wire::rpc::Hello;
use tokio::task::JoinSet;

/// The workload of these tests: `web` in `shop`.
pub(crate) fn web() -> SpiffeId {
    resources::identity("shop", "web")
}

pub(crate) fn identity_settings(
    server: &PlanServer,
    folder: Option<&Path>,
    token: Option<JoinToken>,
) -> IdentitySettings {
    IdentitySettings {
        id: web(),
        folder: folder.map(Path::to_path_buf),
        files: None,
        workload_api: None,
        control: Some(JoinSettings {
            address: server.addr().to_string(),
            token: token.map(TokenSource::Given),
        }),
    }
}

/// The control side of a sidecar. Dropping it ends it without a word, as a kill would.
pub(crate) struct Sidecar {
    pub(crate) registry: Arc<Registry>,
    pub(crate) live: Arc<Live>,
    pub(crate) obtained: Obtained,
    pub(crate) control: Control,
    pub(crate) link: Arc<LinkStatus>,
    pub(crate) tasks: JoinSet<()>,
}

impl Sidecar {
    /// Starts as `web`, with a token of its own if `folder` holds no identity.
    pub(crate) async fn start(server: &PlanServer, folder: &Path) -> Self {
        let token = server.join_token("shop", "web");
        Self::start_with(server, folder, Some(token)).await.unwrap()
    }

    pub(crate) async fn start_with(
        server: &PlanServer,
        folder: &Path,
        token: Option<JoinToken>,
    ) -> Result<Self, IdentityError> {
        let settings = identity_settings(server, Some(folder), token);
        let obtained = identity::obtain(&settings, |_| {}).await?;
        let connector = ControlConnector::new(&obtained.identity)?;
        let control = Control::new(&server.addr().to_string(), connector);
        let live = Arc::new(Live::default());
        let registry = Arc::new(Registry::new("shop".parse().unwrap(), Arc::clone(&live)));
        let mut tasks = JoinSet::new();
        let settings = source_settings(Some(folder.to_path_buf()));
        let copy = source::load_copy(&settings).unwrap();
        let link = source::start(settings, copy, &obtained, control.clone(), &registry, &mut tasks);
        if let Some(renewal) = Renewal::new(&obtained, control.clone(), Some(folder.to_path_buf())) {
            tasks.spawn(renewal.run());
        }
        Ok(Self { registry, live, obtained, control, link, tasks })
    }

    pub(crate) fn knows(&self, host: &str) -> bool {
        matches!(self.registry.find(&host.parse::<Hostname>().unwrap()), Found::Known(_))
    }

    pub(crate) fn is_unknown(&self, host: &str) -> bool {
        matches!(self.registry.find(&host.parse::<Hostname>().unwrap()), Found::Unknown)
    }

    /// How many endpoints `service` has, and its number of routes.
    pub(crate) fn shape(&self, service: &str) -> Option<(usize, usize)> {
        match self.registry.find_service(&service.parse::<ServiceName>().unwrap()) {
            Found::Known(live) => {
                let routes = live.snapshot.load().as_ref()?.service.routes.len();
                Some((live.endpoints.load().everything.len(), routes))
            }
            Found::Asked | Found::Unknown => None,
        }
    }

    pub(crate) async fn learns(&self, host: &str) {
        eventually(&format!("{host} is known"), || async { self.knows(host) }).await;
    }

    pub(crate) async fn linked(&self) {
        eventually("the link is up", || async { self.link.is_connected() }).await;
    }
}

pub(crate) fn source_settings(folder: Option<PathBuf>) -> SourceSettings {
    let hello = Hello {
        identity: web(),
        node: "web-test".into(),
        version: "0.1.0".into(),
        service: None,
        endpoint: None,
        features: FeatureSet::all(),
        elsewhere: false,
        requests: 1,
    };
    SourceSettings { hello, declared: vec![], gateway: None, folder }
}
