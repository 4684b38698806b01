//! Bytes that nobody looks into, and TLS of the application's own, with really redirected packets: by the virtual address
//! of a service and by the address of one instance.

use std::fs;
use std::path::Path;
use std::process::Command;

use outrigger_testkit::real;

use super::host::{Host, PATIENCE};

#[test]
fn opaque_connections_and_tls_of_the_application_go_by_virtual_address_and_to_one_instance() {
    let (Some(()), Some(host)) = (real::debian(&["openssl"]), Host::new()) else { return };
    host.knows(&[
        "db: { port: 5432, protocol: tcp }",
        "vault: { port: 8443, protocol: tls }",
        "web: { port: 80, protocol: http }",
    ]);
    let place = host.place("seen");
    let [server, client] = [("server.py", SERVER), ("client.py", CLIENT)].map(|(name, script)| {
        let path = place.join(name);
        fs::write(&path, script).unwrap();
        path.display().to_string()
    });
    let fingerprint = certificate(&place);
    let place_text = place.display().to_string();
    let serve = |name: &str, service: &str, port: &str, instances| {
        host.serve(service, port, &["python3", &server, name, port, &place_text], instances)
    };
    let _running =
        [serve("one", "db", "5432", 1), serve("two", "db", "5432", 2), serve("tls", "vault", "8443", 1)];
    let at = |name: &str| fs::read_to_string(place.join(format!("{name}.address"))).unwrap();
    let talks = |name: &str| fs::read(place.join(format!("{name}.talks"))).map_or(0, |seen| seen.len());
    let ask = |calls: &[&str]| {
        let ran = host.run_as("web", &[&["python3", client.as_str()], calls].concat());
        ran.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };

    // To one instance: each raw origin sees the connections that were meant for it, and no other.
    let (one, two) = (format!("tcp {}:5432", at("one")), format!("tcp {}:5432", at("two")));
    let heard = ask(&[&one, &one, &one, &one, &one, &one, &two, &two, &two]);
    let (from_one, from_two) = ("hello from one, stressed", "hello from two, stressed");
    assert_eq!(heard[..9], [[from_one; 6].as_slice(), &[from_two; 3]].concat(), "{heard:?}");
    assert_eq!((talks("one"), talks("two")), (6, 3));
    assert_eq!(heard[9..], ["9 opaque, 0 passed on, 0 denied"], "all of it by way of the mesh");

    // To the service: any of them.
    let service = format!("tcp {}:5432", host.virtual_address("db"));
    let heard = ask(&[&service, &service, &service, &service]);
    assert!(heard[..4].iter().all(|said| said == from_one || said == from_two), "{heard:?}");
    assert_eq!(talks("one") + talks("two"), 9 + 4);
    assert_eq!(heard[4..], ["4 opaque, 0 passed on, 0 denied"]);

    // TLS from end to end: the certificate is the application's own, whatever name was asked for.
    let calls = [host.virtual_address("vault"), at("tls")].map(|ip| format!("tls {ip}:8443"));
    let heard = ask(&[&calls[0], &calls[1]]);
    let said = format!("hello from tls, {fingerprint}");
    assert_eq!(heard, [said.as_str(), said.as_str(), "2 opaque, 0 passed on, 0 denied"]);
    assert_eq!(talks("tls"), 2);
}

