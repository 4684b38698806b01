// One rollout, live: where it is, what its gates say, and the buttons that say how to go on.

import { change, get, path } from "../lib/api.js";
import { count, millis, percent } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { notWriter, useWho } from "../lib/roles.js";
import { link } from "../lib/route.js";
import { Act, AskWhy, Card, Clock, Facts, Loading, Problem, State, Table, Time, WhyNot } from "../lib/ui.js";
import { Phase } from "./rollouts.js";

export function Rollout({ namespace, name }) {
  const { data, error, again } = usePoll((signal) => get(path("rollouts", namespace, name), signal), `${namespace}/${name}`, 1000);
  const head = html`<div class="crumbs"><a href="#/rollouts">Rollouts</a></div>`;
  if (!data) return html`${head}<h1>${namespace}/${name}</h1><${Problem} error=${error} />${!error && html`<${Loading} what="the rollout" />`}`;
  const { spec, status } = data;
  return html`${head}
    <div class="title"><h1>${namespace}/${name}: ${spec.stable} → ${spec.candidate}</h1><${Phase} of=${status.phase} /></div>
    <${Problem} error=${error} />
    <section class="card" aria-label="Where it is">
      <p role="status">${sentence(status.why)} ${status.waitsFor && `It waits for ${status.waitsFor}.`}</p>
      <${Weight} status=${status} candidate=${spec.candidate} />
      <${Facts} of=${[
        ["Service", html`<a href=${link("services", namespace, spec.service)}>${namespace}/${spec.service}</a>`],
        ["Strategy", spec.strategy === "blueGreen" ? "blue-green" : "canary"],
        ["In this phase since", html`<${Time} at=${status.since} />`],
        status.holdSeconds !== undefined && ["Held", `${status.heldSeconds} of ${status.holdSeconds} s`],
        status.acknowledged && ["Acknowledged", `${count(status.acknowledged.proxies - status.acknowledged.missingCount)} of ${count(status.acknowledged.proxies)} sidecars`],
      ]} />
      <${Orders} namespace=${namespace} name=${name} status=${status} again=${again} />
    </section>
    ${status.candidate && html`<${Card} title="Both versions" id="versions"><${Table} caption="Both versions" rows=${[status.stable, status.candidate]} columns=${VERSIONS} /></${Card}>`}
    ${status.gates && html`<${Card} title="Gates" id="gates"><${Table} caption="Gates" rows=${status.gates} empty="It has no gates: time alone decides." columns=${GATES} /></${Card}>`}
    ${status.acknowledged?.missing.length > 0 && html`<${Card} title="Not acknowledged" id="missing"><${Table} caption="Sidecars that have not acknowledged it" rows=${status.acknowledged.missing} columns=${[
      { name: "Sidecar", cell: (row) => html`<a href=${link("proxies", row.proxy)}>${row.proxy}</a>` }, { name: "Why", cell: (row) => row.why }]} /></${Card}>`}
    <${Card} title="What happened" id="past"><${Table} caption="What happened" rows=${[...(status.past ?? [])].reverse()} empty="Nothing yet." columns=${PAST} /></${Card}>`;
}

