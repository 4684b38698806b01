// Time series. Each chart says in words what it shows, and is a table at the press of a button.

import uPlot from "../vendor/uplot.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { Table } from "./ui.js";
import { clock } from "./format.js";

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * `points` are `{ at }` with a value for each of `series`, `{ name, of(point) }`, two at most; `format` writes a value; `marks` are
 * `{ at, text }` on the time axis, `span` seconds of it: what was changed then. `theme` is another word when the colours are others.
 */
export function Chart({ title, points, series, format, marks = [], theme, least = 0, span }) {
  const at = useRef(null);
  const [asTable, setAsTable] = useState(false);
  const drawn = `${points.length} ${points.at(-1)?.at} ${marks.length} ${theme} ${asTable} ${span}`;
  useEffect(() => {
    if (asTable || !at.current || points.length === 0) return;
    const plot = draw(at.current, { points, series, format, marks, least, span });
    const sized = new ResizeObserver(() => plot.setSize({ width: at.current?.clientWidth || 300, height: 150 }));
    sized.observe(at.current);
    return () => { sized.disconnect(); plot.destroy(); };
  }, [drawn]);
  const last = points.at(-1);
  const now = last ? series.map((one) => `${series.length > 1 ? one.name : "now"} ${format(one.of(last))}`).join(", ") : "nothing yet";
  return html`<figure aria-label=${`${title}: ${words(points, series, format)}`}>
    <figcaption><span>${title}</span> <span class="now">${now}</span>
      <button type="button" aria-expanded=${asTable} onClick=${() => setAsTable(!asTable)}>${asTable ? "Chart" : "Table"}<span class="unseen"> of ${title}</span></button>
    </figcaption>
    ${asTable
      ? html`<div class="table-of-chart"><${Table} caption=${title} keyOf=${(p) => p.at} limit=${60} rows=${[...points].reverse()} columns=${[
          { name: "Time", whole: true, cell: (p) => clock(p.at) },
          ...series.map((one) => ({ name: one.name, num: true, cell: (p) => format(one.of(p)) })),
        ]} /></div>`
      : html`<div class="plot" ref=${at} aria-hidden="true"></div>`}
    ${series.length > 1 && !asTable && html`<div class="acts small">${series.map((one, n) => html`<span class=${`key s${n + 1}`}><i></i>${one.name}</span>`)}</div>`}
  </figure>`;
}

/** What it shows, for those who do not see it. */
function words(points, series, format) {
  if (points.length === 0) return "nothing was reported yet";
  return series.map((one) => {
    const values = points.map(one.of).filter((v) => typeof v === "number");
    if (values.length === 0) return `${one.name}: no values`;
    return `${one.name}: now ${format(values.at(-1))}, least ${format(Math.min(...values))}, most ${format(Math.max(...values))}`;
  }).join("; ");
}

function draw(where, { points, series, format, marks, least, span }) {
  const times = points.map((p) => Date.parse(p.at) / 1000);
  const end = Math.max(times.at(-1), Date.now() / 1000);
  const axis = { stroke: token("--muted"), grid: { stroke: token("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const lines = series.map((one, n) => ({
    label: one.name, stroke: token(`--series-${n + 1}`), width: 2, dash: n === 1 ? [6, 4] : undefined,
    points: { show: points.length < 3 }, spanGaps: false,
  }));
  const most = Math.max(least, ...series.flatMap((one) => points.map(one.of).filter((v) => typeof v === "number")));
  return new uPlot({
    width: where.clientWidth || 300, height: 150, legend: { show: false }, cursor: { show: false }, padding: [8, 8, 0, 0],
    scales: { x: { range: () => [end - span, end] }, y: { range: () => [0, most > 0 ? most * (least === 1 ? 1 : 1.1) : 1] } },
    axes: [{ ...axis, space: 60, size: 28, values: (_, ticks) => ticks.map(hour) }, { ...axis, size: 56, values: (_, ticks) => ticks.map(format) }],
    series: [{}, ...lines],
    hooks: { draw: [(u) => drawMarks(u, marks)] },
  }, [times, ...series.map((one) => points.map((p) => one.of(p) ?? null))], where);
}

/** `14:05`, or with seconds where ticks are closer than a minute. */
function hour(seconds) {
  const [at, two] = [new Date(seconds * 1000), (n) => String(n).padStart(2, "0")];
  return `${two(at.getHours())}:${two(at.getMinutes())}${seconds % 60 ? `:${two(at.getSeconds())}` : ""}`;
}

/** A dotted line for each change, through the whole height. */
function drawMarks(u, marks) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.strokeStyle = token("--mark");
  ctx.setLineDash([2, 3]);
  ctx.lineWidth = 1.5 * devicePixelRatio;
  for (const mark of marks) {
    const x = u.valToPos(Date.parse(mark.at) / 1000, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}
