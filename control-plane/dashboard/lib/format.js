// Figures and times as people read them. None has a value that is not there: that is a dash.

export const NONE = "–";

const finite = (value) => typeof value === "number" && Number.isFinite(value);

/** Requests a second. */
export function rate(value) {
  if (!finite(value)) return NONE;
  if (value === 0) return "0";
  return value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en");
}

/** A share between 0 and 1 as percent: 100 % only where nothing failed at all. */
export function share(value) {
  if (!finite(value)) return NONE;
  const percent = value * 100;
  if (percent === 100 || percent === 0) return `${percent} %`;
  const told = percent > 99.95 ? Math.floor(percent * 100) / 100 : percent.toFixed(percent < 10 ? 2 : 1);
  return `${told} %`;
}

/** A percentage that is one already. */
export const percent = (value) => (finite(value) ? `${+value.toFixed(2)} %` : NONE);

/** Milliseconds. */
export function millis(value) {
  if (!finite(value)) return NONE;
  if (value >= 1000) return `${(value / 1000).toFixed(value >= 10000 ? 1 : 2)} s`;
  return value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`;
}

/** A whole number. */
export const count = (value) => (finite(value) ? value.toLocaleString("en") : NONE);

/** How long ago, or how long still, a moment is. */
export function distance(text, now = Date.now()) {
  const at = Date.parse(text);
  if (Number.isNaN(at)) return text || NONE;
  const seconds = Math.round((at - now) / 1000);
  const size = Math.abs(seconds);
  const told =
    size < 90 ? `${size} s` : size < 5400 ? `${Math.round(size / 60)} min`
      : size < 172800 ? `${Math.round(size / 3600)} h` : `${Math.round(size / 86400)} d`;
  return seconds > 0 ? `in ${told}` : `${told} ago`;
}

/** A moment as the clock on the wall has it. */
export function clock(text) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return text || NONE;
  const two = (n) => String(n).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** `spiffe://mesh.local/ns/shop/sa/web` as `shop/web`; anything else as it is. */
export function account(identity) {
  const found = /^spiffe:\/\/[^/]+\/ns\/([^/]+)\/sa\/([^/]+)$/.exec(identity || "");
  return found ? `${found[1]}/${found[2]}` : identity || NONE;
}
