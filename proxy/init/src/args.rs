//! What the operator writes. Values stay text here: they are proven together in [`crate::plan`], so that all mistakes
//! are told at once.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::plan::InboundMode;

/// Sends an application's traffic through its sidecar: puts the redirection in place, checks it, removes it.
///
/// Connections that the application opens go to --outbound-port, connections that arrive go to --inbound-port. The sidecar
/// itself is told by its user (--proxy-uid) and left alone. Calls to a loopback or other own address stay as they are.
/// Rules are for the network namespace in which this runs: a pod's, a container's, a host's.
///
///   outrigger-init apply                             redirect both directions, IPv4 and IPv6
///   outrigger-init apply --skip-outbound-ports 25,6000-6010 --skip-outbound-networks 10.9.0.0/16
///   outrigger-init check --probe                     prove every rule, and open one real connection
///   outrigger-init print --backend iptables-nft      see the rules without touching anything
///   outrigger-init remove
///
/// Give `check` the same flags as `apply`; each can be given by environment, too. `apply` may be repeated: it replaces its
/// own rules and nothing else. Needs root or CAP_NET_ADMIN (and CAP_NET_RAW for iptables).
///
/// Exit code 0: done. 1: `check` found a difference, all of which are named. 2: the flags are wrong, all mistakes are told.
/// 3: it can not be done, nothing is left half done, and why is told.
#[derive(Debug, Parser)]
#[command(name = "outrigger-init", version, verbatim_doc_comment, max_term_width = 110)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put the redirection in place, or replace what an earlier `apply` put there.
    ///
    /// All of it or none: when anything fails, what was in place before is put back, and the exit code is 3. Afterwards the
    /// rules are read back and proven. Rules of an earlier `apply` with another packet filter are removed.
    Apply(Wanted),
    /// Read back what is in place and prove every rule. What is missing and what is too much is named.
    Check(Check),
    /// Remove the redirection, whichever packet filter holds it. Connections that are open live on.
    Remove(Remove),
    /// Print the rules that `apply` would put in place, without touching anything.
    #[command(visible_alias = "show")]
    Print(Wanted),
}

/// What `check` is told.
#[derive(Debug, Args)]
pub struct Check {
    /// What should be in place.
    #[command(flatten)]
    pub wanted: Wanted,
    /// Also open one real connection of each family to an address nobody has, and see it redirected.
    ///
    /// Where the sidecar does not run yet, its place is taken for a moment and the original address asserted. Where it runs,
    /// an accepted connection is the proof. Must not run as the sidecar's own user.
    #[arg(long, env = "OUTRIGGER_INIT_PROBE")]
    pub probe: bool,
}

/// What `remove` is told.
#[derive(Debug, Args)]
pub struct Remove {
    /// The mark whose routing is removed.
    #[arg(long, env = "OUTRIGGER_INIT_TPROXY_MARK", default_value = MARK)]
    pub tproxy_mark: String,
    /// The routing table that is emptied.
    #[arg(long, env = "OUTRIGGER_INIT_TPROXY_TABLE", default_value = TABLE)]
    pub tproxy_table: String,
}

/// What shall be redirected.
#[derive(Clone, Debug, Args)]
pub struct Wanted {
    /// The packet filter to use.
    #[arg(long, env = "OUTRIGGER_INIT_BACKEND", value_enum, default_value_t, help_heading = "Where")]
    pub backend: Chosen,
    /// IPv4 only, unless --ipv6 is given as well. What is not redirected goes around the mesh.
    #[arg(long, env = "OUTRIGGER_INIT_IPV4", help_heading = "Where")]
    pub ipv4: bool,
    /// IPv6 only, unless --ipv4 is given as well. With neither: both, and IPv4 alone on a host without IPv6.
    #[arg(long, env = "OUTRIGGER_INIT_IPV6", help_heading = "Where")]
    pub ipv6: bool,

