//! Who may use the admin API, and for what.
//!
//! A [`Grant`] is a role and where it holds; [`permission`] is the one table of what each role may; [`book`] keeps the
//! tokens. How a request proves whose it is, is deliberately elsewhere (`admin::door`).

pub mod book;
pub mod cluster;
pub mod first;
pub mod permission;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use outrigger_certs::ClientName;
use outrigger_mesh::{Label, SpiffeId};

/// How much somebody may. Each may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Writes what is of one namespace.
    Editor,
    /// Writes what holds for the mesh, lets workloads join, reads the audit log.
    Operator,
    /// Says who may what, and replaces the root of the mesh.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Editor, Self::Operator, Self::Admin];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| "a role is viewer, editor, operator or admin".into())
    }
}

/// Where a role holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// In the whole mesh.
    All,
    /// In these, and only there.
    Only(BTreeSet<Label>),
}

/// Whose client certificate it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientId {
    /// A workload's of the mesh.
    Workload(SpiffeId),
    /// One of an authority of the operator's own.
    Named(ClientName),
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(id) => id.fmt(f),
            Self::Named(name) => name.fmt(f),
        }
    }
}

impl FromStr for ClientId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told = |e: &dyn fmt::Display| format!("{text}: {e}");
        if text.starts_with("spiffe:") {
            return text.parse().map(Self::Workload).map_err(|e| told(&e));
        }
        text.parse().map(Self::Named).map_err(|e| told(&e))
    }
}

/// A role and where it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    role: Role,
    namespaces: Namespaces,
}

impl Grant {
    /// `role` in `namespaces`. Operators and admins are of the whole mesh: what they may has no namespace.
    pub fn new(role: Role, namespaces: Namespaces) -> Result<Self, String> {
        match &namespaces {
            Namespaces::Only(none) if none.is_empty() => Err("a role in no namespace may nothing".into()),
            Namespaces::Only(_) if role > Role::Editor => {
                Err(format!("the role {role} is of the whole mesh: leave the namespaces out"))
            }
            Namespaces::All | Namespaces::Only(_) => Ok(Self { role, namespaces }),
        }
    }

    /// Everything, everywhere.
    pub fn everything() -> Self {
        Self { role: Role::Admin, namespaces: Namespaces::All }
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The namespaces it is bound to, `None` for the whole mesh.
    pub fn bound_to(&self) -> Option<&BTreeSet<Label>> {
        match &self.namespaces {
            Namespaces::All => None,
            Namespaces::Only(some) => Some(some),
        }
    }

    /// Whether it may everything that `other` may.
    pub fn includes(&self, other: &Self) -> bool {
        let there = match (&self.namespaces, &other.namespaces) {
            (Namespaces::All, _) => true,
            (Namespaces::Only(_), Namespaces::All) => false,
            (Namespaces::Only(own), Namespaces::Only(others)) => own.is_superset(others),
        };
        self.role >= other.role && there
    }

    /// Whether what is in `namespace` is any of its business.
    pub fn covers(&self, namespace: &str) -> bool {
        self.bound_to().is_none_or(|some| some.iter().any(|label| label.as_str() == namespace))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bound_to() {
            None => write!(f, "{}", self.role),
            Some(some) => {
                let names: Vec<&str> = some.iter().map(Label::as_str).collect();
                write!(f, "{}:{}", self.role, names.join(","))
            }
        }
    }
}

impl FromStr for Grant {
    type Err = String;

    /// Reads `operator` or `editor:shop,cart`.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some((role, names)) = text.split_once(':') else {
            return Self::new(text.parse()?, Namespaces::All);
        };
        let names: Result<_, _> = names.split(',').map(Label::new).collect();
        Self::new(role.parse()?, Namespaces::Only(names.map_err(|e| e.to_string())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_reads_back_as_it_is_written() {
        for text in ["viewer", "viewer:shop", "editor", "editor:bank,shop", "operator", "admin"] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for text in
            ["", "root", "Admin", "editor:", "editor:,", "editor:Shop!", "operator:shop", "admin:shop"]
        {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
    }
}