/// Where only what is registered may be called, the name in the ClientHello decides; what is behind an unknown address is
/// never seen.
#[test]
fn where_nothing_else_is_let_out_tls_goes_where_its_server_name_says_or_nowhere() {
    let (Some(()), Some(host)) = (real::debian(&["openssl"]), Host::new()) else { return };
    host.knows(&["vault: { port: 8443, protocol: tls }", "web: { port: 80, protocol: http }"]);
    host.lets_out_only_what_is_registered();
    let place = host.place("seen");
    let [server, client] = [("server.py", SERVER), ("client.py", CLIENT)].map(|(name, script)| {
        let path = place.join(name);
        fs::write(&path, script).unwrap();
        path.display().to_string()
    });
    let fingerprint = certificate(&place);
    let command = ["python3", &server, "tls", "8443", &place.display().to_string()];
    let _running = host.serve("vault", "8443", &command, 1);
    let ran = host.run_as(
        "web",
        &[
            "python3",
            &client,
            "tls 198.51.100.7:443 vault.shop.mesh",
            "tls 198.51.100.7:443 nobody.test",
            "tls 198.51.100.7:443 web.shop.mesh",
        ],
    );
    let said = format!("hello from tls, {fingerprint}");
    let heard: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(heard, [said.as_str(), "cut off", "cut off", "1 opaque, 0 passed on, 2 denied"]);
}

/// Makes a certificate of the application's own, and tells how it is known.
fn certificate(place: &Path) -> String {
    let script =
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=vault -keyout key.pem -out cert.pem 2>&1
         chmod 644 key.pem
         openssl x509 -in cert.pem -outform der | sha256sum | cut -c1-64";
    let ran = real::run(Command::new("sh").args(["-ec", script]).current_dir(place), PATIENCE);
    assert!(ran.ok, "{}{}", ran.stdout, ran.stderr);
    ran.stdout.lines().last().unwrap().to_owned()
}

/// Speaks first, hears out its client, answers with what it heard, backwards. Knows nothing of a mesh; whoever only
/// connects, as the sidecar does to see whether it is there, has not talked.
const SERVER: &str = "
import os, socket, ssl, sys, threading
name, port, place = sys.argv[1:]
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
probe.connect(('192.0.2.1', 9))
with open(f'{place}/{name}.address', 'w') as address:
    address.write(probe.getsockname()[0])
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if name == 'tls' else None
if tls:
    tls.load_cert_chain(f'{place}/cert.pem', f'{place}/key.pem')
def serve(stream):
    try:
        if tls:
            stream = tls.wrap_socket(stream, server_side=True)
        stream.sendall(f'hello from {name}\\n'.encode())
        heard = b''
        while part := stream.recv(1000):
            heard += part
            if tls:
                break
        if heard:
            talks = os.open(f'{place}/{name}.talks', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(talks, b'.')
            os.close(talks)
        stream.sendall(heard[::-1])
        stream.close()
    except OSError:
        pass
listener = socket.create_server(('127.0.0.1', int(port)))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
";

/// Talks to each place it is told, and tells what its sidecar counted.
const CLIENT: &str = "
import hashlib, re, socket, ssl, sys, urllib.request
for call in sys.argv[1:]:
    kind, at, name = (call + ' anything.test').split()[:3]
    ip, port = at.split(':')
    stream = socket.create_connection((ip, int(port)), 20)
    stream.settimeout(20)
    if kind == 'tls':
        context = ssl._create_unverified_context()
        try:
            stream = context.wrap_socket(stream, server_hostname=name)
        except OSError:
            print('cut off')
            continue
    said = stream.makefile('rb')
    hello = said.readline().decode().strip()
    stream.sendall(b'desserts')
    if kind == 'tls':
        assert said.read(8) == b'stressed'
        print(f'{hello}, {hashlib.sha256(stream.getpeercert(True)).hexdigest()}')
    else:
        stream.shutdown(socket.SHUT_WR)
        print(f'{hello}, {said.read().decode()}')
metrics = urllib.request.urlopen('http://127.0.0.1:15000/stats/prometheus').read().decode()
def count(name, label=''):
    return sum(int(n) for n in re.findall(rf'^{name}(?:{{[^}}]*{label}[^}}]*}})? (\\d+)$', metrics, re.M))
opaque, passed = count('outrigger_opaque_opened_total'), count('outrigger_passed_on_total')
denied = count('outrigger_refusals_total', 'egress_denied')
print(f'{opaque} opaque, {passed} passed on, {denied} denied')
";
