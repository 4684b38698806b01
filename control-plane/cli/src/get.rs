//! `outrigger get`: what is stored.

use std::process::ExitCode;

use serde_json::Value;

use crate::args::Printed;
use crate::client::Admin;
use crate::failure::Failure;
use crate::kind::{Kind, named};
use crate::out::{self, Format};
use crate::watch::Watch;

/// Show resources of a kind, or one.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// services, instances, httproutes, trafficpolicies, accesspolicies, breakeroverrides, egressservices, gateways or meshdefaults.
    kind: Kind,
    /// The name of one.
    name: Option<String>,
    /// The namespace to look in.
    #[arg(short, long, default_value = "default", env = "OUTRIGGER_NAMESPACE")]
    namespace: String,
    /// Look in all namespaces.
    #[arg(short = 'A', long, conflicts_with = "name")]
    all_namespaces: bool,
    /// Then tell each change as it is made, until interrupted.
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    printed: Printed,
}

impl Get {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        if self.watch {
            let namespace = (!self.all_namespaces).then_some(self.namespace.as_str());
            let (name, format) = (self.name.as_deref(), self.printed.format);
            Watch { kind: self.kind, name, namespace, format }.run(admin).await?;
            return Ok(ExitCode::SUCCESS);
        }
        match &self.name {
            Some(name) => self.one(admin, name).await?,
            None => self.list(admin).await?,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn one(&self, admin: &Admin, name: &str) -> Result<(), Failure> {
        let stored = admin.object(self.kind.plural(), &self.namespace, name).await?;
        let Some(stored) = stored else { return Err(not_there(self.kind, &self.namespace, name)) };
        match self.printed.format {
            Format::Table => out::say(table(self.kind, &[stored.object])),
            format => out::value(&stored.object, format)?,
        }
        Ok(())
    }

    async fn list(&self, admin: &Admin) -> Result<(), Failure> {
        let namespace = (!self.all_namespaces).then_some(self.namespace.as_str());
        let list = admin.list(self.kind.plural(), namespace).await?;
        if self.printed.format != Format::Table {
            return out::value(&list, self.printed.format);
        }
        let items = list["items"].as_array().cloned().unwrap_or_default();
        if items.is_empty() {
            let wherever = namespace.map_or_else(|| "any namespace".into(), |n| format!("namespace {n}"));
            out::warn(format!("no {} in {wherever}", self.kind.plural()));
            return Ok(());
        }
        out::say(table(self.kind, &items));
        Ok(())
    }
}

/// The failure for a resource that does not exist.
pub(crate) fn not_there(kind: Kind, namespace: &str, name: &str) -> Failure {
    Failure::failed(format!("there is no {} {namespace}/{name}", kind.word()))
        .hint(format!("`outrigger get {} -A` lists what there is; -n names another namespace", kind.plural()))
}

pub(crate) fn table(kind: Kind, items: &[Value]) -> String {
    let header: Vec<&str> = ["namespace", "name"].iter().chain(kind.columns()).copied().collect();
    let rows = items.iter().map(|object| {
        let (namespace, name) = named(object);
        [namespace, name].into_iter().chain(kind.cells(object)).collect()
    });
    out::table(&header, rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services_are_told_with_their_ports() {
        let cart = json!({"kind": "MeshService", "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"ports": [{"port": 80, "protocol": "http"}, {"port": 81}]},
            "status": {"addresses": ["240.0.3.7", "fd6f:7574:7269::307"]}});
        assert_eq!(
            table("services".parse().unwrap(), &[cart]),
            "NAMESPACE  NAME  PORTS       IDENTITIES  ADDRESS\nshop       cart  80/http,81  -           240.0.3.7"
        );
    }
}
