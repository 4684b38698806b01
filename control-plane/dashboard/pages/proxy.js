// One sidecar: what it was told, what it refused, and what it says itself.

import { get, path } from "../lib/api.js";
import { account, count } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { link } from "../lib/route.js";
import { Card, Clock, Facts, Loading, Problem, State, Table } from "../lib/ui.js";
import { sync } from "./proxies.js";

const PAGES = [["breakers", "Breakers"], ["endpoints", "Endpoints"], ["policies", "Policies"], ["certs", "Certificate"], ["config", "Configuration"]];

export function Proxy({ node }) {
  const { data, error } = usePoll((signal) => get(path("proxies", node), signal), node);
  const head = html`<div class="crumbs"><a href="#/proxies">Proxies</a></div>`;
  if (!data) return html`${head}<h1>${node}</h1><${Problem} error=${error} />${!error && html`<${Loading} what="the sidecar" />`}`;
  return html`${head}<${Problem} error=${error} />${data.items.map((one) => html`<${One} of=${one} revision=${data.revision} />`)}<${Asked} node=${node} />`;
}

function One({ of, revision }) {
  const { proxy } = of;
  const [kind, word] = sync(proxy, revision);
  return html`<div class="title"><h1>${proxy.node}</h1><${State} kind=${kind}>${word}</${State}></div>
    <section class="card" aria-label="About it"><${Facts} of=${[
      ["Identity", html`<code>${proxy.identity}</code>`],
      proxy.service && ["Service", html`<a href=${link("services", ...proxy.service.split("/"))}>${proxy.service}</a>`],
      ["Version", proxy.version], ["From", html`<code>${proxy.from}</code>`], ["Connected since", html`<${Clock} at=${proxy.connectedSince} />`],
      ["Obeys revision", `${proxy.ackedRevision} of ${revision}`], ["Subscribed to", count(proxy.subscriptions)],
    ]} />${proxy.skew && html`<p><${State} kind="warn">skew</${State}> ${proxy.skew}</p>`}</section>
    ${proxy.rejected.length > 0 && html`<${Card} title="Refused" id="refused" note="the last good version of each stays in force there"><${Table} caption="What it refused" rows=${proxy.rejected} columns=${[
      { name: "Resource", cell: (row) => `${row.kind} ${row.name}` }, { name: "Why", cell: (row) => row.reason }, { name: "Version", cell: (row) => html`<code>${row.version.slice(0, 12)}</code>` }]} /></${Card}>`}
    <${Card} title="What it was sent" id="sent" note=${count(of.resources.length)}><${Table} caption="What it was sent" rows=${of.resources} limit=${50} columns=${[
      { name: "Name", by: (row) => row.name, cell: (row) => row.name }, { name: "Kind", by: (row) => row.kind, cell: (row) => row.kind },
      { name: "Bytes", num: true, by: (row) => row.bytes, cell: (row) => count(row.bytes) }, { name: "Version", cell: (row) => html`<code>${row.version.slice(0, 12)}</code>` }]} /></${Card}>`;
}

/** Pages of the sidecar, asked of itself when somebody wants one. */
function Asked({ node }) {
  const [told, setTold] = useState(null);
  const [error, setError] = useState(null);
  const ask = async (page, title) => {
    setError(null);
    try {
      setTold({ title, of: await get(path("proxies", node, page)) });
    } catch (refused) {
      setTold(null);
      setError(refused);
    }
  };
  return html`<${Card} title="Ask it" id="ask" note="it answers itself, as things are at this moment">
    <div class="acts">${PAGES.map(([page, title]) => html`<button type="button" onClick=${() => ask(page, title)}>${title}</button>`)}</div>
    <${Problem} error=${error} />
    ${told && html`<h3>${told.title}</h3><pre tabindex="0" aria-label=${told.title}>${JSON.stringify(told.of.items, null, 2)}</pre>`}
  </${Card}>`;
}
