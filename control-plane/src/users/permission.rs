//! What each role may: one table, and nothing else decides.
//!
//! It is pure. Two things are asked: which role an act needs, and whether a grant holds where the act would be done. What
//! is not written here nobody may.

use std::fmt;

use outrigger_mesh::Label;

use super::{Grant, Role};
use crate::spec::{Kind, Spec};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// To look.
    Read,
    /// To create, replace, delete, revoke, turn.
    Change,
}

/// To what it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// Who one is.
    Own,
    /// Objects that people write.
    Object(Kind),
    /// What only the control plane can reach, through an object that makes it: its files, addresses inside.
    Inside,
    /// What runs: sidecars, traffic, explanations, metrics, leases.
    Running,
    /// Live requests: paths and instances of what others ask for. Nobody changes them.
    Requests,
    /// Revisions.
    History,
    /// The audit log. Nobody changes it.
    Audit,
    /// Backups: everything that is kept. Nobody changes it here.
    Backup,
    /// Join tokens: whoever makes one can be that workload.
    JoinTokens,
    /// Certificates that are issued to files.
    Certificates,
    /// The root of the mesh.
    Authority,
    /// Tokens of the admin API.
    Users,
}

impl What {
    /// Everything there is.
    pub fn all() -> impl Iterator<Item = Self> {
        let rest = [
            Self::Own,
            Self::Inside,
            Self::Running,
            Self::Requests,
            Self::History,
            Self::Audit,
            Self::Backup,
            Self::JoinTokens,
            Self::Certificates,
            Self::Authority,
            Self::Users,
        ];
        rest.into_iter().chain(Kind::ALL.into_iter().map(Self::Object))
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "who one is",
            Self::Object(kind) => kind.as_str(),
            Self::Inside => "what only the control plane can reach",
            Self::Running => "what runs",
            Self::Requests => "live requests",
            Self::History => "revisions",
            Self::Audit => "the audit log",
            Self::Backup => "a backup",
            Self::JoinTokens => "join tokens",
            Self::Certificates => "certificates",
            Self::Authority => "the root of the mesh",
            Self::Users => "tokens of the admin API",
        })
    }
}

/// The least role that may do `verb` to `what`, in `namespace` where it has one. `None`: nobody may.
#[allow(clippy::match_same_arms, reason = "a row for each, to be read one by one")]
pub fn needed(verb: Verb, what: What, namespace: Option<&Label>) -> Option<Role> {
    use Verb::{Change, Read};
    Some(match (what, verb) {
        (What::Own | What::Object(_) | What::Running | What::History, Read) => Role::Viewer,
        // Paths have more in them than figures do: they are for whoever works on the service.
        (What::Requests, Read) => Role::Editor,
        (What::Object(kind), Change) => writer_of(kind, namespace),
        (What::Inside, Change) => Role::Operator,
        // Whoever runs the mesh says which of its instances are gone.
        (What::Running, Change) => Role::Operator,
        (What::Audit | What::Authority, Read) => Role::Operator,
        // Whoever gets a join token or a certificate can be that workload.
        (What::JoinTokens | What::Certificates, Read | Change) => Role::Operator,
        // Whoever makes tokens, or the root, can be everybody.
        (What::Users, Read | Change) | (What::Authority, Change) => Role::Admin,
        // Whoever has one with keys can be everybody, too.
        (What::Backup, Read) => Role::Admin,
        (What::Own | What::Requests | What::History | What::Audit | What::Backup, Change)
        | (What::Inside, Read) => {
            return None;
        }
    })
}

/// Who may write objects of `kind`. What holds for the mesh as a whole is no namespace's own: all that lies in the mesh's
/// own namespace, and the kinds that have effect beyond theirs.
fn writer_of(kind: Kind, namespace: Option<&Label>) -> Role {
    if namespace.is_some_and(|namespace| namespace.as_str() == MESH_NAMESPACE) {
        return Role::Operator;
    }
    // Each kind by name: whoever adds one has to say here whose it is.
    match kind {
        // The hosts of an EgressService are names for everybody in the mesh, and a Denylist names anybody in it.
        Kind::MeshDefaults | Kind::EgressService | Kind::Denylist => Role::Operator,
        Kind::MeshService
        | Kind::Gateway
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TcpRoute
        | Kind::RouteFilter
        // A grant opens its own namespace, and nothing else.
        | Kind::ReferenceGrant
        | Kind::TrafficPolicy
        | Kind::BreakerOverride
        | Kind::AccessPolicy
        | Kind::TokenPolicy
        | Kind::Rollout
        | Kind::Instance => Role::Editor,
    }
}

/// What writing this takes beside the object itself.
pub fn beside(spec: &Spec) -> Option<What> {
    let Spec::TokenPolicy(policy) = spec else { return None };
    let mut keys = policy.issuers.iter().map(|issuer| &issuer.jwks);
    keys.any(|keys| keys.file.is_some() || keys.allow_private == Some(true)).then_some(What::Inside)
}