    /// Where the sidecar takes the application's connections.
    #[arg(long, env = "OUTRIGGER_INIT_OUTBOUND_PORT", default_value = "15001", help_heading = "Sidecar")]
    pub outbound_port: String,
    /// Where the sidecar takes connections from the mesh.
    #[arg(long, env = "OUTRIGGER_INIT_INBOUND_PORT", default_value = "15006", help_heading = "Sidecar")]
    pub inbound_port: String,
    /// The users whose connections are left alone: the sidecar's.
    #[arg(
        long,
        env = "OUTRIGGER_INIT_PROXY_UID",
        default_value = "15001",
        value_name = "UIDS",
        help_heading = "Sidecar"
    )]
    pub proxy_uid: Vec<String>,
    /// The groups whose connections are left alone, besides.
    #[arg(long, env = "OUTRIGGER_INIT_PROXY_GID", value_name = "GIDS", help_heading = "Sidecar")]
    pub proxy_gid: Vec<String>,
    /// The sidecar's other ports: what arrives there is never redirected.
    #[arg(
        long,
        env = "OUTRIGGER_INIT_OWN_PORTS",
        default_value = "15000,15001,15006,15020,15053",
        value_name = "PORTS",
        help_heading = "Sidecar"
    )]
    pub own_ports: Vec<String>,
    /// Send DNS (UDP and TCP port 53) to the sidecar, also where the resolver is at a loopback address.
    #[arg(long, env = "OUTRIGGER_INIT_DNS", help_heading = "Sidecar")]
    pub dns: bool,
    /// Where the sidecar answers DNS.
    #[arg(long, env = "OUTRIGGER_INIT_DNS_PORT", default_value = "15053", help_heading = "Sidecar")]
    pub dns_port: String,

    /// How arriving connections get to the sidecar.
    #[arg(
        long,
        env = "OUTRIGGER_INIT_INBOUND_MODE",
        value_enum,
        default_value = "redirect",
        help_heading = "Arriving"
    )]
    pub inbound_mode: InboundMode,
    /// Ports and ranges where arriving connections pass by the sidecar: 22,8000-8010. May be repeated.
    #[arg(long, env = "OUTRIGGER_INIT_SKIP_INBOUND_PORTS", value_name = "PORTS", help_heading = "Arriving")]
    pub skip_inbound_ports: Vec<String>,
    /// Only arriving connections to these ports go to the sidecar.
    #[arg(long, env = "OUTRIGGER_INIT_ONLY_INBOUND_PORTS", value_name = "PORTS", help_heading = "Arriving")]
    pub only_inbound_ports: Vec<String>,
    /// The mark for TPROXY. Packets that carry it are routed to this host.
    #[arg(long, env = "OUTRIGGER_INIT_TPROXY_MARK", default_value = MARK, help_heading = "Arriving")]
    pub tproxy_mark: String,
    /// The routing table for TPROXY, which is all ours.
    #[arg(long, env = "OUTRIGGER_INIT_TPROXY_TABLE", default_value = TABLE, help_heading = "Arriving")]
    pub tproxy_table: String,

    /// Ports and ranges to which the application's connections pass by the sidecar.
    #[arg(long, env = "OUTRIGGER_INIT_SKIP_OUTBOUND_PORTS", value_name = "PORTS", help_heading = "Leaving")]
    pub skip_outbound_ports: Vec<String>,
    /// Only the application's connections to these ports go to the sidecar.
    #[arg(long, env = "OUTRIGGER_INIT_ONLY_OUTBOUND_PORTS", value_name = "PORTS", help_heading = "Leaving")]
    pub only_outbound_ports: Vec<String>,
    /// Networks to which everything passes by the sidecar: 10.9.0.0/16,fd09::/32.
    #[arg(
        long,
        env = "OUTRIGGER_INIT_SKIP_OUTBOUND_NETWORKS",
        value_name = "NETWORKS",
        help_heading = "Leaving"
    )]
    pub skip_outbound_networks: Vec<String>,
    /// Only the application's connections to these networks go to the sidecar.
    #[arg(
        long,
        env = "OUTRIGGER_INIT_ONLY_OUTBOUND_NETWORKS",
        value_name = "NETWORKS",
        help_heading = "Leaving"
    )]
    pub only_outbound_networks: Vec<String>,
}

/// The packet filter to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Chosen {
    /// The first that can do it here: nft, then iptables-nft, then iptables-legacy.
    #[default]
    Auto,
    /// nftables by `nft`.
    Nft,
    /// nftables by `iptables-nft`.
    IptablesNft,
    /// The older interface of the kernel by `iptables-legacy`.
    IptablesLegacy,
}

/// 15006 in hexadecimal: none of the bits that kube-proxy, Calico or Cilium are known to use alone.
const MARK: &str = "0x3a9e";
const TABLE: &str = "15006";
