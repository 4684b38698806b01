//! The generated rules, without a kernel: what they say, and that whatever is written is read back as the same value.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use clap::Parser;
use outrigger_init::args::{Arguments, Command, Wanted};
use outrigger_init::backend::Backend;
use outrigger_init::network::{Family, Network};
use outrigger_init::plan::{InboundMode, Plan};
use outrigger_init::ports::{PortRange, Ports};
use outrigger_init::rules::{Found, Owner, Ruleset};
use outrigger_init::{iptables, nft};
use proptest::prelude::*;

fn wanted(flags: &str) -> Wanted {
    let words = ["outrigger-init", "print"].into_iter().chain(flags.split_whitespace());
    match Arguments::try_parse_from(words).unwrap().command {
        Command::Print(wanted) => wanted,
        _ => unreachable!("print was asked for"),
    }
}

fn plan(flags: &str) -> Result<Plan, String> {
    Plan::new(&wanted(flags), true)
}

const MANY: &str = "--ipv4 --skip-outbound-ports 25,6000-6010 --skip-outbound-networks 10.9.0.0/16,fd09::/32 --dns \
                    --proxy-gid 15002 --skip-inbound-ports 22";

#[test]
fn nft_is_given_one_transaction_that_reads_downwards() {
    assert_eq!(
        Backend::Nft.script(&plan(MANY).unwrap()),
        "\
table ip outrigger {}
delete table ip outrigger
table ip outrigger {
\tchain outbound {
\t\ttype nat hook output priority -110; policy accept;
\t\tmeta skuid 15001 return
\t\tmeta skgid 15002 return
\t\tip daddr 10.9.0.0/16 return
\t\tudp dport 53 redirect to :15053
\t\ttcp dport 53 tcp flags & (fin | syn | rst | ack) == syn redirect to :15053
\t\toifname \"lo\" return
\t\ttcp dport { 25, 6000-6010, 15020 } return
\t\ttcp flags & (fin | syn | rst | ack) == syn redirect to :15001
\t}
\tchain inbound {
\t\ttype nat hook prerouting priority -110; policy accept;
\t\tiifname \"lo\" return
\t\ttcp dport { 22, 15000-15001, 15006, 15020, 15053 } return
\t\tfib daddr type local tcp flags & (fin | syn | rst | ack) == syn redirect to :15006
\t}
}
"
    );
}

#[test]
fn iptables_is_given_one_commit_a_table() {
    let flags = format!("{MANY} --inbound-mode tproxy");
    assert_eq!(
        Backend::IptablesNft.script(&plan(&flags).unwrap()),
        "\
# IPv4
*nat
:OUTRIGGER_OUTBOUND - [0:0]
-I OUTPUT 1 -j OUTRIGGER_OUTBOUND
-A OUTRIGGER_OUTBOUND -m owner --uid-owner 15001 -j RETURN
-A OUTRIGGER_OUTBOUND -m owner --gid-owner 15002 -j RETURN
-A OUTRIGGER_OUTBOUND -d 10.9.0.0/16 -j RETURN
-A OUTRIGGER_OUTBOUND -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053
-A OUTRIGGER_OUTBOUND -p tcp -m tcp --dport 53 --tcp-flags FIN,SYN,RST,ACK SYN -j REDIRECT --to-ports 15053
-A OUTRIGGER_OUTBOUND -o lo -j RETURN
-A OUTRIGGER_OUTBOUND -p tcp -m multiport --dports 25,6000:6010,15020 -j RETURN
-A OUTRIGGER_OUTBOUND -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j REDIRECT --to-ports 15001
COMMIT
*mangle
:OUTRIGGER_TPROXY - [0:0]
-I PREROUTING 1 -j OUTRIGGER_TPROXY
-A OUTRIGGER_TPROXY -i lo -j RETURN
-A OUTRIGGER_TPROXY -p tcp -m multiport --dports 22,15000:15001,15006,15020,15053 -j RETURN
-A OUTRIGGER_TPROXY -p tcp -m socket --transparent -j MARK --set-xmark 0x3a9e/0xffffffff
-A OUTRIGGER_TPROXY -p tcp -m socket --transparent -j RETURN
-A OUTRIGGER_TPROXY -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m socket -j RETURN
-A OUTRIGGER_TPROXY -p tcp -m addrtype --dst-type LOCAL -j TPROXY --on-port 15006 --tproxy-mark 0x3a9e/0xffffffff
COMMIT
"
    );
}

