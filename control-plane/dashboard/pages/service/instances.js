// The instances of a service, and the sidecar of each.

import { count } from "../../lib/format.js";
import { html } from "../../lib/html.js";
import { link } from "../../lib/route.js";
import { Card, State, Table, Time } from "../../lib/ui.js";

export function Instances({ of, proxies }) {
  const sidecars = new Map(proxies.items.map((one) => [one.endpoint, one]));
  const rows = of.map((instance) => ({ instance, proxy: sidecars.get(instance.metadata.name) }));
  return html`<${Card} title="Instances" id="instances" note=${count(of.length)}>
    <${Table} caption="Instances" rows=${rows} keyOf=${(row) => row.instance.metadata.name} empty="No instance is registered." columns=${[
      { name: "Instance", cell: ({ instance }) => instance.metadata.name },
      { name: "State", cell: ({ instance }) => (instance.spec.state === "draining" ? html`<${State} kind="warn">draining</${State}>` : html`<${State} kind="ok">ready</${State}>`) },
      { name: "Version", by: ({ instance }) => instance.spec.version, cell: ({ instance }) => instance.spec.version ?? "–" },
      { name: "Address", cell: ({ instance }) => html`<code>${addressOf(instance)}</code>` },
      { name: "Zone", cell: ({ instance }) => instance.spec.zone ?? "–" },
      { name: "Sidecar", cell: ({ instance, proxy }) => html`<${Sidecar} instance=${instance} proxy=${proxy} revision=${proxies.revision} />` },
    ]} /></${Card}>`;
}

const addressOf = ({ spec }) => {
  const port = spec.ports?.[0];
  return port ? `${spec.address}:${port.listen ?? port.port}` : spec.address;
};

function Sidecar({ instance, proxy, revision }) {
  if (!proxy) {
    return instance.spec.transport === "plaintext" ? html`<${State} kind="warn">none: plaintext</${State}>` : html`<span class="muted">not connected here</span>`;
  }
  const behind = proxy.rejected.length > 0 ? ["bad", `rejects ${proxy.rejected.length}`] : proxy.ackedRevision < revision ? ["warn", "behind"] : ["ok", "in step"];
  return html`<a href=${link("proxies", proxy.node)}>${proxy.node}</a> <${State} kind=${behind[0]}>${behind[1]}</${State}>
    <span class="muted small"> connected <${Time} at=${proxy.connectedSince} /></span>`;
}
