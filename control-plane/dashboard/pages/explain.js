// What would become of a request: its route, where it goes, and what access policies say of it.

import { change } from "../lib/api.js";
import { account, percent } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { link } from "../lib/route.js";
import { Card, Facts, Problem, State, Table } from "../lib/ui.js";

export function Explain({ query }) {
  const [told, setTold] = useState(null);
  const [error, setError] = useState(null);
  const ask = async (event) => {
    event.preventDefault();
    const said = Object.fromEntries(new FormData(event.target));
    setError(null);
    try {
      setTold(await change("POST", "/v1/explain", described(said), ""));
    } catch (refused) {
      setTold(null);
      setError(refused.problem ? refused : { problem: { title: "Not sent", detail: refused.message } });
    }
  };
  return html`<h1>Explain</h1>
    <p class="muted">Nothing is sent to the service: the control plane decides as its sidecars do.</p>
    <form class="card" onSubmit=${ask}>
      <div class="form">
        <label>Method<input name="method" defaultValue="GET" size="8" required /></label>
        <label>Host<input name="host" defaultValue=${query.get("host") ?? ""} placeholder="cart.shop" required /></label>
        <label class="wide">Path<input name="path" defaultValue=${query.get("path") ?? "/"} required /></label>
        <label>Caller<input name="from" defaultValue=${query.get("from") ?? ""} placeholder="shop/web, or nobody" /></label>
      </div>
      <div class="form">
        <label class="wide">Headers, one a line<textarea name="headers" rows="2" placeholder="x-user: ada"></textarea></label>
        <label class="wide">Claims of the user's token, as JSON<textarea name="claims" rows="2" placeholder='{"role": "tester"}'></textarea></label>
      </div>
      <div class="acts"><button class="strong">Explain</button></div>
    </form>
    <${Problem} error=${error} />
    ${told && html`<${Told} of=${told} />`}`;
}

function described({ method, host, path, from, headers, claims }) {
  const pairs = headers.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
    const at = line.indexOf(":");
    if (at < 1) throw new Error(`write a header as name: value, not ${line}`);
    return [line.slice(0, at).trim(), line.slice(at + 1).trim()];
  });
  const said = { method: method.trim(), host: host.trim(), path, headers: pairs };
  if (from.trim()) said.from = from.trim();
  if (claims.trim()) {
    try {
      said.claims = JSON.parse(claims);
    } catch {
      throw new Error("the claims are not JSON");
    }
  }
  return said;
}

function Told({ of }) {
  const { route, access = [], refused, unknown, policy } = of;
  const denied = access.find((one) => one.decision === "denied");
  const verdict = refused ? ["bad", "refused"] : denied ? ["bad", "denied"] : unknown ? ["warn", "not known"] : ["ok", "let through"];
  return html`<${Card} title="What becomes of it" id="told">
    <div class="title"><${State} kind=${verdict[0]}>${verdict[1]}</${State}> <span>${refused ? html`<code>${refused.reason}</code> ${refused.why}` : denied?.why ?? unknown?.why ?? ""}</span></div>
    <${Facts} of=${[
      ["Caller", of.caller ? account(of.caller) : "unauthenticated"],
      ["Service", of.service ? html`<a href=${link("services", ...of.service.split("/"))}>${of.service}</a>` : `none answers to ${of.host}`],
      of.port && ["Port", `${of.port.number} ${of.port.protocol}`], of.path && ["Path", html`<code>${of.path}</code>`],
      route?.rule && ["Route", html`<code>${route.rule}</code>`], policy?.timeout && ["Timeout", policy.timeout], policy?.retries !== undefined && ["Retries", policy.retries],
    ]} />
    ${route?.backends?.length > 0 && html`<h3>Where it goes</h3><${Table} caption="Where it goes" rows=${route.backends} columns=${BACKENDS} />`}
    ${of.to?.length > 0 && html`<h3>Where it goes</h3><${Table} caption="Where it goes" rows=${of.to} columns=${TO} />`}
    ${access.length > 0 && html`<h3>Access</h3><${Table} caption="Access" rows=${access} columns=${ACCESS} />`}
    <details><summary>the whole answer</summary><pre tabindex="0">${JSON.stringify(of, null, 2)}</pre></details>
  </${Card}>`;
}

const BACKENDS = [
  { name: "Backend", cell: (row) => `${row.service}${row.version ? ` ${row.version}` : ""}` },
  { name: "Share", num: true, cell: (row) => percent(row.percent) },
  { name: "Endpoints", cell: (row) => row.unresolved ?? row.unknown ?? (row.to ?? []).flatMap((to) => to.endpoints ?? []).join(", ") },
];
const TO = [
  { name: "Version", cell: (row) => row.version ?? "any" }, { name: "Share", num: true, cell: (row) => percent(row.percent) },
  { name: "Because", cell: (row) => row.because ?? "–" }, { name: "Endpoints", cell: (row) => (row.endpoints ?? []).join(", ") || "none is ready" },
];
const ACCESS = [
  { name: "Service", cell: (row) => row.service },
  { name: "Decision", cell: (row) => html`<${State} kind=${row.decision === "denied" ? "bad" : "ok"}>${row.decision}</${State}>` },
  { name: "Why", cell: (row) => row.why },
];
