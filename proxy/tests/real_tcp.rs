//! Real servers and clients of opaque protocols through two sidecars.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use outrigger_mesh::{Endpoint, EndpointPort, Port, PortNumber, Protocol, Resource, Service};
use outrigger_testkit::real::{Process, Ran, debian, free_port, needed, run};
use outrigger_testkit::resources;
use support::{Mesh, Sidecar};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Two sidecars with `app` behind them as the service `shop/db`; the address where the client's application calls.
fn carried(port: u16, protocol: Protocol, app: SocketAddr) -> (SocketAddr, [Sidecar; 2]) {
    let mesh = Mesh::new();
    let number = PortNumber::new(port).unwrap();
    let service = Service { ports: vec![Port { number, protocol }], ..resources::service("shop/db") };
    let server = mesh.server("shop/db", app);
    server.set(Resource::Inbound(resources::inbound(&resources::identity("shop", "db"), &[&service])));
    let client = mesh.client_with(&["db"], 1);
    let listen = PortNumber::new(server.inbound.unwrap().port()).unwrap();
    let ports = [EndpointPort::direct(number, listen)].into();
    client.knows(service, [Endpoint { ports, ..server.endpoint("shop/db", "i-1") }]);
    (client.upstreams[0], [client, server])
}

/// Runs `command` beside the test.
async fn ran(mut command: Command) -> Ran {
    tokio::task::spawn_blocking(move || run(&mut command, Duration::from_secs(30))).await.unwrap()
}

#[tokio::test]
async fn redis_serves_values_pipelines_and_subscribers() {
    if debian(&["redis-server", "redis-tools"]).is_none() {
        return;
    }
    let at = free_port();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("redis-server");
    command.args(["--port", &at.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
    let _redis = Process::spawn(command.arg(folder.path())).listens_at(at);
    let (through, _sidecars) = carried(6379, Protocol::Tcp, at);
    let cli = |script: &str| {
        let mut command = Command::new("bash");
        let program = format!("redis-cli -h 127.0.0.1 -p {}", through.port());
        command.args(["-c", &script.replace("CLI", &program)]);
        command
    };
    let got = ran(cli("CLI SET greeting hello; CLI GET greeting")).await;
    assert_eq!(got.stdout, "OK\nhello\n", "{}", got.stderr);
    let got = ran(cli("for i in $(seq 5000); do echo SET k$i $i; done | CLI --pipe; CLI DBSIZE")).await;
    assert!(
        got.stdout.contains("errors: 0, replies: 5000") && got.stdout.ends_with("5001\n"),
        "{}",
        got.stdout
    );
    let got = ran(cli(
        "head -c 10485760 /dev/zero | tr '\\0' x | CLI -x SET big; CLI STRLEN big; CLI GET big | wc -c",
    ))
    .await;
    assert_eq!(got.stdout, "OK\n10485760\n10485761\n", "{}", got.stderr);
    let script = "(timeout 5 CLI SUBSCRIBE news & sleep 1; CLI PUBLISH news extra; sleep 0.3; kill %1) 2>&1";
    let got = ran(cli(script)).await;
    assert!(got.stdout.contains("extra"), "{}", got.stdout);
}

#[tokio::test]
async fn postgresql_serves_in_plaintext_and_under_tls_of_its_own() {
    if debian(&["postgresql", "postgresql-client", "openssl"]).is_none() {
        return;
    }
    let Some(bin) = needed(programs()) else { return };
    // The server refuses to be root, and the folder of a test is its owner's alone.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let data = folder.path().join("data");
    let at = free_port();
    let set_up = format!(
        "set -e; cd /; mkdir {data}; chown postgres {data}; runuser -u postgres -- {bin}/initdb -D {data} -A trust -N >/dev/null
         openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=db -keyout {data}/server.key -out {data}/server.crt 2>/dev/null
         chown postgres {data}/server.key {data}/server.crt; chmod 600 {data}/server.key
         printf \"ssl = on\\nport = {port}\\nlisten_addresses = '127.0.0.1'\\nunix_socket_directories = '{data}'\\nfsync = off\\n\" >> {data}/postgresql.conf",
        data = data.display(), port = at.port(),
    );
    let mut command = Command::new("bash");
    command.args(["-c", &set_up]);
    let got = ran(command).await;
    assert!(got.ok, "{}{}", got.stdout, got.stderr);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL", "--"]);
    command.arg(format!("{bin}/postgres")).arg("-D").arg(&data).current_dir("/");
    let _server = Process::spawn(&mut command).listens_at(at);
    let (through, _sidecars) = carried(5432, Protocol::Detect, at);
    for (mode, tls) in [("disable", "f"), ("require", "t")] {
        let mut command = Command::new("psql");
        let place = format!("host=127.0.0.1 port={} user=postgres sslmode={mode}", through.port());
        let asked =
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid(); SELECT length(repeat('x', 3000000));";
        command.args([&place, "-AtX", "-c", asked]).current_dir("/");
        let got = ran(command).await;
        assert_eq!(got.stdout, format!("{tls}\n3000000\n"), "{mode}: {}", got.stderr);
    }
}

/// Where Debian keeps the programs of PostgreSQL.
fn programs() -> Result<String, String> {
    let folders = std::fs::read_dir("/usr/lib/postgresql").map_err(|e| format!("postgresql: {e}"))?;
    let found = folders
        .flatten()
        .map(|f| f.path().join("bin"))
        .find(|f: &std::path::PathBuf| f.join("initdb").exists());
    let root = Path::new("/usr/sbin/runuser").exists() && rustix::process::geteuid().is_root();
    match found {
        Some(bin) if root => Ok(bin.display().to_string()),
        Some(_) => Err("postgresql needs a user of its own, which only root can give it".into()),
        None => Err("postgresql has no initdb".into()),
    }
}

#[tokio::test]
async fn nats_speaks_first_also_at_a_port_that_nobody_declared() {
    if debian(&["nats-server"]).is_none() {
        return;
    }
    let at = free_port();
    let mut command = Command::new("nats-server");
    command.args(["-a", "127.0.0.1", "-p", &at.port().to_string()]);
    let _nats = Process::spawn(&mut command).listens_at(at);
    for protocol in [Protocol::Tcp, Protocol::Detect] {
        let (through, _sidecars) = carried(4222, protocol, at);
        let talk = async {
            let mut lines = BufReader::new(TcpStream::connect(through).await.unwrap()).lines();
            assert!(lines.next_line().await.unwrap().unwrap().starts_with("INFO {"));
            let said = b"CONNECT {\"verbose\":false}\r\nSUB news 1\r\nPUB news 5\r\nhello\r\nPING\r\n";
            lines.get_mut().write_all(said).await.unwrap();
            let mut heard = Vec::new();
            while heard.last().map(String::as_str) != Some("PONG") {
                heard.push(lines.next_line().await.unwrap().unwrap());
            }
            assert_eq!(heard, ["MSG news 1 5", "hello", "PONG"]);
        };
        tokio::time::timeout(Duration::from_secs(10), talk).await.unwrap();
    }
}
