"""Starts a proxy before three origins, with the configuration that lies here, at ports of the system's choice."""
import glob
import json
import os
import re
import string
import subprocess
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Proxy:
    """A started proxy; `port` is where it takes requests. Stopped by its own process id."""

    def __init__(self, folder, ports):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ports = {f"port{n}": port for n, port in enumerate(ports)}
        self.process = None
        try:
            self.process = self.start()
            self.port = self.wait()
        except BaseException:
            self.stop()
            raise

    def fill(self, name):
        """A file of this folder, with the ports of the origins in it."""
        text = string.Template((HERE / name).read_text()).substitute(self.ports)
        path = self.folder / name
        path.write_text(text)
        return path

    def run(self, argv):
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def until(self, look, what):
        end = time.monotonic() + 20
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if got := look():
                    return got
            except (OSError, ValueError, KeyError, IndexError):
                pass
            time.sleep(0.05)
        raise RuntimeError(f"{self.name}: {what}; see {self.folder}/log")

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Outrigger(Proxy):
    name, source = "outrigger", "mesh.yaml"

    @staticmethod
    def binary(name="outrigger-proxy"):
        return str(Path(os.environ.get("OUTRIGGER_BIN_DIR", ROOT / "target/debug")) / name)

    @classmethod
    def version(cls):
        return subprocess.run([cls.binary("outrigger"), "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]

    def start(self):
        plan, certs = self.folder / "plan", identity(self.folder)
        subprocess.run([self.binary("outrigger"), "compile", "--trust-domain", "bench.local",
                        "-f", str(self.fill(self.source)), "-o", str(plan)], check=True, stdout=subprocess.DEVNULL)
        self.ready = self.folder / "ready.json"
        self.ready.unlink(missing_ok=True)
        return self.run([
            self.binary(), "--namespace", "default", "--service-account", "client", "--plan", str(plan),
            "--trust-domain", "bench.local", "--identity-cert", str(certs / "client.pem"),
            "--identity-key", str(certs / "client.key"), "--identity-roots", str(certs / "ca.pem"),
            "--data", str(self.folder / "data"), "--outbound", "127.0.0.1:0", "--admin", "127.0.0.1:0",
            "--workers", "1", "--log", "warn", "--ready-file", str(self.ready)])

    def wait(self):
        ready = self.until(lambda: json.loads(self.ready.read_text()), "does not get ready")
        return int(ready["outbound"].rsplit(":", 1)[1])


class OutriggerAuto(Outrigger):
    """With the service breaker switched from observing to acting."""
    name, source = "outrigger, service breaker auto", "mesh-auto.yaml"


class Envoy(Proxy):
    name, source = "envoy", "envoy.yaml"

    @staticmethod
    def binary():
        found = os.environ.get("ENVOY") or next(iter(glob.glob(
            str(ROOT / "target/resilience/venv/lib/python3*/site-packages/envoy/_bin/envoy"))), None)
        if not found:
            raise SystemExit("no Envoy: run benches/resilience/compare, or set ENVOY")
        return found

    @classmethod
    def version(cls):
        out = subprocess.run([cls.binary(), "--version"], capture_output=True, text=True, check=True).stdout
        return re.search(r"/(\d+\.\d+\.\d+)/", out).group(1)

    def start(self):
        self.admin = self.folder / "admin"
        self.admin.unlink(missing_ok=True)
        return self.run([self.binary(), "-c", str(self.fill(self.source)), "--concurrency", "1",
                         "--disable-hot-restart", "-l", "warn", "--admin-address-path", str(self.admin)])

    def wait(self):
        def port():
            url = f"http://{self.admin.read_text().strip()}/listeners?format=json"
            with urllib.request.urlopen(url, timeout=2) as answer:
                told = json.load(answer)["listener_statuses"]
            return told[0]["local_address"]["socket_address"]["port_value"]
        return self.until(port, "does not listen")


def identity(folder):
    """A throw-away identity: the sidecar wants one though this hop is plaintext."""
    certs = folder / "certs"
    if (certs / "client.pem").exists():
        return certs
    certs.mkdir(parents=True, exist_ok=True)

    def openssl(*argv):
        subprocess.run(["openssl", *argv], check=True, cwd=certs, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    for who in ("ca", "client"):
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{who}.key")
    openssl("req", "-x509", "-new", "-key", "ca.key", "-days", "2", "-subj", "/CN=bench", "-out", "ca.pem",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl("req", "-new", "-key", "client.key", "-subj", "/CN=client", "-out", "client.csr")
    (certs / "client.ext").write_text(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
        "subjectAltName=URI:spiffe://bench.local/ns/default/sa/client\n")
    openssl("x509", "-req", "-in", "client.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "client.ext", "-out", "client.pem")
    return certs
