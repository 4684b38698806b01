//! A node that is played: it runs pods as their specs say, each in a network namespace of its own, its containers with the
//! users, capabilities, read-only roots, mounts and variables that a kubelet would give them, in the order of a kubelet. The node
//! itself is a network namespace, too, in which the test runs once more: see [`on_a_node`].

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use http::StatusCode;
use outrigger_testkit::real::{self, Process};
use outrigger_testkit::{Client, Island, KubernetesApi};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::binary;

/// Where the node is for its pods, whichever address they have.
pub(crate) const NODE: [u8; 4] = [10, 255, 0, 1];

/// Says whether this is a node. If not, runs the test of this name on one and sees it pass, or says why there can be none.
pub(crate) fn on_a_node(test: &str) -> bool {
    if std::env::var_os(ON_NODE).is_some() {
        for line in ["link set lo up", "addr add 10.255.0.1/32 dev lo"] {
            finished(Command::new("ip").args(line.split(' ')));
        }
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        return true;
    }
    if !rustix::process::geteuid().is_root() {
        real::needed::<()>(Err("network namespaces want root".into()));
        return false;
    }
    if real::debian(&["iproute2", "nftables", "util-linux", "python3"]).is_none() {
        return false;
    }
    let own = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "--"]).arg(own).args(["--exact", test, "--nocapture"]).env(ON_NODE, "1");
    let ran = real::run(&mut command, Duration::from_secs(110));
    assert!(ran.ok && ran.stdout.contains("1 passed"), "{}\n{}", ran.stdout, ran.stderr);
    false
}

const ON_NODE: &str = "OUTRIGGER_TEST_ON_NODE";

/// A pod that runs.
pub(crate) struct Pod {
    pub(crate) spec: Value,
    pub(crate) ip: IpAddr,
    island: Island,
    folder: tempfile::TempDir,
    sidecar: Option<Process>,
    application: Option<Process>,
}

impl Pod {
    /// A pod called `name` as `spec` has it, with an address and nothing that runs. Its token is `token`.
    pub(crate) fn place(mut spec: Value, name: &str, server: &KubernetesApi, token: &str) -> Self {
        let island = Island::new().expect("this is a node");
        let ip = IpAddr::from(island.inside);
        let route = ["route", "add", "default", "via", &island.outside.to_string()].map(str::to_owned);
        finished(island.command("ip").args(route));
        spec["metadata"]["name"] = name.into();
        spec["metadata"]["namespace"] = "shop".into();
        spec["metadata"]["uid"] = format!("uid-of-{name}").into();
        spec["spec"]["nodeName"] = "node-1".into();
        spec["status"]["podIP"] = ip.to_string().into();
        spec["status"]["hostIP"] = IpAddr::from(NODE).to_string().into();
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let pod = Self { spec, ip, island, folder, sidecar: None, application: None };
        pod.fill_volumes(server, token);
        pod
    }

    /// Runs it: its initial containers, of which a native sidecar goes on and has to have started; and its application, for
    /// which the Python `script` stands, as a user of its own, with `arguments`. It is ready when its probes say so.
    pub(crate) async fn run(&mut self, script: &str, arguments: &[&str]) {
        for container in list(&self.spec["spec"]["initContainers"]) {
            let mut command = self.command(&container);
            if container["restartPolicy"] == "Always" {
                self.sidecar = Some(Process::spawn(&mut command));
                self.passes("the sidecar has started", &container["startupProbe"]).await;
            } else {
                let ran = real::run(&mut command, Duration::from_secs(60));
                assert!(ran.ok, "{}: {}{}", container["name"], ran.stdout, ran.stderr);
            }
        }
        self.application = Some(Process::spawn(&mut self.python(script, arguments)));
        let all = list(&self.spec["spec"]["containers"])
            .into_iter()
            .chain(list(&self.spec["spec"]["initContainers"]));
        for container in all {
            self.passes("it is ready", &container["readinessProbe"]).await;
        }
    }

    /// Runs a Python script beside its application, as the same user, to its end; what it wrote.
    pub(crate) fn ask(&self, script: &str, arguments: &[&str]) -> Vec<String> {
        let ran = real::run(&mut self.python(script, arguments), Duration::from_secs(60));
        assert!(ran.ok, "{}{}\n{}", ran.stdout, ran.stderr, self.log());
        ran.stdout.lines().map(str::to_owned).collect()
    }

    /// The same, and it goes on.
    pub(crate) fn start(&self, script: &str, arguments: &[&str]) -> Process {
        Process::spawn(&mut self.python(script, arguments))
    }

