/** The login: credentials in exchange for a session. */
import { Problem, address, ask, capabilities, learnUser } from "../api.js";
import { html, signal, useState } from "../ui.js";

/** @param {string} text */
function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}

/** Why the link that opened the page did not log in. */
const linkError = signal("");

/**
 * Log in with the code of `#login=CODE`, if the address has one. It is taken out, so that no history keeps it. Who has
 * logged in already keeps the session, so that nobody becomes another user by a link.
 */
export async function useLink() {
  const [, code] = /^#login=(.*)$/.exec(location.hash) ?? [];
  if (!code) return;
  history.replaceState(null, "", "#/");
  if (capabilities.value) return;
  try {
    await ask("POST", address("session"), { body: {}, headers: { Authorization: `Offer ${encodeURIComponent(code)}` } });
    await learnUser();
  } catch (failure) {
    if (!(failure instanceof Problem)) throw failure;
    linkError.value = failure.status === 401 ? "This link was used already, or is too old. Log in with the token." : failure.message;
  }
}

export function LoginView() {
  const [error, setError] = useState("");
  const [isBusy, setBusy] = useState(false);
  /** @param {any} event */
  const enter = async (event) => {
    event.preventDefault();
    const [name, token] = ["username", "password"].map((field) => event.target.elements[field].value);
    const credentials = name ? `Basic ${base64(`${name}:${token}`)}` : bearer(token);
    setBusy(true);
    setError("");
    try {
      await ask("POST", address("session"), { body: {}, headers: { Authorization: credentials } });
      await learnUser();
    } catch (failure) {
      if (!(failure instanceof Problem)) throw failure;
      setError(failure.status === 401 ? "This token is wrong. Nothing was opened." : failure.message);
      setBusy(false);
    }
  };
  return html`<main class="login">
    <form onSubmit=${enter} aria-labelledby="login-title">
      <h1 id="login-title">Rapids</h1>
      <p class="muted">What failed, why, and how to put it right.</p>
      <label><span>Your name <span class="muted">(optional)</span></span>
        <input name="username" autocomplete="username" maxlength="128" pattern="[^:]*" title="A name without a colon" autofocus />
      </label>
      <label>Token or password
        <input name="password" type="password" autocomplete="current-password" required />
      </label>
      ${(error || linkError.value) && html`<p class="failure" role="alert">${error || linkError.value}</p>`}
      <button class="primary" disabled=${isBusy}>${isBusy ? "Checking…" : "Log in"}</button>
      <p class="hint">
        With <code>RAPIDS_ADMIN_TOKEN</code>, histories show the name. Without a name, what you type is sent as a bearer
        token. The session ends after 12 hours.
      </p>
    </form>
  </main>`;
}

/** Bytes as the API compares them: the characters of a header are single bytes. @param {string} token */
function bearer(token) {
  return `Bearer ${String.fromCharCode(...new TextEncoder().encode(token))}`;
}
