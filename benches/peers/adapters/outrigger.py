"""Outrigger: two sidecars without a control plane, each from a plan made by `outrigger compile`, identities from
files. Everything a mesh uses is on: retries and their budget armed, deadlines, balancing, metrics, reports.

`outrigger-all` has besides what a policy can ask of resilience, with limits that nothing meets. `outrigger-identity` has an
access policy, and verifies the token that each request brings (`--token`). `outrigger-before` is another build, of the commit
before a change, to be counted in the same run: OUTRIGGER_BEFORE_DIR."""
import os
import subprocess
from pathlib import Path

from meshbench import token

from .base import Adapter, Spec

SERVICE = """
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {{name: server, namespace: default}}
spec:
  ports: [{{port: 80, protocol: {app}}}]
  identities: ["spiffe://bench.local/ns/default/sa/server"]
  between: {between}
  mtls: {mtls}
---
apiVersion: outrigger.dev/v1alpha1
kind: Instance
metadata: {{name: server-1, namespace: default}}
spec:
  service: server
  address: 127.0.0.1
  ports: [{{port: 80, listen: {listen}}}]
  transport: {transport}
"""

ALL = """---
apiVersion: outrigger.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: server, namespace: default}
spec:
  targetRef: {group: outrigger.dev, kind: MeshService, name: server}
  timeouts: {request: 15s, perTry: 5s}
  retry: {retries: 2}
  balance: {algorithm: peakEwma}
  endpointBreaker: {consecutiveFailures: 5, failureRatio: {percent: 50}, slowCalls: {over: 30s, percent: 80}}
  serviceBreaker: {mode: auto, failureRatio: {percent: 50}}
  bulkhead:
    maxInFlight: 1000
    endpoint: {maxInFlight: 500}
    caller: {maxInFlight: 1000, maxQueue: 10, queueTimeout: 200ms}
  rateLimits:
    - {name: whole, requests: 1000000, per: 1s}
    - {name: each-caller, by: caller, requests: 1000000, per: 1s}
"""

IDENTITY = """---
apiVersion: outrigger.dev/v1alpha1
kind: AccessPolicy
metadata: {{name: readers, namespace: default}}
spec:
  targetRefs: [{{group: outrigger.dev, kind: MeshService, name: server}}]
  action: allow
  rules:
    - {{name: others, from: [{{serviceAccount: cart}}, {{serviceAccount: web}}], methods: [GET, POST], paths: [{{prefix: /items}}]}}
    - {{name: client, from: [{{serviceAccount: client}}], methods: [GET], paths: [{{prefix: /}}]}}
---
apiVersion: outrigger.dev/v1alpha1
kind: AccessPolicy
metadata: {{name: no-secrets, namespace: default}}
spec:
  targetRefs: [{{group: outrigger.dev, kind: MeshService, name: server}}]
  action: deny
  rules: [{{paths: [{{prefix: /secrets}}]}}]
---
apiVersion: outrigger.dev/v1alpha1
kind: TokenPolicy
metadata: {{name: users, namespace: default}}
spec:
  targetRefs: [{{kind: MeshService, name: server}}]
  issuers:
    - {{name: login, issuer: "{issuer}", audiences: [bench], jwks: {{inline: '{jwks}'}}}}
"""


class Outrigger(Adapter):
    name = "outrigger"
    scenarios = ("h1-plain", "h2-plain", "tcp-plain", "h1-mtls", "h1up-mtls", "h2-mtls", "tcp-mtls")

    def bin(self, name):
        return str(Path(os.environ.get("OUTRIGGER_BIN_DIR", "../../target/dist")) / name)

    def binary(self):
        return self.bin("outrigger-proxy")

    def version(self):
        return subprocess.run([self.binary(), "--version"], capture_output=True, text=True).stdout.split()[-1]

    def _plan(self, ctx, role, listen, plain):
        s = ctx.scenario
        text = SERVICE.format(
            app={"h2": "http2", "tcp": "tcp"}.get(s.app_proto, "http"),
            between={"h1": "http1", "h2": "http2"}.get(s.mesh_proto, "auto"),
            mtls="off" if plain else "strict",
            transport="plaintext" if plain else "mesh",
            listen=listen,
        ) + self.policy(ctx)
        source, plan = ctx.workdir / f"{role}.yaml", ctx.workdir / f"{role}.plan"
        source.write_text(text)
        subprocess.run([self.bin("outrigger"), "compile", "--trust-domain", "bench.local",
                        "-f", str(source), "-o", str(plan)], check=True, stdout=subprocess.DEVNULL)
        return ["--plan", str(plan), "--workers", "1", "--log", "warn"]

    def policy(self, ctx):
        """What is asked for beyond the defaults."""
        return ""

    def _identity(self, ctx, who):
        c = ctx.certs
        return ["--trust-domain", "bench.local", "--identity-cert", str(c / f"{who}.pem"),
                "--identity-key", str(c / f"{who}.key"), "--identity-roots", str(c / "ca.pem")]

    def _proxy(self, ctx, role, account, admin, extra):
        return [self.binary(), "--namespace", "default", "--service-account", account,
                "--data", str(ctx.workdir / f"{role}-data"), "--admin", f"127.0.0.1:{admin}", *extra]

    def _listen(self, ctx, port):
        """Opaque connections name no service: they come to a port that stands for one."""
        if ctx.scenario.client_proto == "tcp":
            return ["--outbound", "127.0.0.1:0", "--upstream", f"server={port}"]
        return ["--outbound", f"127.0.0.1:{port}"]

    def single(self, ctx):
        p = ctx.ports
        argv = self._proxy(ctx, "single", "client", p.admin_single,
                           [*self._listen(ctx, p.single), *self._identity(ctx, "client"),
                            *self._plan(ctx, "single", ctx.app_port, True)])
        return Spec(argv, p.single)

    def outbound(self, ctx):
        p = ctx.ports
        argv = self._proxy(ctx, "outbound", "client", p.admin_out,
                           [*self._listen(ctx, p.outbound), *self._identity(ctx, "client"),
                            *self._plan(ctx, "outbound", p.inbound, False)])
        return Spec(argv, p.outbound)

    def inbound(self, ctx):
        p = ctx.ports
        argv = self._proxy(ctx, "inbound", "server", p.admin_in,
                           ["--service", "server", "--port", str(ctx.app_port),
                            "--inbound", f"127.0.0.1:{p.inbound}", "--outbound", f"127.0.0.1:{p.extra}",
                            *self._identity(ctx, "server"), *self._plan(ctx, "inbound", p.inbound, False)])
        return Spec(argv, p.inbound)


class All(Outrigger):
    name = "outrigger-all"

    def policy(self, ctx):
        return ALL


class Identity(Outrigger):
    name = "outrigger-identity"

    def policy(self, ctx):
        return IDENTITY.format(issuer=token.ISSUER, jwks=token.ensure(ctx.certs))


class Before(Outrigger):
    name = "outrigger-before"

    def bin(self, name):
        return str(Path(os.environ["OUTRIGGER_BEFORE_DIR"]) / name)


class Observed(Outrigger):
    """With what it is asked to tell while it works; the flags are given by benches/observability/compare."""
    name = "outrigger-observed"

    def _proxy(self, ctx, role, account, admin, extra):
        more = os.environ.get("OUTRIGGER_OBSERVED", "").split()
        return [*super()._proxy(ctx, role, account, admin, extra), *more]


ADAPTERS = [Outrigger(), All(), Identity(), Observed(), *([Before()] if "OUTRIGGER_BEFORE_DIR" in os.environ else [])]
