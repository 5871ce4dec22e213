// What both pages of the arena need: asking the server, and the door for those without a token.

export const $ = (id) => document.getElementById(id);

export async function ask(path, body, signal) {
  const post = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal };
  const reply = await fetch(path, body === undefined ? { signal } : post);
  if (reply.ok) return reply;
  if (reply.status === 401 && path !== "/login" && !$("door").open) $("door").showModal();
  const wait = reply.headers.get("retry-after");
  const said = await reply.json().catch(() => null);
  const why = (said?.error?.message || `The server answered ${reply.status}`) + (wait && reply.status === 429 ? ` (try again in ${wait} s)` : "");
  throw Object.assign(new Error(why), { status: reply.status, code: said?.error?.code });
}

export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const whole = held.split("\n\n");
    held = whole.pop();
    for (const event of whole) if (event.startsWith("data: {")) yield JSON.parse(event.slice(6));
  }
}

export function guardDoor(entered) {
  $("login").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await ask("/login", { token: $("token").value.trim() });
      $("token").value = "";
      $("door").close();
      entered();
    } catch (error) {
      $("door-note").textContent = error.message;
    }
  });
}

export function tell(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}
