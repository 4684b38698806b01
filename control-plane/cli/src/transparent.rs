//! What `outrigger run --transparent` adds to a run: a network namespace, redirection in it, and users apart.

use crate::binaries::Binaries;
use crate::failure::Failure;
use crate::netns::{Namespace, Placed, User};
use crate::sidecar::Settings;

/// Flags for interception. The command then needs to know nothing of the mesh: what it opens and what arrives for it goes
/// through the sidecar.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_field_names, reason = "the flag is called as the thing it turns on")]
#[command(next_help_heading = "Transparent interception")]
pub(crate) struct Transparent {
    /// Run the command and its sidecar in a network namespace of their own, in which every connection is redirected to the
    /// sidecar. Wants root, and the programs ip, nsenter and nft or iptables.
    #[arg(long)]
    transparent: bool,
    /// Use this network namespace (`ip netns`) instead of a new one. What connects it is left as it is.
    #[arg(long, requires = "transparent", value_name = "NAME")]
    netns: Option<String>,
    /// Who runs the command, as UID or UID:GID [default: who called sudo, else root].
    #[arg(long, requires = "transparent", value_name = "UID")]
    user: Option<String>,
    /// Ports to which the command's connections pass by the sidecar: 25,6000-6010.
    #[arg(long, requires = "transparent", value_name = "PORTS")]
    skip_outbound_ports: Vec<String>,
    /// Networks to which everything passes by the sidecar: 10.9.0.0/16.
    #[arg(long, requires = "transparent", value_name = "NETWORKS")]
    skip_outbound_networks: Vec<String>,
    /// Ports where arriving connections pass by the sidecar.
    #[arg(long, requires = "transparent", value_name = "PORTS")]
    skip_inbound_ports: Vec<String>,
}

/// Where the command runs, and who it is there.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) namespace: Namespace,
    pub(crate) command: User,
}

impl Transparent {
    /// Makes the namespace and redirects it, and has the sidecar of `settings` run inside. `None` where that was not asked
    /// for.
    pub(crate) async fn prepare(
        &self,
        binaries: &Binaries,
        settings: &mut Settings,
    ) -> Result<Option<Place>, Failure> {
        if !self.transparent {
            return Ok(None);
        }
        let command = User::of_command(self.user.as_deref())?;
        let mut namespace = Namespace::open(self.netns.as_deref(), binaries.outrigger()).await?;
        // Before the sidecar and the command: nothing of theirs ever goes around it.
        namespace.redirect(&binaries.program("outrigger-init")?, &self.skips()).await?;
        settings.control = namespace.carry(settings.control).await?;
        (settings.outbound, settings.inbound, settings.admin) =
            (([127, 0, 0, 1], 15_001).into(), ([0, 0, 0, 0], 15_006).into(), ([127, 0, 0, 1], 15_000).into());
        let address = namespace.address.to_string();
        let more = ["--transparent", "redirect", "--advertise", &address, "--dns", NAMES_AT];
        settings.more.extend(more.map(str::to_owned));
        settings.placed = Some(Placed { net: namespace.path().to_owned(), user: User::SIDECAR });
        Ok(Some(Place { namespace, command }))
    }

    fn skips(&self) -> Vec<String> {
        let lists = [
            ("--skip-outbound-ports", &self.skip_outbound_ports),
            ("--skip-outbound-networks", &self.skip_outbound_networks),
            ("--skip-inbound-ports", &self.skip_inbound_ports),
        ];
        let words = |(flag, list): &(&str, &Vec<String>)| {
            list.iter().flat_map(|value| [(*flag).to_owned(), value.clone()]).collect::<Vec<_>>()
        };
        std::iter::once("--dns".to_owned()).chain(lists.iter().flat_map(words)).collect()
    }
}

/// Where the sidecar answers for the names of the mesh.
const NAMES_AT: &str = "127.0.0.1:15053,[::1]:15053";