/// Why something is not allowed, for whom it is told to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbidden(String);

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `grant` allows it. What has no namespace, or is asked for in all at once (`None`), is allowed to roles of the
/// whole mesh; readers of some namespaces may ask for a whole list too and get what is theirs of it.
pub fn check(grant: &Grant, verb: Verb, what: What, namespace: Option<&Label>) -> Result<(), Forbidden> {
    let doing = match verb {
        Verb::Read => format!("reading {what}"),
        Verb::Change => format!("changing {what}"),
    };
    let Some(least) = needed(verb, what, namespace) else {
        return Err(Forbidden(format!("{doing} is not allowed to any role")));
    };
    let place = namespace.map(|n| format!(" in namespace {n}")).unwrap_or_default();
    if grant.role() < least {
        let have = grant.role();
        return Err(Forbidden(format!("{doing}{place} needs the role {least}; yours is {have}")));
    }
    match (grant.bound_to(), namespace) {
        (None, _) => Ok(()),
        (Some(_), Some(namespace)) if grant.covers(namespace.as_str()) => Ok(()),
        (Some(_), None) if verb == Verb::Read => Ok(()),
        (Some(_), _) => {
            Err(Forbidden(format!("{doing}{place} needs the role {least} there; yours is {grant}")))
        }
    }
}

/// What lies in this namespace holds for the whole mesh.
const MESH_NAMESPACE: &str = "outrigger";

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> Label {
        Label::new(text).unwrap()
    }

    /// Row by row: what, and the least role that may read and change it. Written anew here, not taken from above.
    fn table() -> Vec<(What, Option<Role>, Option<Role>)> {
        use Role::{Admin, Editor, Operator, Viewer};
        let kinds = Kind::ALL.into_iter().map(|kind| {
            let of_the_mesh = matches!(kind, Kind::MeshDefaults | Kind::EgressService | Kind::Denylist);
            let writer = if of_the_mesh { Operator } else { Editor };
            (What::Object(kind), Some(Viewer), Some(writer))
        });
        let mut rows = vec![
            (What::Own, Some(Viewer), None),
            (What::Inside, None, Some(Operator)),
            (What::Running, Some(Viewer), Some(Operator)),
            (What::Requests, Some(Editor), None),
            (What::History, Some(Viewer), None),
            (What::Audit, Some(Operator), None),
            (What::Backup, Some(Admin), None),
            (What::JoinTokens, Some(Operator), Some(Operator)),
            (What::Certificates, Some(Operator), Some(Operator)),
            (What::Authority, Some(Operator), Some(Admin)),
            (What::Users, Some(Admin), Some(Admin)),
        ];
        rows.extend(kinds);
        rows
    }

    #[test]
    fn every_role_may_exactly_what_the_table_says_of_everything() {
        let (mut cases, table) = (0, table());
        assert_eq!(table.len(), What::all().count(), "a row for everything");
        for what in What::all() {
            let (_, read, change) = table.iter().find(|row| row.0 == what).expect("a row");
            for (verb, least) in [(Verb::Read, read), (Verb::Change, change)] {
                for role in Role::ALL {
                    let everywhere: Grant = role.as_str().parse().unwrap();
                    for place in [None, Some(label("shop")), Some(label("bank")), Some(label("outrigger"))] {
                        let object = matches!(what, What::Object(_));
                        let of_the_mesh = place.as_ref().is_some_and(|p| p.as_str() == "outrigger");
                        let least = match least {
                            Some(_) if object && verb == Verb::Change && of_the_mesh => Some(Role::Operator),
                            other => *other,
                        };
                        let expected = least.is_some_and(|least| role >= least);
                        let got = check(&everywhere, verb, what, place.as_ref());
                        assert_eq!(got.is_ok(), expected, "{role} {verb:?} {what} {place:?}: {got:?}");
                        cases += 1;
                        if role > Role::Editor {
                            continue;
                        }
                        let bound: Grant = format!("{role}:shop").parse().unwrap();
                        let here = match &place {
                            Some(place) => place.as_str() == "shop",
                            None => verb == Verb::Read,
                        };
                        let got = check(&bound, verb, what, place.as_ref());
                        assert_eq!(
                            got.is_ok(),
                            expected && here,
                            "{bound} {verb:?} {what} {place:?}: {got:?}"
                        );
                        cases += 1;
                    }
                }
            }
        }
        assert!(cases >= 16 * 2 * 4 * 6, "{cases}");
    }

    #[test]
    fn a_refusal_says_which_role_it_takes_and_which_one_has() {
        let editor: Grant = "editor:shop".parse().unwrap();
        let told = |verb, what, place: &str| {
            check(&editor, verb, what, Some(&label(place))).unwrap_err().to_string()
        };
        assert_eq!(
            told(Verb::Change, What::Object(Kind::HttpRoute), "bank"),
            "changing HTTPRoute in namespace bank needs the role editor there; yours is editor:shop"
        );
        assert_eq!(
            told(Verb::Change, What::JoinTokens, "shop"),
            "changing join tokens in namespace shop needs the role operator; yours is editor"
        );
    }
}
