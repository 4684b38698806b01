//! A control plane that wants proof, with something of every kind in it.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use outrigger_control::app::{self, App};
use outrigger_control::settings::Settings;
use serde_json::{Value as Json, json};

use crate::common::{self, Answer, request};

pub(crate) struct Plane {
    app: App,
    admin: String,
    folder: tempfile::TempDir,
}

impl Plane {
    /// Started, with the examples of the document applied as one transaction.
    pub(crate) async fn furnished() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = common::data_folder(&folder);
        let arguments = ["outrigger-control", "--push", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let required = ["--admin-auth", "required", "--admin-rate", "1000000", "--data"];
        let arguments = arguments.iter().chain(&required).map(std::ffi::OsStr::new);
        let settings = Settings::parse_from(arguments.chain([data.as_os_str()]));
        let app = app::build(settings).await.unwrap();
        let admin = fs::read_to_string(data.join("admin-token")).unwrap().trim().to_owned();
        let plane = Self { app, admin, folder };
        let items: Vec<Json> = examples(&plane.document().await);
        let applied = plane.post("/v1/apply", &json!({ "items": items })).await;
        assert_eq!(applied.status, 200, "{}", applied.body);
        plane
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.app.admin)
    }

    /// A folder that ends with it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn document(&self) -> Json {
        self.send("GET", "/openapi.json", "").await.body
    }

    /// A token of this role, of the whole mesh.
    pub(crate) async fn token(&self, role: &str) -> String {
        let made = self.post("/v1/tokens", &json!({ "name": role, "role": role })).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.body["token"].as_str().unwrap().to_owned()
    }

    async fn post(&self, path: &str, body: &Json) -> Answer {
        self.send("POST", path, &body.to_string()).await
    }

    async fn send(&self, method: &'static str, path: &str, body: &str) -> Answer {
        let (to, path, body) = (self.app.admin, path.to_owned(), body.to_owned());
        let proof = format!("Authorization: Bearer {}", self.admin);
        tokio::task::spawn_blocking(move || request(to, method, &path, &[&proof], &body).unwrap())
            .await
            .unwrap()
    }

    /// Ends it as it ends when it is asked to.
    pub(crate) async fn shutdown(self) {
        self.app.shutdown().await;
    }
}

/// The example of each kind, from the operations that write one.
fn examples(document: &Json) -> Vec<Json> {
    let paths = document["paths"].as_object().unwrap().values();
    let written =
        paths.map(|path| path["put"]["requestBody"]["content"]["application/json"]["example"].clone());
    // Not all that is put is an object.
    let all: Vec<Json> = written.filter(|example| example["kind"].is_string()).collect();
    assert!(all.len() >= 16, "{}", all.len());
    all
}

/// A file beside these tests.
pub(crate) fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi").join(name)
}
