// Every rollout, and how far it has come.

import { get } from "../lib/api.js";
import { percent } from "../lib/format.js";
import { html } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { link } from "../lib/route.js";
import { Loading, Problem, State, Table, Time } from "../lib/ui.js";

const KIND = { Done: "ok", Holding: "ok", Stepping: "ok", Promoting: "ok", Draining: "ok", Pending: "idle", Waiting: "idle", Paused: "warn", RollingBack: "bad", RolledBack: "bad", Aborted: "bad" };

export const Phase = ({ of }) => (of ? html`<${State} kind=${KIND[of] ?? "idle"}>${of}</${State}>` : html`<span class="muted">–</span>`);

export function Rollouts() {
  const { data, error } = usePoll((signal) => get("/v1/rollouts?limit=10000", signal), "rollouts", 2000);
  return html`<h1>Rollouts</h1><${Problem} error=${error} />
    ${!data && !error && html`<${Loading} what="the rollouts" />`}
    ${data && html`<div class="card"><${RolloutTable} items=${data.items} /></div>`}`;
}

export const RolloutTable = ({ items }) => html`<${Table} caption="Rollouts" rows=${items} keyOf=${(one) => `${one.metadata.namespace}/${one.metadata.name}`}
  empty="No rollout is written: outrigger rollout start SERVICE --from v1 --to v2." columns=${[
    { name: "Rollout", by: (one) => one.metadata.name, cell: ({ metadata }) => html`<a href=${link("rollouts", metadata.namespace, metadata.name)}>${metadata.namespace}/${metadata.name}</a>` },
    { name: "Service", cell: ({ metadata, spec }) => html`<a href=${link("services", metadata.namespace, spec.service)}>${spec.service}</a>` },
    { name: "Versions", whole: true, cell: ({ spec }) => `${spec.stable} → ${spec.candidate}` },
    { name: "Phase", by: (one) => one.status?.phase, cell: ({ status }) => html`<${Phase} of=${status?.phase} />` },
    { name: "Candidate gets", num: true, by: (one) => one.status?.weight, cell: ({ status }) => percent(status?.weight) },
    { name: "Why", cell: ({ status }) => status?.why ?? "–" },
    { name: "Since", whole: true, cell: ({ status }) => html`<${Time} at=${status?.since ?? status?.past?.at?.(-1)?.at} />` },
  ]} />`;