    /// Ends its containers as a kubelet does: the application first, the native sidecar when that has gone.
    pub(crate) async fn end(&mut self) {
        for process in [&mut self.application, &mut self.sidecar] {
            let process = process.as_mut().expect("it runs");
            kill_process(Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
            let began = Instant::now();
            while process.ended().is_none() {
                assert!(began.elapsed() < Duration::from_secs(30), "it does not end: {}", process.log());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// What its sidecar has written.
    pub(crate) fn log(&self) -> String {
        self.sidecar.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Asks as a kubelet does, until the answer is good.
    async fn passes(&self, what: &str, probe: &Value) {
        let Some(ask) = probe.get("httpGet") else { return };
        let at = SocketAddr::new(self.ip, u16::try_from(ask["port"].as_u64().unwrap()).unwrap());
        let path = ask["path"].as_str().unwrap();
        let (began, mut said) = (Instant::now(), String::new());
        while began.elapsed() < Duration::from_secs(20) {
            if tokio::net::TcpStream::connect(at).await.is_ok()
                && let Ok(reply) = Client::h1(at).await.get("kubelet", path).await
            {
                if reply.status == StatusCode::OK {
                    return;
                }
                said = format!("{} {}", reply.status, reply.text());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not: {what}, {path} says {said}\n{}", self.log());
    }

    fn python(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = self.island.command("setpriv");
        command.args([
            "--reuid=1000",
            "--regid=1000",
            "--clear-groups",
            "--",
            "/usr/bin/python3",
            "-c",
            script,
        ]);
        command.args(arguments);
        command
    }

    /// A container as its spec has it.
    fn command(&self, container: &Value) -> Command {
        let name = container["name"].as_str().unwrap();
        let root = self.folder.path().join("roots").join(name);
        fs::create_dir_all(&root).unwrap();
        let may = &container["securityContext"];
        assert_eq!(may["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(may["capabilities"]["drop"], serde_json::json!(["ALL"]), "{name}");
        let added =
            list(&may["capabilities"]["add"]).into_iter().map(|name| name.as_str().unwrap().to_lowercase());
        let bounding: Vec<_> =
            ["-all".to_owned()].into_iter().chain(added.map(|name| format!("+{name}"))).collect();
        let bounding = bounding.join(",");
        let [user, group] = ["runAsUser", "runAsGroup"].map(|of| may[of].as_u64().unwrap().to_string());
        let mounts = list(&container["volumeMounts"]);
        let mut command = self.island.command("unshare");
        command.args(["--mount", "--propagation", "private", "--", "sh", "-ec", CONTAINER, name]);
        command.arg(&root).arg(binary("outrigger-proxy")).arg(binary("outrigger-init"));
        command.args([&user, &group, &bounding, &mounts.len().to_string()]);
        for mount in mounts {
            let mut from = self.volume(mount["name"].as_str().unwrap());
            if let Some(path) = mount["subPath"].as_str() {
                from = from.join(path);
                fs::create_dir_all(&from).unwrap();
            }
            let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
            command.arg(from).args([mount["mountPath"].as_str().unwrap(), mode]);
        }
        command.args(
            list(&container["command"])
                .iter()
                .chain(&list(&container["args"]))
                .map(|word| word.as_str().unwrap()),
        );
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        for variable in list(&container["env"]) {
            command.env(variable["name"].as_str().unwrap(), self.value(&variable));
        }
        command
    }

    fn value(&self, variable: &Value) -> String {
        if let Some(text) = variable["value"].as_str() {
            return text.replace("$$(", "$(");
        }
        let path = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str().unwrap();
        let at = format!("/{}", path.replace('.', "/"));
        self.spec.pointer(&at).and_then(Value::as_str).unwrap_or_else(|| panic!("no {path}")).to_owned()
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.folder.path().join("volumes").join(name)
    }

    fn fill_volumes(&self, server: &KubernetesApi, token: &str) {
        for volume in list(&self.spec["spec"]["volumes"]) {
            let at = self.volume(volume["name"].as_str().unwrap());
            fs::create_dir_all(&at).unwrap();
            // A kubelet gives it to the pod's group.
            fs::set_permissions(&at, fs::Permissions::from_mode(0o777)).unwrap();
            for source in list(&volume["projected"]["sources"]) {
                let wanted = &source["serviceAccountToken"];
                assert_eq!(wanted["audience"], "outrigger");
                put(&at, &wanted["path"], token);
            }
            for item in list(&volume["downwardAPI"]["items"]) {
                put(&at, &item["path"], "");
            }
            if let Some(map) = volume["configMap"]["name"].as_str() {
                let map = server.get("v1", "ConfigMap", "shop", map).expect("it is there before its pods");
                for item in list(&volume["configMap"]["items"]) {
                    put(&at, &item["path"], map["data"][item["key"].as_str().unwrap()].as_str().unwrap());
                }
            }
        }
    }
}

fn put(folder: &Path, name: &Value, text: &str) {
    fs::write(folder.join(name.as_str().unwrap()), text).unwrap();
}

fn list(of: &Value) -> Vec<Value> {
    of.as_array().cloned().unwrap_or_default()
}

fn finished(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A root with the two programs of the image and what programs that are not static need, in which nothing can be written but in
/// volumes; and the command in it, as its user, with no more than its capabilities.
const CONTAINER: &str = r#"
root=$1 proxy=$2 init=$3 user=$4 group=$5 bounding=$6 mounts=$7
shift 7
chmod 755 "$root"
mount --bind "$root" "$root"
for place in usr lib lib64 bin sbin proc dev; do
    if [ -L /$place ]; then cp -P /$place "$root/"
    elif [ -d /$place ]; then mkdir -p "$root/$place" && mount --rbind /$place "$root/$place"
    fi
done
touch "$root/outrigger-proxy" "$root/outrigger-init"
mount --bind "$proxy" "$root/outrigger-proxy"
mount --bind "$init" "$root/outrigger-init"
while [ "$mounts" -gt 0 ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    [ "$3" = rw ] || mount -o remount,bind,ro "$root$2"
    shift 3
    mounts=$((mounts - 1))
done
mount -o remount,bind,ro "$root"
exec chroot "$root" /usr/bin/setpriv --reuid="$user" --regid="$group" --clear-groups --no-new-privs \
    --inh-caps=-all --bounding-set="$bounding" -- "$@"
"#;
