// The API of a service: its OpenAPI document to read, and each of its operations to try in place.

import { change, get, path } from "../lib/api.js";
import { html, useState } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { notWriter, useWho } from "../lib/roles.js";
import { link } from "../lib/route.js";
import { Card, Facts, Loading, Outside, Problem, State, Table, WhyNot } from "../lib/ui.js";

export function ApiPage({ namespace, name }) {
  // A document changes with a release: it is asked for once, not every few seconds.
  const { data, error, again } = usePoll((signal) => get(`${path("services", namespace, name)}/api`, signal), `${namespace}/${name}`, 3600000);
  const head = html`<div class="crumbs"><a href="#/services">Services</a> › <a href=${link("services", namespace, name)}>${namespace}/${name}</a></div>`;
  if (!data) {
    return html`${head}<h1>API of ${namespace}/${name}</h1><${Problem} error=${error} />
      ${error ? html`<div class="acts"><button type="button" onClick=${again}>Ask again</button></div>` : html`<${Loading} what="its document" />`}`;
  }
  const { document: api, instance } = data;
  const info = api.info ?? {};
  return html`${head}<div class="title"><h1>${info.title ?? `API of ${namespace}/${name}`}</h1>${info.version && html`<span class="muted">${info.version}</span>`}</div>
    ${info.description && html`<p>${info.description}</p>`}
    <section class="card" aria-label="About the document"><${Facts} of=${[
      ["Told by", instance], ["OpenAPI", api.openapi ?? api.swagger ?? "unknown"],
      api.externalDocs?.url && ["More", html`<${Outside} url=${api.externalDocs.url}>${api.externalDocs.description ?? api.externalDocs.url}</${Outside}>`],
    ]} /><p class="muted small">What is tried goes to an instance as a request of the control plane, over mutual TLS; access policies say of it what
      they say of any caller. The audit log keeps who tried what.</p></section>
    ${operations(api).map((one) => html`<${Operation} key=${`${one.method} ${one.path}`} of=${one} api=${api} namespace=${namespace} name=${name} />`)}
    <details class="card"><summary>the whole document</summary><pre tabindex="0">${JSON.stringify(api, null, 2)}</pre></details>`;
}

const METHODS = ["get", "put", "post", "delete", "patch", "head", "options"];

/** Every operation, with the parameters of its path. */
function operations(api) {
  return Object.entries(api.paths ?? {}).flatMap(([at, item]) => METHODS.filter((method) => item?.[method]).map((method) => {
    const operation = item[method];
    const parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])].map((one) => resolved(api, one)).filter((one) => one?.name);
    return { path: at, method: method.toUpperCase(), operation, parameters, body: resolved(api, operation.requestBody) };
  }));
}

/** What a reference within the document means; one that leads in circles or elsewhere means nothing. */
function resolved(api, one, deep = 0) {
  if (!one?.$ref || deep > 8) return one?.$ref ? undefined : one;
  if (!one.$ref.startsWith("#/")) return undefined;
  const found = one.$ref.slice(2).split("/").reduce((at, part) => at?.[part.replace(/~1/g, "/").replace(/~0/g, "~")], api);
  return resolved(api, found, deep + 1);
}

function Operation({ of, api, namespace, name }) {
  const not = notWriter(useWho(), namespace);
  const [answer, setAnswer] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const { operation, parameters, method, body } = of;
  const media = Object.keys(body?.content ?? {})[0];
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      setAnswer(await change("POST", `${path("services", namespace, name)}/try`, request(of, new FormData(event.target), media), ""));
    } catch (refused) {
      setAnswer(null);
      setError(refused);
    }
    setBusy(false);
  };
  const title = `${method} ${of.path}`;
  const id = title.replace(/\W+/g, "-");
  return html`<${Card} title=${title} id=${id} note=${operation.deprecated ? "deprecated" : null}>
    ${(operation.summary ?? operation.description) && html`<p>${operation.summary ?? operation.description}</p>`}
    <form class="stack" onSubmit=${send}>
      ${parameters.length > 0 && html`<div class="form">${parameters.map((one) => html`<label>${one.name} <span class="muted">${one.in}${one.required ? "" : ", may be left out"}</span>
        <input name=${`${one.in} ${one.name}`} required=${one.required} defaultValue=${example(api, one)} title=${one.description ?? null} /></label>`)}</div>`}
      ${body && html`<label>Body <span class="muted">${media}</span><textarea name="body" rows="4" defaultValue=${exampleOf(api, body.content?.[media])}></textarea></label>`}
      <div class="acts"><button class="strong" disabled=${Boolean(not) || busy} title=${not || null}>Try it<span class="unseen"> ${title}</span></button><${WhyNot} not=${not} /></div>
    </form>
    <${Problem} error=${error} />
    ${answer && html`<${Answer} of=${answer} />`}
    ${operation.responses && html`<details><summary>what it answers</summary><${Table} caption=${`What ${title} answers`} rows=${Object.entries(operation.responses)} columns=${[
      { name: "Status", cell: ([status]) => status }, { name: "When", cell: ([, one]) => resolved(api, one)?.description ?? "–" }]} /></details>`}
  </${Card}>`;
}

/** The request as the control plane is asked to send it. */
function request({ path: template, method, parameters }, said, media) {
  const of = (one) => said.get(`${one.in} ${one.name}`) ?? "";
  const inside = (kind) => parameters.filter((one) => one.in === kind && (of(one) !== "" || kind === "path"));
  const at = inside("path").reduce((text, one) => text.replaceAll(`{${one.name}}`, encodeURIComponent(of(one))), template);
  const query = new URLSearchParams(inside("query").map((one) => [one.name, of(one)])).toString();
  const headers = inside("header").map((one) => [one.name, of(one)]);
  const body = said.get("body") ?? "";
  if (body && media) headers.push(["content-type", media]);
  return { method, path: query ? `${at}?${query}` : at, headers, ...(body ? { body } : {}) };
}

const example = (api, one) => one.example ?? resolved(api, one.schema)?.example ?? resolved(api, one.schema)?.default ?? "";

function exampleOf(api, content) {
  const given = content?.example ?? Object.values(content?.examples ?? {})[0]?.value ?? resolved(api, content?.schema)?.example;
  return given === undefined ? "" : JSON.stringify(given, null, 2);
}

function Answer({ of }) {
  const kind = of.status >= 500 ? "bad" : of.status >= 400 ? "warn" : "ok";
  return html`<div class="stack" role="status"><div class="acts"><${State} kind=${kind}>${of.status}</${State}><span>in ${of.ms} ms from ${of.instance}</span></div>
    <pre tabindex="0" aria-label="Body of the answer">${pretty(of.body)}${of.cut ? "\n… and more, which is not shown" : ""}</pre>
    <details><summary>headers of the answer</summary><${Table} caption="Headers of the answer" rows=${of.headers} columns=${[
      { name: "Header", cell: ([key]) => html`<code>${key}</code>` }, { name: "Value", cell: ([, value]) => html`<code>${value}</code>` }]} /></details></div>`;
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
