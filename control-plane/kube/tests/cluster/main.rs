//! The API server, as the mesh uses it: a played one that goes wrong, over real TLS and HTTP/2.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod following;
mod leases;
mod reviews;
mod writing;

use std::fs;

use outrigger_kube::api::{Address, ApiServer, Collection};
use outrigger_testkit::KubernetesApi;
use serde_json::{Value, json};

/// A played API server and the way to it.
pub struct Cluster {
    pub server: KubernetesApi,
    pub api: ApiServer,
    pub address: Address,
    _folder: tempfile::TempDir,
}

pub const CONFIG_MAPS: Collection =
    Collection { group: "", version: "v1", plural: "configmaps", kind: "ConfigMap" };

impl Cluster {
    pub async fn start() -> Self {
        let server = KubernetesApi::start().await;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("ca.crt"), server.root_pem()).unwrap();
        fs::write(at("token"), "own.token.planted\n").unwrap();
        let address = Address { url: server.url(), token: at("token"), roots: at("ca.crt") };
        let api = ApiServer::new(&address).unwrap();
        Self { server, api, address, _folder: folder }
    }

    pub fn put(&self, name: &str, value: &str) -> Value {
        self.server.put(&config_map(name, value))
    }
}

pub fn config_map(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": "default" },
        "data": { "value": value },
    })
}