#[test]
fn a_long_list_of_ports_becomes_several_matches_of_fifteen_places() {
    let list = (0..20).map(|n| format!("{}-{}", 100 * n + 1, 100 * n + 5)).collect::<Vec<_>>().join(",");
    let plan = plan(&format!("--ipv4 --inbound-mode off --skip-outbound-ports {list}")).unwrap();
    let script = Backend::IptablesLegacy.script(&plan);
    let matches: Vec<&str> = script.lines().filter(|l| l.contains("--dports")).collect();
    assert_eq!(matches.len(), 3, "{script}");
    for line in matches {
        let ports = line.split("--dports ").nth(1).unwrap().split(' ').next().unwrap();
        let places: usize = ports.split(',').map(|r| if r.contains(':') { 2 } else { 1 }).sum();
        assert!(places <= 15, "{line}");
    }
    assert_eq!(Backend::Nft.script(&plan).matches("dport {").count(), 1);
}

#[test]
fn only_what_is_named_goes_to_the_sidecar() {
    let flags = "--only-outbound-networks 10.0.0.0/8,10.1.0.0/16,0.0.0.0/0 --only-inbound-ports 8080";
    let script = Backend::Nft.script(&plan(flags).unwrap());
    let (v4, v6) = script.split_once("table ip6 outrigger {\n").unwrap();
    assert!(v4.contains("\t\tip daddr 10.0.0.0/8 tcp flags"), "{v4}");
    assert!(v4.contains("fib daddr type local tcp dport 8080 tcp flags"), "{v4}");
    assert!(!v6.contains("redirect to :15001"), "networks of IPv4 alone leave IPv6 as it is: {v6}");
}

#[test]
fn every_mistake_is_told_at_once() {
    let told = plan(
        "--outbound-port 0 --inbound-port http --proxy-uid root --skip-inbound-ports 70000,9-3,80 \
         --skip-outbound-networks 10.0.0.1/8,300.0.0.0/8 --tproxy-table 254 --tproxy-mark 0",
    )
    .unwrap_err();
    for named in
        ["--outbound-port", "\"http\"", "root", "70000", "9-3", "10.0.0.1/8", "300.0.0.0", "table", "mark"]
    {
        assert!(told.contains(named), "{named} is missing in:\n{told}");
    }
    assert_eq!(told.lines().count(), 9, "{told}");
    for bad in [
        "--inbound-port 15001",
        "--dns --skip-outbound-ports 53",
        "--proxy-uid 4294967295",
        "--proxy-uid=",
        "--outbound-port 1-2",
    ] {
        assert!(plan(bad).is_err(), "{bad}");
    }
    assert!(plan("--inbound-port 15001 --inbound-mode off").is_ok());
}

#[test]
fn a_host_without_ipv6_is_served_for_ipv4_unless_ipv6_is_asked_for() {
    assert_eq!(Plan::new(&wanted(""), false).unwrap().families, [Family::V4]);
    assert!(Plan::new(&wanted("--ipv6"), false).unwrap_err().contains("no IPv6"));
    assert_eq!(plan("").unwrap().families, Family::ALL);
    assert_eq!(plan("--ipv4 --ipv6").unwrap().families, Family::ALL);
    assert_eq!(plan("--ipv6").unwrap().families, [Family::V6]);
}

