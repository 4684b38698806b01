// Pieces that every page is made of.

import { html, useEffect, useRef, useState } from "./html.js";
import { clock, distance } from "./format.js";

/** A state: `kind` is ok, warn, bad or idle; the word tells it, the colour repeats it. */
export const State = ({ kind, children }) => html`<span class=${`state ${kind}`}>${children}</span>`;

/** A moment, as how long ago; the exact one stands behind it. */
export const Time = ({ at }) =>
  at ? html`<time datetime=${at} title=${clock(at)}>${distance(at)}</time>` : html`<span class="muted">–</span>`;

/** An exact moment. */
export const Clock = ({ at }) => html`<time datetime=${at} title=${distance(at)}>${clock(at)}</time>`;

/** What went wrong, as the API told it: what, where, and how it may be mended. */
export function Problem({ error }) {
  if (!error) return null;
  const { title, detail, problems = [], hint } = error.problem ?? { title: "This page failed", detail: String(error) };
  return html`<div class="problem" role="alert">
    <div><strong>${title}</strong>${error.status ? html` <span class="muted small">(${error.status})</span>` : null}</div>
    ${detail && detail !== title ? html`<p>${detail}</p>` : null}
    ${problems.length > 0 && html`<ul>${problems.map((one) => html`<li>
      <code>${one.pointer}</code> ${one.message}${one.hint ? html` <em>${one.hint}</em>` : null}</li>`)}</ul>`}
    ${hint && html`<p><em>${hint}</em></p>`}
  </div>`;
}

/** A card with a heading. */
export const Card = ({ title, note, right, children, id }) => html`<section class="card" aria-labelledby=${id}>
  <header><h2 id=${id}>${title}</h2>${note && html`<span class="muted small">${note}</span>`}
    ${right && html`<span class="right">${right}</span>`}</header>
  ${children}
</section>`;

/**
 * A table. `columns` are `{ name, cell, num?, whole?, by? }`: `by` gives what a column is sorted by, and makes it sortable; `acts` in place of
 * `name` is a heading that is only heard. The first column is the heading of its row.
 */
export function Table({ caption, columns, rows, empty = "There is nothing.", keyOf, limit = 200 }) {
  const [order, setOrder] = useState({ at: -1, down: false });
  const [all, setAll] = useState(false);
  if (rows.length === 0) return html`<p class="empty">${empty}</p>`;
  const by = columns[order.at]?.by;
  const sorted = by ? [...rows].sort((a, b) => compare(by(a), by(b)) * (order.down ? -1 : 1)) : rows;
  const shown = all ? sorted : sorted.slice(0, limit);
  const head = (column, at) => {
    const kind = column.num ? "num" : null;
    if (column.acts) return html`<th scope="col"><span class="unseen">${column.acts}</span></th>`;
    if (!column.by) return html`<th scope="col" class=${kind}>${column.name}</th>`;
    const on = order.at === at;
    const turn = () => setOrder({ at, down: on ? !order.down : Boolean(column.num) });
    return html`<th scope="col" class=${kind} aria-sort=${on ? (order.down ? "descending" : "ascending") : "none"}>
      <button type="button" onClick=${turn}>${column.name}${on ? (order.down ? " ↓" : " ↑") : ""}</button></th>`;
  };
  const cell = (column, at, row) => {
    const kind = [column.num && "num", column.whole && "whole"].filter(Boolean).join(" ") || null;
    return at === 0
      ? html`<th scope="row" class=${kind}>${column.cell(row)}</th>`
      : html`<td class=${kind}>${column.cell(row)}</td>`;
  };
  return html`<div class="scroll" tabindex="0" role="group" aria-label=${caption}><table>
    <caption class="unseen">${caption}</caption>
    <thead><tr>${columns.map(head)}</tr></thead>
    <tbody>${shown.map((row) => html`<tr key=${keyOf?.(row)}>${columns.map((c, at) => cell(c, at, row))}</tr>`)}</tbody>
  </table>${shown.length < rows.length && html`<p><button type="button" onClick=${() => setAll(true)}>
    Show all ${rows.length}</button></p>`}</div>`;
}

function compare(a, b) {
  if (typeof a === "number" || typeof b === "number") return (a ?? -Infinity) - (b ?? -Infinity);
  return String(a ?? "").localeCompare(String(b ?? ""));
}

/** A window before everything else. The browser keeps the keyboard inside and gives the focus back. */
export function Dialog({ title, onClose, children }) {
  const at = useRef(null);
  useEffect(() => {
    at.current.showModal();
    return () => at.current?.close();
  }, []);
  return html`<dialog ref=${at} aria-label=${title} onCancel=${(e) => { e.preventDefault(); onClose(); }}>${children}</dialog>`;
}

/**
 * Asks for a reason before something is done, and does it. `run(why, extra)` may throw what the API refused; that is shown and
 * the reason stays. `fields` are more inputs of the form, drawn by the caller, whose state is his.
 */
export function AskWhy({ title, text, verb, harm, fields, run, onDone, onClose }) {
  const [why, setWhy] = useState("");
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const say = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      const told = await run(why.trim());
      onDone?.(told);
      onClose();
    } catch (refused) {
      setError(refused);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${title} onClose=${onClose}><form onSubmit=${say}>
    <h2>${title}</h2>
    ${text && html`<p>${text}</p>`}
    ${fields}
    <label>Why? The audit log keeps it.
      <textarea required rows="2" maxlength="500" value=${why} onInput=${(e) => setWhy(e.target.value)} autofocus></textarea></label>
    <${Problem} error=${error} />
    <div class="acts"><button type="button" onClick=${onClose}>Leave it</button>
      <button class=${harm ? "harm" : "strong"} disabled=${busy || why.trim() === ""}>${verb}</button></div>
  </form></${Dialog}>`;
}

/** A button that somebody may not press says why, in text. */
export function Act({ not, harm, strong, onClick, children }) {
  const kind = harm ? "harm" : strong ? "strong" : null;
  return html`<button type="button" class=${kind} disabled=${Boolean(not)} title=${not || null} onClick=${onClick}>${children}</button>`;
}

/** Why buttons are disabled, once beside them. */
export const WhyNot = ({ not }) => (not ? html`<span class="muted small">${not}</span>` : null);

/** Pairs of a name and a value. */
export const Facts = ({ of }) => html`<dl class="facts-list">${of.filter(Boolean).map(
  ([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;

/** What is there before the first answer. */
export const Loading = ({ what }) => html`<p class="muted" role="status">Asking for ${what}…</p>`;

/** A link out of the page: it opens elsewhere, learns nothing of us, and only web addresses are links. */
export const Outside = ({ url, children }) =>
  /^https?:\/\//i.test(url)
    ? html`<a href=${url} target="_blank" rel="noreferrer noopener">${children}</a>`
    : html`<span title=${url}>${children}</span>`;
