// The certificates that are valid, the mesh's authority, and how far a change of its root is.

import { get } from "../lib/api.js";
import { account, count } from "../lib/format.js";
import { html } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { notRole, useWho } from "../lib/roles.js";
import { Card, Facts, Loading, Problem, State, Table, Time } from "../lib/ui.js";

const load = async (signal) => {
  const [certs, rotation] = await Promise.all([get("/v1/certs", signal), get("/v1/certs/rotation", signal)]);
  return { certs, rotation };
};

export function Certificates() {
  const not = notRole(useWho(), "operator");
  if (not) return html`<h1>Certificates</h1><p>${not} Whoever can have a certificate can be that workload.</p>`;
  return html`<${Shown} />`;
}

function Shown() {
  const { data, error } = usePoll(load, "certificates", 5000);
  if (!data) return html`<h1>Certificates</h1><${Problem} error=${error} />${!error && html`<${Loading} what="the certificates" />`}`;
  const { certs, rotation } = data;
  return html`<div class="title"><h1>Certificates</h1><span class="muted">${count(certs.total)} valid</span></div><${Problem} error=${error} />
    <${Card} title="Authority" id="authority"><${Authority} of=${rotation} /></${Card}>
    <div class="card"><${Table} caption="Certificates" rows=${certs.items} keyOf=${(one) => one.sha256} empty="No certificate was signed yet." columns=${COLUMNS} /></div>`;
}

function Authority({ of }) {
  const { authority, step } = of;
  return html`<${Facts} of=${[
    ["Trust domain", authority.trustDomain], ["Made by", authority.source],
    authority.root && ["Root ends", html`<${Time} at=${authority.root.notAfter} />`],
    authority.intermediate && ["Intermediate ends", html`<${Time} at=${authority.intermediate.notAfter} />`],
    ["Believed roots", count(authority.believedRoots)],
    ["Change of the root", step === "none" ? "none under way" : html`<${State} kind=${of.paused ? "warn" : "ok"}>${step}${of.paused ? ", paused" : ""}</${State}>`],
    of.waitsFor && ["Waits for", of.waitsFor], of.missingCount > 0 && ["Still missing", count(of.missingCount)],
  ]} />`;
}

/** How much of its life is left, in a word. */
function life(one) {
  const [begin, end] = [Date.parse(one.issued), Date.parse(one.notAfter)];
  const left = (end - Date.now()) / (end - begin);
  return left <= 0 ? ["bad", "ended"] : left < 0.15 ? ["bad", "ends soon"] : left < 0.3 ? ["warn", "renewal is due"] : ["ok", "valid"];
}

const COLUMNS = [
  { name: "Identity", by: (one) => one.identity, cell: (one) => html`<span title=${one.identity}>${account(one.identity)}</span>` },
  { name: "State", cell: (one) => { const [kind, word] = life(one); return html`<${State} kind=${kind}>${word}</${State}>`; } },
  { name: "Ends", whole: true, by: (one) => one.notAfter, cell: (one) => html`<${Time} at=${one.notAfter} />` },
  { name: "Issued", whole: true, by: (one) => one.issued, cell: (one) => html`<${Time} at=${one.issued} />` },
  { name: "For", by: (one) => one.by, cell: (one) => one.by },
  { name: "Last seen", whole: true, by: (one) => one.seen, cell: (one) => html`<${Time} at=${one.seen} />` },
  { name: "SHA-256", cell: (one) => html`<code title=${one.sha256}>${one.sha256.slice(0, 16)}</code>` },
];
