//! Who asks, proven, and what he may.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use outrigger_certs::control_plane_id;
use outrigger_mesh::{Label, SpiffeId};
use serde_json::{Value as Json, json};

use super::{ApiError, Door};
use crate::audit::Author;
use crate::spec::Key;
use crate::state::Write;
use crate::users::Grant;
use crate::users::book::Card;
use crate::users::permission::{self, Forbidden, Verb, What};

/// Whoever asks. Only the door makes one, so a handler that has one knows that somebody proved to be him.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// As the audit log names him.
    pub(super) author: Author,
    pub(super) grant: Grant,
    pub(super) proof: Proof,
}

/// How he proved it.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    /// He is on this machine, and that is enough as the control plane was started.
    Local,
    /// A token.
    Token(Box<Card>),
    /// A certificate of this identity.
    Certificate(String),
    /// A token of the cluster, by which the cluster says that he is this user.
    Cluster(String),
}

impl Proof {
    /// As the audit log names whoever has it.
    pub(super) fn who(&self) -> String {
        match self {
            Self::Local => "local".into(),
            Self::Token(card) => format!("token {} ({})", card.name, card.id),
            Self::Certificate(id) => format!("certificate {id}"),
            Self::Cluster(user) => format!("kubernetes {user}"),
        }
    }
}

impl Caller {
    /// Whether he may; the error tells which role it takes.
    pub(super) fn may(&self, verb: Verb, what: What, namespace: Option<&Label>) -> Result<(), ApiError> {
        let place = namespace.map(|n| format!(" in {n}")).unwrap_or_default();
        permission::check(&self.grant, verb, what, namespace)
            .map_err(|forbidden| refused(&forbidden, &format!("{what}{place}")))
    }

    /// Whether he may look at the object.
    pub(super) fn may_read(&self, key: &Key) -> Result<(), ApiError> {
        self.may(Verb::Read, What::Object(key.kind), Some(&key.namespace))
    }

    /// Whether he may make every one of these writes.
    pub(super) fn may_write(&self, writes: &[Write]) -> Result<(), ApiError> {
        writes.iter().try_for_each(|write| {
            let key = write.key();
            let beside = match write {
                Write::Put { document, .. } => permission::beside(&document.object.spec),
                Write::Delete { .. } => None,
            };
            [Some(What::Object(key.kind)), beside].into_iter().flatten().try_for_each(|what| {
                permission::check(&self.grant, Verb::Change, what, Some(&key.namespace))
                    .map_err(|forbidden| refused(&forbidden, &key.path()))
            })
        })
    }

    /// Whether he may let somebody be this workload, who then may here what it may.
    pub(super) fn may_let_be(&self, door: &Door, id: &SpiffeId) -> Result<(), ApiError> {
        let told = |why: String| Err(ApiError::new(StatusCode::FORBIDDEN, why).forbidden(&id.to_string()));
        if control_plane_id(id.trust_domain()).is_ok_and(|own| own == *id) {
            return told(format!("{id} is the control plane itself"));
        }
        match door.grant_of(id) {
            Some(more) if !self.grant.includes(more) => {
                told(format!("{id} may more here than you: it is {more}, and yours is {}", self.grant))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether what is in a namespace is any of his business.
    pub(super) fn covers(&self, namespace: &str) -> bool {
        self.grant.covers(namespace)
    }

    pub(super) fn to_json(&self) -> Json {
        let (kind, expires) = match &self.proof {
            Proof::Local => ("local", None),
            Proof::Token(card) => ("token", Some(super::tokens::moment(card.expires))),
            Proof::Certificate(_) => ("certificate", None),
            Proof::Cluster(_) => ("kubernetes", None),
        };
        let mut told = json!({ "who": self.author.who, "by": kind, "role": self.grant.role().as_str() });
        if let Some(fields) = told.as_object_mut() {
            if let Some(some) = self.grant.bound_to() {
                fields.insert("namespaces".into(), some.iter().map(Label::as_str).collect());
            }
            if let Some(expires) = expires {
                fields.insert("expires".into(), expires.into());
            }
        }
        told
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // The door puts it there; a route that it does not guard has nobody.
        let nobody = || ApiError::new(StatusCode::FORBIDDEN, "nobody has proven who he is");
        parts.extensions.get::<Self>().cloned().ok_or_else(nobody)
    }
}

/// A refusal that the audit log hears of, and what it was about.
fn refused(forbidden: &Forbidden, about: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, forbidden.to_string()).forbidden(about)
}
