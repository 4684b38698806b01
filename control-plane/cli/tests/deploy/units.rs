//! Units of systemd: judged by systemd's own tools, which only read them, and their commands run with their settings and users,
//! in the order in which systemd would.
//!
//! Deliberately not here: a systemd that runs. As a first process it takes itself for the machine's, and cleans up accordingly.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outrigger_testkit::real;

use crate::guide::{alone, namespaces};
use crate::stage::{PATIENCE, programs, root, text};

const UNITS: [&str; 4] = [
    "outrigger-control.service",
    "outrigger-proxy@.service",
    "outrigger-withdraw@.service",
    "outrigger-redirect.service",
];

#[test]
fn systemd_understands_every_line_of_the_units() {
    let Some(()) = real::debian(&["systemd"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let commands = programs();
    for unit in UNITS {
        let text = text(&format!("deploy/systemd/{unit}"))
            .replace("/usr/local/bin", &commands.display().to_string());
        fs::write(folder.path().join(unit), text).unwrap();
    }
    // An application with its drop-in, so that the two templates have an instance that somebody wants.
    fs::write(folder.path().join("cart.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
    let drop_in = folder.path().join("cart.service.d");
    fs::create_dir(&drop_in).unwrap();
    fs::write(drop_in.join("outrigger.conf"), text("deploy/systemd/application.conf")).unwrap();
    let verify = |unit: &str| {
        let mut command = Command::new("systemd-analyze");
        command
            .args(["verify", "--man=no", "--recursive-errors=no", unit])
            .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display()));
        real::run(&mut command, PATIENCE)
    };
    for unit in [
        "outrigger-control.service",
        "outrigger-redirect.service",
        "outrigger-proxy@cart.service",
        "outrigger-withdraw@cart.service",
        "cart.service",
    ] {
        let ran = verify(unit);
        assert!(ran.ok && ran.stderr.is_empty(), "{unit}: {}", ran.stderr);
    }
    // And it would tell.
    fs::write(folder.path().join("typo.service"), "[Service]\nExecStart=/bin/true\nNoNewPrivilege=yes\n")
        .unwrap();
    assert!(verify("typo.service").stderr.contains("NoNewPrivilege"));
}

#[test]
fn the_units_give_up_what_they_do_not_need() {
    let Some(()) = real::debian(&["systemd"]) else { return };
    // The exposure as systemd counts it, in tenths: 0 is a sandbox of stone, 96 a program without any.
    for (unit, most) in UNITS.into_iter().zip([15, 16, 8, 26]) {
        let path = root().join("deploy/systemd").join(unit);
        let threshold = format!("--threshold={most}");
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", &threshold, "--no-pager"]).arg(&path);
        let ran = real::run(&mut command, PATIENCE);
        assert!(
            ran.ok,
            "{unit} is more exposed than {most}: {}",
            ran.stdout.lines().last().unwrap_or_default()
        );
    }
}

#[test]
fn every_setting_in_the_files_is_one_that_the_program_has() {
    for (file, program, sub) in [
        ("control.env", "outrigger-control", None),
        ("proxy.env", "outrigger-proxy", None),
        ("redirect.env", "outrigger-init", Some("apply")),
    ] {
        let mut command = Command::new(programs().join(program));
        let help = real::run(command.args(sub).arg("--help"), PATIENCE).stdout;
        let known: BTreeSet<&str> =
            help.split("[env: ").skip(1).filter_map(|rest| rest.split('=').next()).collect();
        let text = text(&format!("deploy/systemd/{file}"));
        let said: Vec<&str> = text
            .lines()
            .filter_map(|l| l.trim_start_matches('#').split_once('='))
            .map(|(name, _)| name)
            .filter(|n| n.starts_with("OUTRIGGER_"))
            .collect();
        assert!(said.len() >= 4, "{file}: {said:?}");
        for name in said {
            assert!(known.contains(name), "{file}: {program} has no {name}; it has {known:?}");
        }
    }
}

#[test]
fn the_users_are_those_that_units_and_redirection_name() {
    let users = text("deploy/systemd/sysusers.conf");
    for unit in UNITS {
        let unit = text(&format!("deploy/systemd/{unit}"));
        if let Some(user) = unit.lines().find_map(|l| l.strip_prefix("User=")) {
            assert!(users.contains(&format!("u {user} ")), "{user}");
        }
    }
    let line = users.lines().find(|l| l.starts_with("u outrigger-proxy")).unwrap();
    let number = line.split_whitespace().nth(2).unwrap();
    let mut print = Command::new(programs().join("outrigger-init"));
    let help = real::run(print.args(["apply", "--help"]), PATIENCE).stdout;
    let told = help.split("--proxy-uid").nth(1).unwrap().split("[default: ").nth(1).unwrap();
    assert!(told.starts_with(&format!("{number}]")), "{number}: {told:.20}");
}

#[test]
fn the_commands_of_the_units_make_a_mesh_and_end_it_in_order() {
    let Some(()) = real::debian(&["curl", "iproute2", "nftables", "python3", "util-linux"]) else { return };
    let Some(()) = real::needed(namespaces()) else { return };
    let place = Place::new();
    let control = place.unit("outrigger-control.service", "");
    let proxy = place.unit("outrigger-proxy@.service", "hello");
    let withdraw = place.unit("outrigger-withdraw@.service", "hello");
    let redirect = place.unit("outrigger-redirect.service", "");
    let at = place.folder.path().display().to_string();
    let script = format!(
        r#"set -euo pipefail
export PATH={at}/bin:$PATH HOME={at}

{control_start} > {at}/control.log 2>&1 &
control=$!
timeout 20 {control_post}
outrigger apply -f {at}/examples/hello.yaml
outrigger certs join-token --namespace default --service-account hello > {at}/etc/hello.token
chown 15001 {at}/etc/hello.token; chmod 600 {at}/etc/hello.token

{proxy_start} > {at}/proxy.log 2>&1 &
proxy=$!
timeout 20 {proxy_post}
setpriv --reuid=65534 --clear-groups /usr/bin/python3 -m http.server --bind 127.0.0.1 --directory {at}/examples 8000 > {at}/hello.log 2>&1 &
hello=$!
until curl -sf -o {at}/direct http://127.0.0.1:8000/hello.yaml; do sleep 0.1; done
until outrigger get instances | grep -q hello-; do sleep 0.1; done
ask() {{ outrigger run --service me -- sh -c 'curl -s -o /dev/null -w "%{{http_code}}" -H "Host: hello" "http://$OUTRIGGER_OUTBOUND/hello.yaml"' 2>/dev/null; }}
echo "served $(ask)"
stat -c 'kept %U %a' {at}/lib-proxy/hello/admin.sock

{withdraw_start}
{withdraw_stop}
echo "withdrawn: $(outrigger get instances 2>&1)"
echo "asked then $(ask)"
kill -0 $proxy && echo "the sidecar is there"
curl -sf -o /dev/null http://127.0.0.1:8000/hello.yaml && echo "the application serves"
kill $hello; wait $hello || true
{withdraw_stop}
kill $proxy; wait $proxy; echo "sidecar ended $?"
kill $control; wait $control; echo "control plane ended $?"
{withdraw_stop}
echo "a sidecar that is gone holds up nothing"

{redirect_start}
outrigger-init check --skip-inbound-ports 22 && echo "redirected"
{redirect_stop}
nft list ruleset | grep -c outrigger || echo "nothing is left"
"#,
        control_start = control.command("ExecStart"),
        control_post = control.command("ExecStartPost"),
        proxy_start = proxy.command("ExecStart"),
        proxy_post = proxy.command("ExecStartPost"),
        withdraw_start = withdraw.command("ExecStart"),
        withdraw_stop = withdraw.command("ExecStop"),
        redirect_start = redirect.command("ExecStart"),
        redirect_stop = redirect.command("ExecStop"),
    );
    let file = place.folder.path().join("units.sh");
    fs::write(&file, script).unwrap();
    let mut shell = alone(&format!("exec timeout -k 2 50 bash {}", file.display()));
    let ran = real::run(shell.stdin(Stdio::null()), PATIENCE * 2);
    let logs = ["control", "proxy"].map(|l| fs::read_to_string(place.folder.path().join(format!("{l}.log"))));
    assert!(ran.ok, "{}{}{logs:?}", ran.stdout, ran.stderr);
    for told in [
        "served 200",
        "withdrawn: no instances in namespace default",
        "asked then 503",
        "the sidecar is there",
        "the application serves",
        "sidecar ended 0",
        "control plane ended 0",
        "a sidecar that is gone holds up nothing",
        "redirected",
        "nothing is left",
    ] {
        assert!(ran.stdout.lines().any(|l| l == told), "{told}: {}{}", ran.stdout, ran.stderr);
    }
    assert!(ran.stdout.contains("kept "), "{}", ran.stdout);
}

/// Where the files of the units lie, in place of the folders of a machine.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["bin", "etc"] {
            fs::create_dir(at.join(name)).unwrap();
        }
        // Other users can not reach into every folder in which somebody builds.
        for program in ["outrigger", "outrigger-control", "outrigger-proxy", "outrigger-init"] {
            fs::copy(programs().join(program), at.join("bin").join(program)).unwrap();
        }
        fs::create_dir(at.join("examples")).unwrap();
        fs::copy(root().join("examples/hello.yaml"), at.join("examples/hello.yaml")).unwrap();
        let place = Self { folder };
        place.setting("control.env", "control.env", &[]);
        place.setting("proxy.env", "proxy-hello.env", &[("cart", "hello"), ("8080", "8000")]);
        place.setting("redirect.env", "redirect.env", &[]);
        place
    }

    /// A file of settings as it is shipped, changed as the page says.
    fn setting(&self, shipped: &str, name: &str, changes: &[(&str, &str)]) {
        let mut text = text(&format!("deploy/systemd/{shipped}"));
        for (from, to) in changes {
            text = text.replace(from, to);
        }
        fs::write(self.folder.path().join("etc").join(name), self.moved(&text)).unwrap();
    }

    fn moved(&self, text: &str) -> String {
        let at = self.folder.path().display();
        let folders = [
            ("/usr/local/bin/", "bin/"),
            ("/etc/outrigger/", "etc/"),
            ("/var/lib/outrigger-proxy", "lib-proxy"),
            ("/var/lib/outrigger", "lib-control"),
            ("/run/outrigger-proxy", "run-proxy"),
            ("/run/outrigger", "run-control"),
        ];
        folders.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, &format!("{at}/{to}")))
    }

    fn unit(&self, name: &str, instance: &str) -> Unit {
        let text = self.moved(&text(&format!("deploy/systemd/{name}")).replace("%i", instance));
        let value = |line: &str| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        let lines: Vec<(String, String)> =
            text.lines().filter(|l| !l.starts_with('#')).filter_map(value).collect();
        let unit = Unit { lines, place: self.folder.path().to_path_buf() };
        unit.make_folders();
        unit
    }
}