/// As versions of nft list them: numbers or names, sets over several lines, comments with handles.
#[test]
fn listings_of_other_versions_of_nft_say_the_same() {
    let plan = plan("--ipv4 --inbound-mode tproxy --skip-inbound-ports 1,3,5,7").unwrap();
    let wanted = Ruleset::new(&plan, Family::V4, None);
    let listing = "\
table ip outrigger { # handle 3
\tchain outbound { # handle 1
\t\ttype nat hook output priority -110; policy accept;
\t\tmeta skuid 15001 return # handle 4
\t\toifname \"lo\" return # handle 8
\t\ttcp dport 15020 return # handle 9
\t\ttcp flags syn / fin,syn,rst,ack redirect to :15001 # handle 15
\t}

\tchain inbound_tproxy { # handle 3
\t\ttype filter hook prerouting priority -150; policy accept;
\t\tiifname \"lo\" return # handle 20
\t\ttcp dport { 1, 3, 5,
\t\t\t     7, 15000-15001, 15006,
\t\t\t     15020, 15053 } return # handle 22
\t\tmeta l4proto tcp socket transparent 1 meta mark set 0x00003a9e # handle 23
\t\tmeta l4proto 6 socket transparent 1 return # handle 24
\t\ttcp flags & (0x1 | 0x2 | 0x4 | 0x10) != 0x2 socket wildcard 0 return # handle 25
\t\tfib daddr type 2 meta l4proto 6 tproxy to :15006 meta mark set 0x00003a9e accept # handle 26
\t}
}
";
    let found = nft::read(Family::V4, listing);
    assert_eq!(found.differences(&wanted, |chain, rule| nft::rule_text(Family::V4, chain, rule)), [""; 0]);
}

#[test]
fn what_is_changed_by_hand_is_named() {
    let plan = plan("--ipv4").unwrap();
    let wanted = Ruleset::new(&plan, Family::V4, None);
    let script = Backend::Nft.script(&plan);
    let text = script.splitn(3, '\n').nth(2).unwrap();
    let differences = |text: &str| {
        nft::read(Family::V4, text)
            .differences(&wanted, |chain, rule| nft::rule_text(Family::V4, chain, rule))
    };
    assert_eq!(differences(text), [""; 0]);
    let told = differences(&text.replace("\t\tmeta skuid 15001 return\n", ""));
    assert_eq!(told, ["missing: meta skuid 15001 return"]);
    let told = differences(&text.replace("redirect to :15001", "redirect to :15002"));
    assert_eq!(told.len(), 2, "{told:?}");
    let told = differences(&text.replace("\t\toifname", "\t\tip saddr 10.0.0.1 return\n\t\toifname"));
    assert_eq!(told, ["not of ours: in outbound: ip saddr 10.0.0.1 return"]);
    let told = differences(&text.replace("hook output priority -110", "hook output priority 50"));
    assert!(told[0].contains("hangs at"), "{told:?}");
    let told = differences(&text.replace("chain inbound {", "chain other {"));
    assert!(
        told.iter().any(|l| l.contains("Inbound")) && told.iter().any(|l| l.contains("other")),
        "{told:?}"
    );
}

#[test]
fn a_jump_that_is_missing_doubled_or_late_is_named() {
    let plan = plan("--ipv4 --inbound-mode off").unwrap();
    let wanted = Ruleset::new(&plan, Family::V4, Some(iptables::SLOTS));
    let script = Backend::IptablesNft.script(&plan).replace("-I OUTPUT 1 -j", "-A OUTPUT -j");
    let jump = "-A OUTPUT -j OUTRIGGER_OUTBOUND\n";
    let differences =
        |text: &str| iptables::read(text).found.differences(&wanted, iptables::rule_text).join("\n");
    assert_eq!(differences(&script), "");
    assert!(differences(&script.replace(jump, "")).contains("nothing leads to the chain OUTRIGGER_OUTBOUND"));
    assert!(differences(&script.replace(jump, &jump.repeat(2))).contains("once more"));
    let late = format!("-A OUTPUT -j ACCEPT\n{jump}");
    assert!(differences(&script.replace(jump, &late)).contains("rules before"));
    let narrow = "-A OUTPUT -p tcp -j OUTRIGGER_OUTBOUND\n";
    assert!(differences(&script.replace(jump, narrow)).contains("-p tcp -j OUTRIGGER_OUTBOUND"));
    // Whatever leads there is taken away, so that the chain can be.
    let now = iptables::read(&script.replace(jump, &format!("{narrow}{jump}")));
    let away = iptables::script(&Ruleset::default(), &now);
    assert!(
        away.contains("-D OUTPUT -p tcp -j OUTRIGGER_OUTBOUND\n-D OUTPUT -j OUTRIGGER_OUTBOUND\n-X"),
        "{away}"
    );
}

