//! From the settings to a door: where the API may listen, what it shows of itself, and whom it lets in.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use outrigger_certs::{AdminAcceptor, ClientAuthority, RootHash, WorkloadIdentity};

use super::Door;
use super::guard::Hosts;
use crate::settings::{AdminAuth, AdminTls, Settings};
use crate::store::Store;
use crate::users::ClientId;
use crate::users::first::first_token;

/// Refuses settings with which somebody would come in who should not. Before anything is made or bound.
pub fn refuse_open_doors(settings: &Settings) -> anyhow::Result<()> {
    let (address, tls) = (settings.admin, shows_tls(settings));
    if settings.admin_tls == AdminTls::Mesh && settings.admin_tls_cert.is_some() {
        bail!("--admin-tls mesh and --admin-tls-cert contradict each other: give one");
    }
    let clients = &settings.admin_client;
    if !clients.is_empty() && !tls {
        bail!("--admin-client gives a role to certificates, which only TLS shows: add --admin-tls mesh");
    }
    match (&settings.admin_client_ca, clients.iter().find(|(id, _)| matches!(id, ClientId::Named(_)))) {
        (None, Some((id, _))) => {
            bail!("--admin-client {id} is of an authority of yours: give it with --admin-client-ca")
        }
        (Some(_), None) => bail!("--admin-client-ca takes an --admin-client, such as cn:deploy=editor:shop"),
        (None, None) | (Some(_), Some(_)) => {}
    }
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let mut missing = vec![];
    if settings.admin_auth == AdminAuth::Local {
        missing.push("--admin-auth required");
    }
    if !tls {
        missing.push("--admin-tls mesh (or --admin-tls-cert and --admin-tls-key)");
    }
    if missing.is_empty() {
        return Ok(());
    }
    let port = address.port();
    bail!(
        "--admin {address} can be reached from outside, which takes {}; without, listen on loopback only: 127.0.0.1:{port}",
        missing.join(" and ")
    );
}

/// The door, and what it shows of itself where it speaks TLS.
pub async fn open(
    settings: &Settings,
    store: &dyn Store,
    root: RootHash,
    identity: &Arc<WorkloadIdentity>,
) -> anyhow::Result<(Door, Option<AdminAcceptor>)> {
    let door = match settings.admin_auth {
        AdminAuth::Local => Door::local(),
        AdminAuth::Required => {
            if let Some(file) = first_token(store, root, &settings.data).await? {
                let file = file.display();
                tracing::info!(%file, "wrote the first admin token: `outrigger login --token-file` takes it");
            }
            Door::closed()
        }
    };
    let beyond = !settings.admin.ip().to_canonical().is_loopback();
    let hosts = Hosts { names: settings.admin_host.clone(), beyond_loopback: beyond };
    let door = door.with_certificates(settings.admin_client.clone()).with_hosts(hosts);
    let door = door.with_rate(settings.admin_rate);
    let clients = settings.admin_client_ca.as_deref().map(ClientAuthority::read).transpose();
    let clients = clients.map_err(anyhow::Error::msg).context("--admin-client-ca")?;
    let tls = match (&settings.admin_tls_cert, &settings.admin_tls_key) {
        (Some(certificate), Some(key)) => Some(of_files(identity, clients, certificate, key)?),
        _ if settings.admin_tls == AdminTls::Mesh => Some(AdminAcceptor::of_the_mesh(identity, clients)?),
        _ => None,
    };
    if tls.is_some() {
        tracing::info!(ca_pin = %root, "the admin API speaks TLS");
    }
    Ok((door, tls))
}

fn of_files(
    identity: &Arc<WorkloadIdentity>,
    clients: Option<ClientAuthority>,
    certificate: &Path,
    key: &Path,
) -> anyhow::Result<AdminAcceptor> {
    AdminAcceptor::of_files(identity, clients, certificate, key)
        .map_err(anyhow::Error::msg)
        .context("--admin-tls-cert")
}

fn shows_tls(settings: &Settings) -> bool {
    settings.admin_tls == AdminTls::Mesh || settings.admin_tls_cert.is_some()
}
