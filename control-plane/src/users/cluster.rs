//! The users of the cluster: whose a token is says its TokenReview, and what he may here its SubjectAccessReview.
//!
//! A role is an object that one may `use`: `roles.outrigger.dev`, named as our roles are. A ClusterRoleBinding gives it in the whole
//! mesh, a RoleBinding in its namespace. A cluster does not tell where somebody has a role, only whether he has it somewhere: so
//! what is asked for in no namespace takes it in the whole mesh, or in those that the request names, or in a service account's
//! own. No such objects exist: they are names for rules of RBAC to speak of.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outrigger_kube::api::{ApiServer, CallError};
use outrigger_kube::review::{Act, User, may, whose};
use outrigger_mesh::Label;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Grant, Namespaces, Role};
use crate::store::{StoreError, StoreErrorKind};

/// Who asks the cluster.
pub struct ClusterUsers {
    api: ApiServer,
    audience: String,
    known: Mutex<HashMap<Asked, (Instant, Known)>>,
}

/// A token, by its hash, and where it was shown.
type Asked = ([u8; 32], BTreeSet<Label>);
/// Whose it is, and his role, if he has one.
type Known = Option<(String, Option<Grant>)>;

/// Somebody who does not come in.
#[derive(Debug)]
pub enum NotAUser {
    /// The cluster does not know the token, or it is for somebody else.
    Unknown,
    /// The cluster knows him, and gives him no role.
    WithoutRole(String),
    /// The cluster does not answer.
    Away(StoreError),
}

/// An answer of the cluster counts for so long: as long as one whose role was taken away may keep it.
const FOR: Duration = Duration::from_secs(10);
const MOST: usize = 1_000;
/// Of a request that names more, the first count: each is a question to the API server.
pub const MOST_NAMESPACES: usize = 16;
/// Kubernetes makes tokens of one to two kilobytes.
const LONGEST: usize = 16 * 1024;

impl ClusterUsers {
    /// Asks `api` about tokens that are for `audience`.
    pub fn new(api: ApiServer, audience: String) -> Self {
        Self { api, audience, known: Mutex::default() }
    }

    /// Who has a token, and what he may in the whole mesh, or else in which of these namespaces; where none is said, in that
    /// of the service account.
    pub async fn grant_of(
        &self,
        token: &str,
        namespaces: &BTreeSet<Label>,
    ) -> Result<(String, Grant), NotAUser> {
        let asked = (Sha256::digest(token).into(), namespaces.clone());
        let remembered =
            self.known().get(&asked).filter(|(at, _)| at.elapsed() < FOR).map(|(_, k)| k.clone());
        let known = if let Some(known) = remembered {
            known
        } else {
            let known = self.ask(token, namespaces).await.map_err(|e| away(&e))?;
            self.remember(asked, known.clone());
            known
        };
        match known {
            None => Err(NotAUser::Unknown),
            Some((user, None)) => Err(NotAUser::WithoutRole(user)),
            Some((user, Some(grant))) => Ok((user, grant)),
        }
    }

    async fn ask(&self, token: &str, namespaces: &BTreeSet<Label>) -> Result<Known, CallError> {
        let Some(user) = whose(&self.api, token, Some(&self.audience)).await? else { return Ok(None) };
        let own = own_namespace(&user.name).filter(|_| namespaces.is_empty());
        for role in Role::ALL.into_iter().rev() {
            if self.has(&user, role, "").await? {
                return Ok(Some((user.name, Grant::new(role, Namespaces::All).ok())));
            }
            let mut bound = BTreeSet::new();
            // The greater roles are of the whole mesh.
            let asked = namespaces.iter().chain(&own).filter(|_| role <= Role::Editor);
            for namespace in asked.take(MOST_NAMESPACES) {
                if self.has(&user, role, namespace.as_str()).await? {
                    bound.insert(namespace.clone());
                }
            }
            if let Ok(grant) = Grant::new(role, Namespaces::Only(bound)) {
                return Ok(Some((user.name, Some(grant))));
            }
        }
        Ok(Some((user.name, None)))
    }

    async fn has(&self, user: &User, role: Role, namespace: &str) -> Result<bool, CallError> {
        let act =
            Act { verb: "use", group: "outrigger.dev", resource: "roles", name: role.as_str(), namespace };
        may(&self.api, user, act).await
    }

    fn remember(&self, asked: Asked, known: Known) {
        let mut all = self.known();
        if all.len() >= MOST {
            all.retain(|_, (at, _)| at.elapsed() < FOR);
        }
        if all.len() < MOST {
            all.insert(asked, (Instant::now(), known));
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Asked, (Instant, Known)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ClusterUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterUsers").field("api", &self.api).finish_non_exhaustive()
    }
}

fn away(e: &CallError) -> NotAUser {
    NotAUser::Away(StoreError::new(StoreErrorKind::Unavailable, "of users in Kubernetes", e))
}

/// The namespace of a service account.
fn own_namespace(user: &str) -> Option<Label> {
    let (namespace, _) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    Label::new(namespace).ok()
}

/// Three parts of base64url: what is worth asking for.
pub fn is_web_token(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= LONGEST && text.split('.').count() == 3 && text.split('.').all(is_part)
}
