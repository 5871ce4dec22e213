// Requests to the server, streams of its events, and the dialog that asks for an access token.

import { $, el } from "./elements.js";

let login = null;

// The response of a GET, or of a POST with `body` as JSON. Throws an Error with status and code for an error response;
// where a token is missing or unknown the login dialog opens.
export async function ask(path, body, signal) {
  const post = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal };
  const response = await fetch(path, body === undefined ? { signal } : post);
  if (response.ok) return response;
  if (response.status === 401 && path !== login?.path) login?.open();
  const wait = response.status === 429 ? response.headers.get("retry-after") : null;
  const error = (await response.json().catch(() => null))?.error;
  const message = (error?.message ?? error) || `The server answered ${response.status}`;
  throw Object.assign(new Error(message + (wait ? ` (try again in ${wait} s)` : "")), { status: response.status, code: error?.code });
}

// Yields the JSON of each server-sent event.
export async function* readEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const complete = buffer.split("\n\n");
    buffer = complete.pop();
    for (const event of complete) if (event.startsWith("data: {")) yield JSON.parse(event.slice(6));
  }
}

// Adds the login dialog: it posts the token to `path` and calls onLogin where the server knows it.
export function addLogin(path, onLogin) {
  const token = el("input", { id: "token", type: "password", autocomplete: "current-password", maxlength: "200", required: true });
  const note = el("p", { id: "login-note", role: "alert" });
  const dialog = el("dialog", { id: "login", "aria-labelledby": "login-title" },
    el("form", { onsubmit: submit }, el("h2", { id: "login-title" }, "A token, please"),
      el("label", {}, "Your token", token), note, el("button", { class: "main", type: "submit" }, "Enter")));
  async function submit(event) {
    event.preventDefault();
    try {
      await ask(path, { token: token.value.trim() });
      token.value = note.textContent = "";
      dialog.close();
      await onLogin();
    } catch (error) {
      note.textContent = error.message;
    }
  }
  document.body.append(dialog);
  login = { path, open: () => { if (!dialog.open) dialog.showModal(); } };
}

export function setStatus(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}
