// One service: how it does over time, who calls it, what decides about it, and what was changed.

import { get, path } from "../lib/api.js";
import { account } from "../lib/format.js";
import { health } from "../lib/health.js";
import { html, useState } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { link } from "../lib/route.js";
import { lately, ofService } from "../lib/signals.js";
import { Card, Facts, Loading, Outside, Problem, State } from "../lib/ui.js";
import { Breakers } from "./service/breakers.js";
import { ChangesOf, marksOf } from "./service/changes.js";
import { Instances } from "./service/instances.js";
import { Policies, Routes, decides } from "./service/rules.js";
import { Calls, Refusals, Signals, Versions } from "./service/signals.js";
import { RolloutTable } from "./rollouts.js";

const RULES = ["httproutes", "grpcroutes", "tcproutes", "trafficpolicies", "accesspolicies", "tokenpolicies"];

async function load(namespace, name, window, signal) {
  const of = (collection) => get(`${path(collection, namespace)}?limit=10000`, signal);
  const [service, now, signals, instances, breakers, overrides, rollouts, proxies, revisions, ...rules] = await Promise.all([
    theService(namespace, name, signal), lately(signal), ofService(namespace, name, window, signal), of("instances"),
    get(`/v1/breakers?service=${encodeURIComponent(`${namespace}/${name}`)}`, signal), of("breakeroverrides"), of("rollouts"),
    get("/v1/proxies", signal), get("/v1/revisions?limit=200", signal), ...RULES.map(of),
  ]);
  const own = (list) => list.items.filter((one) => one.spec.service === name);
  const routes = rules.slice(0, 3).flatMap((list) => list.items).filter((one) => decides(one, namespace, name));
  const named = new Set(routes.map((one) => one.metadata.name));
  const policies = rules.slice(3).flatMap((list) => list.items).filter((one) => decides(one, namespace, name, named));
  return {
    service, node: nodeOf(now, namespace, name), signals, breakers, routes, policies, instances: own(instances), overrides: own(overrides), rollouts: own(rollouts),
    proxies, revisions: revisions.items,
  };
}

/** A service of the mesh, or one outside it. */
async function theService(namespace, name, signal) {
  try {
    return await get(path("services", namespace, name), signal);
  } catch (error) {
    if (error.status !== 404) throw error;
    return get(path("egressservices", namespace, name), signal);
  }
}

export function Service({ namespace, name }) {
  const [window, setWindow] = useState("15m");
  const { data, error, again } = usePoll((signal) => load(namespace, name, window, signal), `${namespace}/${name} ${window}`, 4000);
  const head = html`<div class="crumbs"><a href="#/services">Services</a></div>`;
  if (!data) {
    return html`${head}<h1>${namespace}/${name}</h1><${Problem} error=${error} />${!error && html`<${Loading} what="the service" />`}`;
  }
  const { service, signals, rollouts, revisions } = data;
  const is = health(service, data.node, data.instances, data.breakers.items);
  const marks = marksOf(revisions, rollouts, namespace, name, data.routes, data.policies);
  return html`${head}
    <div class="title"><h1>${namespace}/${name}</h1><${State} kind=${is.kind}>${is.word}</${State}>
      ${is.kind !== "ok" && is.kind !== "idle" && html`<span>${is.why.join("; ")}</span>`}</div>
    <${Problem} error=${error} />
    <${About} service=${service} namespace=${namespace} name=${name} />
    <${Signals} signals=${signals} window=${window} setWindow=${setWindow} marks=${marks} />
    <div class="two"><${Refusals} of=${signals.refusals} /><${Versions} of=${signals.versions} /></div>
    <${Breakers} namespace=${namespace} name=${name} breakers=${data.breakers} overrides=${data.overrides} again=${again} />
    <div class="two">
      <${Calls} title="Callers" id="callers" edges=${signals.callers} other=${(edge) => edge.from} none="Nobody has called it in this time." />
      <${Calls} title="Callees" id="callees" edges=${signals.callees} other=${(edge) => edge.to} none="It has called nobody in this time." />
    </div>
    ${rollouts.length > 0 && html`<${Card} title="Rollouts" id="rollouts"><${RolloutTable} items=${rollouts} /></${Card}>`}
    <${Routes} of=${data.routes} /><${Policies} of=${data.policies} />
    <${Instances} of=${data.instances} proxies=${data.proxies} />
    <${ChangesOf} marks=${marks} />`;
}

/** Its figures among those of all. */
const nodeOf = (graph, namespace, name) => graph.nodes.find((one) => one.namespace === namespace && one.name === name);

function About({ service, namespace, name }) {
  const { spec, status } = service;
  const ports = spec.ports ?? [];
  const links = spec.links ?? [];
  return html`<section class="card" aria-label="About it">
    ${spec.description && html`<p>${spec.description}</p>`}
    <${Facts} of=${[
      ["Owner", spec.owner ?? "nobody"],
      ["Called as", html`<code>${spec.hosts?.join(", ") ?? `${name}.${namespace}`}</code>`],
      ports.length > 0 && ["Ports", ports.map((one) => `${one.port}${one.protocol ? ` ${one.protocol}` : ""}`).join(", ")],
      service.kind === "MeshService" && ["Mutual TLS", spec.mtls ?? "strict"],
      spec.identities && ["Served by", spec.identities.map(account).join(", ")],
      status?.addresses && ["Virtual address", html`<code>${status.addresses[0]}</code>`],
      spec.api && ["API", html`<a href=${link("services", namespace, name, "api")}>read and try</a>`],
      links.length > 0 && ["Links", html`<span class="acts">${links.map((one) => html`<${Outside} url=${one.url}>${one.title ?? one.url}</${Outside}>`)}</span>`],
    ]} />
    <div class="acts small">
      <a href=${`#/explain?host=${encodeURIComponent(`${name}.${namespace}`)}`}>Explain a request to it</a>
      <a href=${`#/tap?to=${encodeURIComponent(`${namespace}/${name}`)}`}>Watch its requests</a>
    </div>
  </section>`;
}
