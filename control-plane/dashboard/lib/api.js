// The admin API: one function that asks, the token, and errors as the API tells them (RFC 9457).
//
// The token lives in sessionStorage: it ends with the tab, and stands in no URL. There are no cookies, so no other page can
// act through this one.

const TOKEN = "outrigger.token";

/** The token that was shown here, if any. */
export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (text) => sessionStorage.setItem(TOKEN, text.trim()),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** What the API refused, or why it could not be asked. `problem` has `title`, `detail` and perhaps `problems[]`. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `status ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

/** Who has to hear that nobody is known any more. */
let onUnknown = () => {};
export const whenUnknown = (hear) => { onUnknown = hear; };

function headers(more) {
  const known = token.get();
  return known ? { ...more, Authorization: `Bearer ${known}` } : { ...more };
}

async function problemOf(response) {
  try {
    return await response.json();
  } catch {
    return { title: response.statusText || "an answer that is none", detail: `status ${response.status}` };
  }
}

/** The answer to one request, whole. Throws [`Refused`]. */
async function ask(method, path, { body, more = {}, signal } = {}) {
  const sent = body === undefined ? more : { "Content-Type": kindOf(method), ...more };
  let response;
  try {
    response = await fetch(path, {
      method, signal, cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer",
      headers: headers(sent), body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { title: "The control plane does not answer", detail: "It is asked again by itself." });
  }
  if (response.status === 401) onUnknown();
  if (!response.ok) throw new Refused(response.status, await problemOf(response));
  return response;
}

const kindOf = (method) => (method === "PATCH" ? "application/merge-patch+json" : "application/json");

/** GET. */
export async function get(path, signal) {
  const response = await ask("GET", path, { signal });
  return response.json();
}

/** A change, with why; the audit log keeps that. */
export async function change(method, path, body, why, more = {}) {
  // A header carries bytes: whatever is no ASCII goes as UTF-8, as the API reads it.
  const reason = String.fromCharCode(...new TextEncoder().encode(why));
  const response = await ask(method, path, { body, more: { ...more, ...(why ? { "X-Outrigger-Why": reason } : {}) } });
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

/** Server-sent events, until `signal`: each event's name and data. Over fetch, so that the token stays a header. */
export async function* events(path, signal) {
  const response = await ask("GET", path, { signal, more: { Accept: "text/event-stream" } });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (true) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const event = parse(text.slice(0, end));
      text = text.slice(end + 2);
      if (event) yield event;
    }
    // A server that never ends an event is not waited for.
    if (text.length > 1 << 20) return;
  }
}

function parse(block) {
  const event = { name: "message", data: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith("data:")) event.data += (event.data ? "\n" : "") + line.slice(5).trim();
    else if (line.startsWith("event:")) event.name = line.slice(6).trim();
  }
  return event.data || event.name !== "message" ? event : null;
}

/** A path of the API: each part is escaped. */
export const path = (...parts) => `/v1/${parts.map(encodeURIComponent).join("/")}`;