/// A unit, as far as systemd would start its commands by it.
struct Unit {
    lines: Vec<(String, String)>,
    place: PathBuf,
}

impl Unit {
    fn all(&self, key: &str) -> Vec<&str> {
        self.lines.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect()
    }

    fn user(&self) -> Option<u32> {
        match self.all("User")[..] {
            ["outrigger-proxy"] => Some(15001),
            ["outrigger-control"] => Some(15010),
            [] => None,
            ref other => panic!("{other:?}"),
        }
    }

    /// State and runtime folders, of the unit's user.
    fn make_folders(&self) {
        let owner = self.user();
        let own = |path: &Path| {
            fs::create_dir_all(path).unwrap();
            std::os::unix::fs::chown(path, owner, owner).unwrap();
        };
        for (key, proxy, other) in
            [("StateDirectory", "lib-proxy", "lib-control"), ("RuntimeDirectory", "run-proxy", "run-control")]
        {
            for name in self.all(key) {
                let (unit, instance) = name.split_once('/').unwrap_or((name, ""));
                let folder = if unit == "outrigger" { other } else { proxy };
                own(&self.place.join(folder));
                own(&self.place.join(folder).join(instance));
            }
        }
    }

    /// A command of the unit for a shell, with nothing of the shell's environment but the path.
    fn command(&self, key: &str) -> String {
        let [line] = self.all(key)[..] else { panic!("one {key}") };
        let mut settings: Vec<String> = self.all("Environment").iter().map(|s| format!("'{s}'")).collect();
        for file in self.all("EnvironmentFile") {
            let text = fs::read_to_string(file).unwrap();
            let said = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
            settings.extend(said.map(|l| format!("'{l}'")));
        }
        let runtime = self.place.join("run-proxy/hello");
        settings.push(format!("RUNTIME_DIRECTORY='{}'", runtime.display()));
        let user = match self.user() {
            Some(user) => {
                format!("--reuid={user} --regid={user} --clear-groups --bounding-set=-all --inh-caps=-all")
            }
            None => "--bounding-set=-all,+net_admin,+net_raw".into(),
        };
        format!("env -i PATH=\"$PATH\" {} setpriv --no-new-privs {user} -- {line}", settings.join(" "))
    }
}
