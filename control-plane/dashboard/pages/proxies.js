// Every connected sidecar, and whether it obeys what there is.

import { get } from "../lib/api.js";
import { account, count } from "../lib/format.js";
import { html } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { link } from "../lib/route.js";
import { Loading, Problem, State, Table, Time } from "../lib/ui.js";

/** A sidecar's state towards this revision, in a word. */
export function sync(proxy, revision) {
  if (proxy.rejected.length > 0) return ["bad", `rejects ${proxy.rejected.length}`];
  if (proxy.ackedRevision < revision) return ["warn", `behind at ${proxy.ackedRevision}`];
  return ["ok", "in step"];
}

export function Proxies() {
  const { data, error } = usePoll((signal) => get("/v1/proxies", signal), "proxies");
  if (!data) return html`<h1>Proxies</h1><${Problem} error=${error} />${!error && html`<${Loading} what="the sidecars" />`}`;
  const { items, revision } = data;
  const behind = items.filter((one) => sync(one, revision)[0] !== "ok");
  const skewed = items.filter((one) => one.skew);
  return html`<div class="title"><h1>Proxies</h1><span class="muted">${count(items.length)} connected, revision ${revision}</span></div>
    <${Problem} error=${error} />
    <div class=${behind.length > 0 ? "look warn" : "look ok"} role="status">${behind.length > 0 ? `${behind.length} of ${items.length} do not obey revision ${revision}` : `All of them obey revision ${revision}.`}
      ${skewed.length > 0 && ` ${skewed.length} are of another version in a way that matters.`}</div>
    <div class="card"><${Table} caption="Proxies" rows=${items} keyOf=${(one) => `${one.identity} ${one.node}`} empty="No sidecar is connected to this control plane." columns=${columns(revision)} /></div>`;
}

const columns = (revision) => [
  { name: "Proxy", by: (one) => one.node, cell: (one) => html`<a href=${link("proxies", one.node)}>${one.node}</a>` },
  { name: "State", by: (one) => sync(one, revision)[0], cell: (one) => { const [kind, word] = sync(one, revision); return html`<${State} kind=${kind}>${word}</${State}>`; } },
  { name: "Identity", by: (one) => one.identity, cell: (one) => account(one.identity) },
  { name: "Service", by: (one) => one.service, cell: (one) => (one.service ? html`<a href=${link("services", ...one.service.split("/"))}>${one.service}</a>` : html`<span class="muted">none</span>`) },
  { name: "Version", by: (one) => one.version, cell: (one) => html`${one.version}${one.skew && html`<div class="small"><${State} kind="warn">skew</${State}> ${one.skew}</div>`}` },
  { name: "Subscribed to", num: true, by: (one) => one.subscriptions, cell: (one) => count(one.subscriptions) },
  { name: "Connected", whole: true, by: (one) => one.connectedSince, cell: (one) => html`<${Time} at=${one.connectedSince} />` },
];