/** What the control plane wrote as a clause. */
const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}` : "");

function Weight({ status, candidate }) {
  const weight = status.weight ?? 0;
  return html`<div class="stack">
    <div class="acts"><strong>${candidate} gets ${percent(weight)}</strong><div class="bar" style="flex: 1 1 8rem" aria-hidden="true"><i style=${`width: ${weight}%`}></i></div></div>
    ${status.weights?.length > 0 && html`<ol class="steps" aria-label="Steps">${status.weights.map((one, n) => {
      const at = status.step === n + 1;
      return html`<li class=${status.step > n + 1 ? "past" : null} aria-current=${at ? "step" : null}>${percent(one)}</li>`;
    })}</ol>`}
  </div>`;
}

const OVER = ["Done", "RolledBack", "Aborted"];

function Orders({ namespace, name, status, again }) {
  const [order, setOrder] = useState(null);
  const not = notWriter(useWho(), namespace);
  const over = OVER.includes(status.phase) ? `It is ${status.phase}: there is nothing to say any more.` : null;
  const back = status.phase === "RollingBack" ? "It is on its way back already." : null;
  const paused = status.phase === "Paused";
  const no = not ?? (status.phase === "Done" ? null : over);
  return html`<div class="acts">
    <${Act} strong not=${not ?? over ?? back} onClick=${() => setOrder("promote")}>Promote</${Act}>
    ${paused
      ? html`<${Act} not=${not ?? over} onClick=${() => setOrder("resume")}>Resume</${Act}>`
      : html`<${Act} not=${not ?? over ?? back} onClick=${() => setOrder("pause")}>Pause</${Act}>`}
    <${Act} harm not=${no ?? back} onClick=${() => setOrder("abort")}>Abort</${Act}>
    <${WhyNot} not=${not ?? over ?? back} />
    ${order && html`<${Order} order=${order} namespace=${namespace} name=${name} status=${status} onDone=${again} onClose=${() => setOrder(null)} />`}
  </div>`;
}

const TELLS = {
  promote: ["Promote", "The candidate gets the next step at once, whatever the gates say."],
  pause: ["Pause", "It stays at its weight. A gate that fails still brings it back."],
  resume: ["Resume", "The step is held anew; what failed before is forgiven."],
  abort: ["Abort", "Everything goes back to the stable version at once."],
};

function Order({ order, namespace, name, status, onDone, onClose }) {
  const [full, setFull] = useState(false);
  const [title, text] = TELLS[order];
  // The step at which he saw it: of two people who promote the same step one hears that it has gone on meanwhile.
  const body = { ...(status.step && order !== "abort" ? { step: status.step } : {}), ...(order === "promote" && full ? { full } : {}) };
  const fields = order === "promote" && html`<label class="line"><input type="checkbox" checked=${full} onChange=${(e) => setFull(e.target.checked)} />to the last step</label>`;
  return html`<${AskWhy} title=${`${title} ${namespace}/${name}`} text=${text} verb=${title} harm=${order === "abort"} fields=${fields}
    run=${(why) => change("POST", path("rollouts", namespace, name, order), body, why)} onDone=${onDone} onClose=${onClose} />`;
}

const VERSIONS = [
  { name: "Version", cell: (row) => row.version },
  { name: "Requests", num: true, cell: (row) => count(row.requests) },
  { name: "Success", num: true, cell: (row) => percent(row.successRate) },
  { name: "p50", num: true, cell: (row) => millis(row.p50Ms) },
  { name: "p99", num: true, cell: (row) => millis(row.p99Ms) },
  { name: "Ready endpoints", num: true, cell: (row) => count(row.endpoints) },
];

const RESULT = { pass: ["ok", "passes"], fail: ["bad", "fails"], notYet: ["warn", "not yet"], skipped: ["idle", "left out"] };

const GATES = [
  { name: "Gate", cell: (row) => GATE[row.gate] ?? row.gate },
  { name: "Result", cell: (row) => { const [kind, word] = RESULT[row.result] ?? ["idle", row.result]; return html`<${State} kind=${kind}>${word}</${State}>`; } },
  { name: "Wants", cell: (row) => row.wants },
  { name: "Has", cell: (row) => row.has },
];

const GATE = { successRate: "success", successComparedWithStable: "success, beside stable", latencyComparedWithStable: "latency, beside stable", minRequests: "requests", endpoints: "endpoints" };

const PAST = [
  { name: "When", whole: true, cell: (row) => html`<${Clock} at=${row.at} />` },
  { name: "Phase", cell: (row) => html`<${Phase} of=${row.phase} />` },
  { name: "Candidate got", num: true, cell: (row) => percent(row.weight) },
  { name: "Why", cell: (row) => row.why ?? "–" },
];
