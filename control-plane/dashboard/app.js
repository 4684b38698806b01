// The frame: who looks, where one can go, and which page is shown. One page a file in pages/.

import { Refused, get, token, whenUnknown } from "./lib/api.js";
import { html, render, useEffect, useRef, useState } from "./lib/html.js";
import { usePoll } from "./lib/poll.js";
import { Who } from "./lib/roles.js";
import { link, useRoute } from "./lib/route.js";
import { chosen, choose } from "./lib/theme.js";
import { Loading, Problem, State } from "./lib/ui.js";
import { Login } from "./pages/login.js";
import { ApiPage } from "./pages/api.js";
import { Audit } from "./pages/audit.js";
import { Certificates } from "./pages/certificates.js";
import { Changes } from "./pages/changes.js";
import { Explain } from "./pages/explain.js";
import { Proxies } from "./pages/proxies.js";
import { Proxy } from "./pages/proxy.js";
import { Rollout } from "./pages/rollout.js";
import { Rollouts } from "./pages/rollouts.js";
import { Service } from "./pages/service.js";
import { Services } from "./pages/services.js";
import { Tap } from "./pages/tap.js";
import { Topology } from "./pages/topology.js";

/** What stands in the menu, in its order. */
const MENU = [
  ["services", "Services"], ["topology", "Topology"], ["rollouts", "Rollouts"], ["tap", "Live requests"], ["explain", "Explain"],
  ["proxies", "Proxies"], ["certificates", "Certificates"], ["changes", "Changes"], ["audit", "Audit"],
];

/** The page of a path, and what it is called in the title of the window. */
function pageOf({ parts, query }) {
  const [first = "services", a, b, c] = parts;
  switch (first) {
    case "services":
      if (b && c === "api") return [`API of ${a}/${b}`, html`<${ApiPage} namespace=${a} name=${b} key=${`${a}/${b}`} />`];
      if (b) return [`${a}/${b}`, html`<${Service} namespace=${a} name=${b} key=${`${a}/${b}`} />`];
      return ["Services", html`<${Services} />`];
    case "topology": return ["Topology", html`<${Topology} />`];
    case "rollouts":
      return b ? [`Rollout ${a}/${b}`, html`<${Rollout} namespace=${a} name=${b} key=${`${a}/${b}`} />`] : ["Rollouts", html`<${Rollouts} />`];
    case "proxies": return a ? [`Proxy ${a}`, html`<${Proxy} node=${a} key=${a} />`] : ["Proxies", html`<${Proxies} />`];
    case "certificates": return ["Certificates", html`<${Certificates} />`];
    case "changes": return ["Changes", html`<${Changes} />`];
    case "audit": return ["Audit", html`<${Audit} />`];
    case "explain": return ["Explain", html`<${Explain} query=${query} />`];
    case "tap": return ["Live requests", html`<${Tap} query=${query} />`];
    default: return ["Not here", html`<h1>There is no such page</h1><p><a href="#/services">All services</a></p>`];
  }
}

function App() {
  const [who, setWho] = useState(null);
  const [error, setError] = useState(null);
  const [unknown, setUnknown] = useState(false);
  const ask = async () => {
    try {
      setWho(await get("/v1/whoami"));
      setError(null);
      setUnknown(false);
    } catch (refused) {
      if (!(refused instanceof Refused && refused.status === 401)) setError(refused);
    }
  };
  useEffect(() => {
    whenUnknown(() => setUnknown(true));
    ask();
  }, []);
  useEffect(() => {
    if (!error || who) return undefined;
    const timer = setTimeout(ask, 3000);
    return () => clearTimeout(timer);
  }, [error]);
  if (unknown) return html`<${Login} onKnown=${ask} />`;
  if (!who) return html`<main class="login"><${Problem} error=${error} />${!error && html`<${Loading} what="who you are" />`}</main>`;
  return html`<${Who.Provider} value=${who}><${Frame} who=${who} onLeave=${() => { token.forget(); setWho(null); ask(); }} /></${Who.Provider}>`;
}

function Frame({ who, onLeave }) {
  const route = useRoute();
  const [open, setOpen] = useState(false);
  const [name, page] = pageOf(route);
  const main = useRef(null);
  const first = useRef(true);
  const path = route.parts.join("/");
  useEffect(() => {
    document.title = `${name} · Outrigger`;
    setOpen(false);
    // Whoever goes somewhere begins to read there; whoever has just come is where he is.
    if (!first.current) main.current?.focus();
    first.current = false;
  }, [path]);
  const at = route.parts[0] ?? "services";
  return html`<div class="frame">
    <a class="skip" href="#main" onClick=${(e) => { e.preventDefault(); main.current?.focus(); }}>To the content</a>
    <header class="head">
      <a class="brand" href="#/services"><img src="/dashboard/icon.svg" alt="" />Outrigger</a>
      <button type="button" class="menu" aria-expanded=${open} aria-controls="menu" onClick=${() => setOpen(!open)}>Menu</button>
      <${MeshFacts} who=${who} onLeave=${onLeave} />
    </header>
    <nav class=${open ? "side open" : "side"} id="menu" aria-label="Pages"><ul>${MENU.map(([key, text]) => html`<li>
      <a href=${link(key)} aria-current=${at === key ? "page" : null}>${text}</a></li>`)}</ul></nav>
    <main ref=${main} id="main" tabindex="-1">${page}</main>
  </div>`;
}

/** What holds for the mesh as a whole, on every page. */
function MeshFacts({ who, onLeave }) {
  const { data, error } = usePoll((signal) => get("/readyz", signal), "ready", 5000);
  const [theme, setTheme] = useState(chosen());
  const turn = (e) => { choose(e.target.value); setTheme(e.target.value); };
  const away = error?.status === 0;
  return html`<div class="facts">
    ${away ? html`<${State} kind="bad">control plane away</${State}>`
      : data && html`<span>revision ${data.revision}</span>${data.status !== "ok" && html`<${State} kind="warn">${data.status}</${State}>`}`}
    ${data?.leases && html`<a href="#/proxies">${data.leases.heldBack} leases held back</a>`}
    <span>${who.who} (${who.role}${who.namespaces ? ` of ${who.namespaces.join(", ")}` : ""})</span>
    ${token.get() && html`<button type="button" onClick=${onLeave}>Log out</button>`}
    <label class="line">Theme <select value=${theme} onChange=${turn}>
      <option value="system">as the system</option><option value="light">light</option><option value="dark">dark</option></select></label>
  </div>`;
}

render(html`<${App} />`, document.getElementById("app"));
