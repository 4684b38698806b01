//! What `outrigger login` keeps: for each server a token and why the server is believed.
//!
//! One file in the user's configuration folder, readable by its owner only; one that others may read is refused. A token
//! is never printed and never taken from the command line, where every process of the machine could read it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use outrigger_certs::{ApiToken, ShownCertificate};
use outrigger_control::users::cluster::is_web_token;
use serde::{Deserialize, Serialize};

use crate::failure::{Doing, Failure};
use crate::server::Believed;

/// A token, as text that shows nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Token(String);

impl Token {
    /// Reads one of the admin API, or one of a cluster of Kubernetes. The error does not repeat it.
    pub(crate) fn read(text: &str) -> Result<Self, Failure> {
        if let Ok(token) = text.parse::<ApiToken>() {
            return Ok(Self(token.expose().to_string()));
        }
        // The cluster's own tokens; whose they are, the control plane asks the cluster.
        match text.trim() {
            token if is_web_token(token) => Ok(Self(token.to_owned())),
            _ => Err(Failure::usage(
                "this is neither a token of the admin API (it begins with oat1.) nor one of Kubernetes; was it copied whole?",
            )),
        }
    }

    /// What is sent.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// The hash of the root of the mesh that made it; tokens of Kubernetes tell none.
    pub(crate) fn pin(&self) -> Option<String> {
        self.0.parse::<ApiToken>().ok().map(|token| token.root().to_string())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Where a certificate of ours lies, and its key. They are read at each command: whoever renews them needs no other login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ClientFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl ClientFiles {
    pub(crate) fn read(&self) -> Result<ShownCertificate, Failure> {
        ShownCertificate::read(&self.certificate, &self.key)
            .map_err(|why| Failure::failed(format!("the client certificate: {why}")))
    }
}

/// What is known of one server: how we prove who we are, and why it is believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Credential {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Token>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<ClientFiles>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) believed: Option<Believed>,
}

/// Everything that is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Credentials {
    /// The server that is meant where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) servers: BTreeMap<String, Credential>,
    /// Names for servers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) contexts: BTreeMap<String, String>,
}

impl Credentials {
    /// The server that is called so.
    pub(crate) fn of_context(&self, name: &str) -> Result<&str, Failure> {
        self.contexts.get(name).map(String::as_str).ok_or_else(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "there is none yet".to_owned() } else { known.join(", ") };
            Failure::usage(format!("there is no context {name:?}"))
                .hint(format!("`outrigger context list` shows them: {known}"))
        })
    }

    /// What is kept in `folder`; nothing, where there is no file.
    pub(crate) fn load(folder: &Path) -> Result<Self, Failure> {
        let file = folder.join(FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            // Where not even the folder opens, nothing was kept by this user: HOME is somebody else's, as under sudo -E.
            Err(_) if fs::metadata(&file).is_err() => return Ok(Self::default()),
            Err(e) => return Err(Failure::failed(format!("{}: {e}", file.display()))),
        };
        let mode = fs::metadata(&file).doing(file.display())?.permissions().mode();
        if mode & 0o077 != 0 {
            let (file, mode) = (file.display(), mode & 0o777);
            return Err(Failure::failed(format!("{file} can be read by others (mode {mode:o})"))
                .hint("chmod 600 it; if others may have read it, revoke its tokens and log in again"));
        }
        // The parser's error could quote a token.
        serde_json::from_str(&text).map_err(|e| {
            let (line, column) = (e.line(), e.column());
            Failure::failed(format!("{} is damaged (line {line}, column {column})", file.display()))
                .hint("remove it and log in again")
        })
    }

    /// Keeps it, whole or not at all.
    pub(crate) fn save(&self, folder: &Path) -> Result<(), Failure> {
        let file = folder.join(FILE);
        let doing = format!("can not write {}", file.display());
        let text = serde_json::to_string_pretty(self).map_err(|e| Failure::failed(e.to_string()))?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).doing(&doing)?;
        let fresh = folder.join(format!("{FILE}.{}", std::process::id()));
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut to| to.write_all(text.as_bytes()).and_then(|()| to.sync_all()))
            .and_then(|()| fs::rename(&fresh, &file));
        if written.is_err() {
            let _absent = fs::remove_file(&fresh);
        }
        written.doing(&doing)
    }
}

/// The folder of the user's settings for this program.
pub(crate) fn folder() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("OUTRIGGER_CONFIG_DIR")
        .or_else(|| set("XDG_CONFIG_HOME").map(|folder| folder.join("outrigger")))
        .or_else(|| set("HOME").map(|home| home.join(".config/outrigger")))
        .ok_or_else(|| {
            Failure::failed("no folder for credentials is known: set HOME or OUTRIGGER_CONFIG_DIR")
        })
}

const FILE: &str = "credentials.json";

#[cfg(test)]
mod tests {
    use outrigger_certs::RootHash;

    use super::*;

    fn token() -> Token {
        Token::read(&ApiToken::generate(RootHash::of(b"root")).unwrap().expose()).unwrap()
    }

    #[test]
    fn what_is_kept_reads_back_and_belongs_to_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/outrigger");
        assert!(Credentials::load(&inner).unwrap().servers.is_empty());
        let mut kept = Credentials { current: Some("https://a:1".into()), ..Credentials::default() };
        let one = Credential { token: Some(token()), certificate: None, believed: Some(Believed::System) };
        kept.servers.insert("https://a:1".into(), one.clone());
        kept.save(&inner).unwrap();
        assert_eq!(Credentials::load(&inner).unwrap().servers["https://a:1"], one);
        let file = inner.join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1, "nothing is left beside it");

        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = Credentials::load(&inner).unwrap_err().to_string();
        assert!(refused.contains("mode 640") && !refused.contains("oat1."), "{refused}");
    }

    #[test]
    fn a_token_is_in_no_text_but_the_header() {
        let token = token();
        let kept = Credential { token: Some(token.clone()), certificate: None, believed: None };
        assert!(token.bearer().contains("oat1."));
        assert!(!format!("{token:?} {kept:?}").contains("oat1."));
        let half = &token.bearer()[7..40];
        assert!(!Token::read(half).unwrap_err().to_string().contains(&half[5..]));
    }

    #[test]
    fn a_damaged_file_is_told_without_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Credentials::default();
        kept.servers.insert(
            "https://a:1".into(),
            Credential { token: Some(token()), certificate: None, believed: None },
        );
        kept.save(folder.path()).unwrap();
        let file = folder.path().join(FILE);
        let text = fs::read_to_string(&file).unwrap().replace("\"token\": ", "\"tokne\": ");
        fs::write(&file, text).unwrap();
        let told = Credentials::load(folder.path()).unwrap_err().to_string();
        assert!(told.contains("damaged") && !told.contains("oat1."), "{told}");
    }
}
