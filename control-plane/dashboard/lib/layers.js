// Where the parts of a graph stand: callers above those they call, so that lines go down and nobody stands on one.

const WIDE = 195;
const HIGH = 105;
/** Half the height of what stands there. */
const HALF = 23;

/** The place of each id, by who calls whom: `edges` are pairs of ids. A call that closes a circle is left out of account. */
export function layers(ids, edges) {
  const below = new Map(ids.map((id) => [id, []]));
  for (const [from, to] of edges) if (from !== to) below.get(from)?.push(to);
  const depth = depths(ids, below);
  const rows = [];
  for (const id of ids) (rows[depth.get(id)] ??= []).push(id);
  const place = new Map();
  const above = new Map(ids.map((id) => [id, []]));
  for (const [from, to] of edges) above.get(to)?.push(from);
  let y = 0;
  for (const row of rows.filter(Boolean)) {
    // Each below the middle of its callers, as far as they stand above it.
    const middle = (id) => mean(above.get(id).map((one) => place.get(one)?.x).filter((x) => x !== undefined));
    const ordered = row.map((id) => [middle(id), id]).sort(([a, left], [b, right]) => a - b || left.localeCompare(right));
    ordered.forEach(([, id], n) => place.set(id, { x: (n - (row.length - 1) / 2) * WIDE, y: y + (row.length > 4 ? (n % 2) * 26 : 0) }));
    y += HIGH;
  }
  return { place, rows: rows.length, detour: (from, to) => detour(place, from, to) };
}

/**
 * Where a line between two ids bends, so that it passes no third one: its control point as a distance from the straight line and a
 * share of its length. Null where it may go straight.
 */
function detour(place, from, to) {
  const [a, b] = [place.get(from), place.get(to)];
  const between = [...place].filter(([id, at]) => id !== from && id !== to && at.y > Math.min(a.y, b.y) + 30 && at.y < Math.max(a.y, b.y) - 30);
  const clear = (bend) => between.every(([, at]) => {
    const t = (at.y - a.y) / (b.y - a.y);
    const x = a.x + (b.x - a.x) * t + bend * 4 * t * (1 - t);
    return Math.abs(x - at.x) > WIDE / 2 - 6;
  });
  const ways = [0, 1, -1, 2, -2, 3, -3, 4, -4, 6, -6].map((step) => (step * WIDE) / 2);
  const bend = ways.find(clear) ?? 0;
  if (bend === 0) return null;
  // A line lies half as far out as its control point, and a bit more, as it begins at the edge of what stands there.
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  const [cx, cy] = [dx / 2 + bend / (0.5 + HALF / Math.abs(dy)), dy / 2];
  const long = Math.hypot(dx, dy);
  return { distance: (cy * dx - cx * dy) / long, weight: (cx * dx + cy * dy) / (long * long) };
}

const mean = (values) => (values.length === 0 ? 0 : values.reduce((all, one) => all + one, 0) / values.length);

/** How far below the first callers each stands: one more than the deepest of its callers. */
function depths(ids, below) {
  const depth = new Map(ids.map((id) => [id, 0]));
  const open = new Set();
  const done = new Set();
  const order = [];
  const visit = (id) => {
    if (done.has(id) || open.has(id)) return;
    open.add(id);
    for (const next of below.get(id)) visit(next);
    open.delete(id);
    done.add(id);
    order.unshift(id);
  };
  ids.forEach(visit);
  const at = new Map(order.map((id, n) => [id, n]));
  for (const id of order) {
    for (const next of below.get(id)) if (at.get(next) > at.get(id)) depth.set(next, Math.max(depth.get(next), depth.get(id) + 1));
  }
  return depth;
}