proptest! {
    #[test]
    fn rules_of_any_options_are_read_back_from_nft(plan in plans()) {
        for family in &plan.families {
            let wanted = Ruleset::new(&plan, *family, None);
            let script = nft::script(&[(*family, wanted.clone())], &[]);
            let found = nft::read(*family, script.split_once("\ndelete").unwrap().1.split_once('\n').unwrap().1);
            prop_assert_eq!(found, Found { rules: wanted, foreign: vec![] });
        }
    }

    #[test]
    fn rules_of_any_options_are_read_back_from_iptables(plan in plans()) {
        for family in &plan.families {
            let wanted = Ruleset::new(&plan, *family, Some(iptables::SLOTS));
            let script = iptables::script(&wanted, &iptables::Saved::default()).replace("-I OUTPUT 1 ", "-A OUTPUT ");
            let read = iptables::read(&script.replace("-I PREROUTING 1 ", "-A PREROUTING ")).found;
            prop_assert_eq!(read, Found { rules: wanted, foreign: vec![] });
        }
    }

    /// Hostile listings break nothing.
    #[test]
    fn any_text_can_be_read(lines in prop::collection::vec("[-A-Za-z0-9_:,.!/{}()#&|= \t*\"]{0,60}", 0..20)) {
        let text = lines.join("\n");
        let _whatever = nft::read(Family::V4, &format!("table ip outrigger {{\nchain outbound {{\n{text}"));
        let _whatever = iptables::read(&format!("*nat\n:OUTRIGGER_OUTBOUND - [0:0]\n{text}"));
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    let ports = || {
        prop::collection::vec((1..=u16::MAX, 0..50u16), 0..20).prop_map(|ranges| {
            Ports::new(
                ranges.into_iter().map(|(first, more)| PortRange { first, last: first.saturating_add(more) }),
            )
        })
    };
    let networks = || {
        prop::collection::vec(
            prop_oneof![
                (any::<[u8; 4]>(), 0..=32u8).prop_map(|(a, p)| Network::holding(a.into(), p).unwrap()),
                (any::<[u8; 16]>(), 0..=128u8).prop_map(|(a, p)| Network::holding(a.into(), p).unwrap()),
            ],
            0..6,
        )
    };
    let owners = prop::collection::vec(
        prop_oneof![any::<u32>().prop_map(Owner::User), any::<u32>().prop_map(Owner::Group),],
        0..4,
    );
    let inbound = prop::sample::select(vec![InboundMode::Redirect, InboundMode::Tproxy, InboundMode::Off]);
    let lists = (ports(), ports(), ports(), ports(), networks(), networks());
    (lists, owners, inbound, prop::option::of(1..=u16::MAX), 1..=u32::MAX, 1..=u16::MAX).prop_map(
        |((sip, oip, sop, oop, son, oon), exempt, inbound, dns, tproxy_mark, port)| Plan {
            families: Family::ALL.to_vec(),
            outbound_port: port,
            inbound_port: port,
            inbound,
            exempt,
            skip_inbound_ports: sip,
            only_inbound_ports: oip,
            skip_outbound_ports: sop,
            only_outbound_ports: oop,
            skip_outbound_networks: son,
            only_outbound_networks: oon,
            dns,
            tproxy_mark,
            tproxy_table: 15_006,
        },
    )
}
