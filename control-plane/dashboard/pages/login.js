// Nobody is known: a token is asked for. It stays in this tab.

import { Refused, get, token } from "../lib/api.js";
import { html, useState } from "../lib/html.js";
import { Problem } from "../lib/ui.js";

export function Login({ onKnown }) {
  const [error, setError] = useState(null);
  const enter = async (event) => {
    event.preventDefault();
    const said = new FormData(event.target).get("token").trim();
    // A header takes visible ASCII alone, and a token is nothing else.
    if (!/^[\x21-\x7e]+$/.test(said)) {
      setError(new Refused(0, { title: "That is not a token", detail: "A token is one line of letters and digits; was it copied whole?" }));
      return;
    }
    token.set(said);
    try {
      await get("/v1/whoami");
      onKnown();
    } catch (refused) {
      token.forget();
      setError(refused);
    }
  };
  return html`<main class="login">
    <h1>Outrigger</h1>
    <p>This control plane wants to know who you are. Show a token of its API; it is kept in this tab alone, until you close it or log out.</p>
    <${Problem} error=${error} />
    <form class="stack" onSubmit=${enter}>
      <label>Token<input name="token" type="password" autocomplete="off" spellcheck="false" required autofocus /></label>
      <div class="acts"><button class="strong">Log in</button></div>
    </form>
    <p class="muted small">The first start wrote one to <code>admin-token</code> in the data folder. <code>outrigger token create</code> makes
      others, with less rights: a <em>viewer</em> sees all but the audit log and certificates.</p>
  </main>`;
}
