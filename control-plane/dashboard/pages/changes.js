// Every revision of the configuration: who changed what, and the difference.

import { get } from "../lib/api.js";
import { html, useState } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { Clock, Loading, Problem, Table } from "../lib/ui.js";

export function Changes() {
  const [before, setBefore] = useState([]);
  const at = before.at(-1);
  const { data, error } = usePoll((signal) => get(`/v1/revisions?limit=50${at ? `&before=${at}` : ""}`, signal), `${at}`, 5000);
  return html`<h1>Changes</h1><${Problem} error=${error} />
    ${!data && !error && html`<${Loading} what="the revisions" />`}
    ${data && html`<div class="card"><${Table} caption="Changes" rows=${data.items} keyOf=${(one) => one.revision} empty="Nothing was ever changed." columns=${COLUMNS} />
      <div class="acts">${before.length > 0 && html`<button type="button" onClick=${() => setBefore(before.slice(0, -1))}>Newer</button>`}
        ${data.items.length === 50 && html`<button type="button" onClick=${() => setBefore([...before, data.items.at(-1).revision])}>Older</button>`}</div></div>`}`;
}

const COLUMNS = [
  { name: "Revision", cell: (one) => one.revision },
  { name: "When", whole: true, cell: (one) => html`<${Clock} at=${one.at} />` },
  { name: "Who", cell: (one) => one.who },
  { name: "Why", cell: (one) => one.why ?? html`<span class="muted">no reason given</span>` },
  { name: "What", cell: (one) => html`<div class="stack">${one.changes.slice(0, 20).map((what) => html`<${Change} of=${what} />`)}
    ${one.changes.length > 20 && html`<span class="muted">and ${one.changes.length - 20} more</span>`}</div>` },
];

function Change({ of }) {
  const verb = of.after ? (of.before ? "changed" : "created") : "deleted";
  const fields = differences(of.before?.spec, of.after?.spec);
  return html`<details><summary>${verb} <code>${of.key}</code></summary>${fields.length === 0 ? html`<p class="muted small">Nothing of what it says.</p>`
    : html`<${Table} caption=${`What differs in ${of.key}`} rows=${fields} columns=${[
        { name: "Field", cell: (row) => html`<code>${row.pointer}</code>` }, { name: "Before", cell: (row) => value(row.before) }, { name: "After", cell: (row) => value(row.after) }]} />`}</details>`;
}

const value = (one) => (one === undefined ? html`<span class="muted">–</span>` : html`<code>${JSON.stringify(one)}</code>`);

/** Field by field, as far as two objects differ. */
export function differences(before, after, pointer = "") {
  const both = [before, after].every((one) => one && typeof one === "object" && !Array.isArray(one));
  if (!both) return JSON.stringify(before) === JSON.stringify(after) ? [] : [{ pointer: pointer || "/", before, after }];
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...keys].flatMap((key) => differences(before[key], after[key], `${pointer}/${key}`));
}
