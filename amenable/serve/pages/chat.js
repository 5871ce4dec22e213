// The chat page: conversations kept in this browser, answers streamed, and what a person thinks of them sent back.

import { completion, el, markdown, plain } from "./elements.js";
import { rankForm } from "./chat-rank.js";
import { freshId, loadChats, read, removeChat, saveChat, watchChats } from "./chat-store.js";

const $ = (id) => document.getElementById(id);
const CHOSEN = "amenable-settings";
const RANKED = 4; // answers to rank at once
const settings = { temperature: 0.7, top_p: 0.95, top_k: 0, max_tokens: 128, system: "", model: "", ...read(CHOSEN, {}) };
let chats = loadChats();
let now = chats[0]?.id || null;
let running = null;
let ranking = null;
let editing = null;

function keep(write) {
  try {
    write();
  } catch {
    tell("This browser keeps nothing here: the conversations end with the page.", true);
  }
}

const keepSettings = () => keep(() => localStorage.setItem(CHOSEN, JSON.stringify(settings)));

function keepChat(chat) {
  const id = chat.id;
  keep(() => saveChat(chat));
  if (chat.id === id) return;
  tell("Another tab has changed this conversation too: what was said here is kept as a conversation of its own.");
  chats = loadChats().map((kept) => (kept.id === chat.id ? chat : kept));
  if (now === id) now = chat.id;
}

// What another tab has written. A conversation that something is being done to here stays as it is until that is kept.
function takeOver(id, kept) {
  const here = chats.findIndex((chat) => chat.id === id);
  if (id === now && (running || ranking || editing !== null)) return;
  if (kept && here >= 0) chats[here] = kept;
  else if (kept) chats.unshift(kept);
  else if (here >= 0 && id !== now) chats.splice(here, 1);
  show();
}

const current = () => chats.find((chat) => chat.id === now);

function tell(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

async function ask(path, body, signal) {
  const post = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal };
  const reply = await fetch(path, body === undefined ? { signal } : post);
  if (reply.ok) return reply;
  if (reply.status === 401 && path !== "/login") openDoor();
  const wait = reply.headers.get("retry-after");
  const said = await reply.json().catch(() => null);
  throw new Error((said?.error?.message || `The server answered ${reply.status}`) + (wait && reply.status === 429 ? ` (try again in ${wait} s)` : ""));
}

// ---- what is on the page

function show() {
  const chat = current();
  $("list").replaceChildren(...chats.map((one) =>
    el("li", { class: one.id === now ? "now" : "" },
      el("button", { type: "button", class: "title", dir: "auto", "aria-current": one.id === now ? "true" : null, onclick: () => open(one.id) }, one.title || "New conversation"),
      el("button", { type: "button", class: "gone", "aria-label": `Delete ${one.title || "conversation"}`, onclick: () => remove(one.id) }, "✕"))));
  const turns = chat ? chat.turns.map(turnNode) : [];
  if (!turns.length) turns.push(el("div", { class: "hello" }, el("h2", {}, "Ask something"), el("p", { class: "note" }, "Enter sends, Shift+Enter makes a new line, Esc stops an answer.")));
  if (ranking) turns.push(ranking);
  $("thread").replaceChildren(...turns);
  $("stop").hidden = !running;
  $("send").hidden = Boolean(running);
}

function turnNode(turn, place) {
  const last = place === current().turns.length - 1;
  if (turn.role === "user") {
    if (editing === place) return editNode(turn, place);
    return el("article", { class: "turn user" }, el("p", { class: "who unseen" }, "You"), plain(turn.content),
      deeds(deed("Edit", () => { editing = place; show(); $("thread").querySelector("form textarea").focus(); })));
  }
  const live = running && last;
  const text = live && !turn.content ? el("div", { class: "text" }, el("p", {}, "\u200b")) : completion(turn.content);
  const thumb = (up, name) => deed(name, () => judge(place, up), { "aria-pressed": String(turn.up === up), title: `${name} answer` });
  return el("article", { class: `turn assistant${live ? " live" : ""}` }, el("p", { class: "who" }, turn.model), text,
    live ? null : deeds(thumb(true, "Good"), thumb(false, "Bad"),
      last && deed("Regenerate", () => regenerate()), last && deed("Rank several", () => rankSeveral())));
}

const deeds = (...all) => el("div", { class: "deeds" }, all);
const deed = (name, act, more = {}) => el("button", { type: "button", disabled: Boolean(running), onclick: act, ...more }, name);

function editNode(turn, place) {
  const box = el("textarea", { rows: 3, dir: "auto", maxlength: 20000, "aria-label": "Your message" });
  box.value = turn.content;
  const leave = () => { editing = null; show(); };
  const form = el("form", {}, box, el("div", { class: "buttons" }, el("button", { type: "submit", class: "main" }, "Send again"), el("button", { type: "button", onclick: leave }, "Leave it")));
  box.addEventListener("keydown", (event) => { if (event.key === "Escape") leave(); else if (sends(event)) form.requestSubmit(); });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!box.value.trim() || running) return;
    editing = null;
    current().turns.splice(place);
    say(box.value.trim());
  });
  return el("article", { class: "turn user" }, form);
}

function atEnd() {
  const thread = $("thread");
  return thread.scrollHeight - thread.scrollTop - thread.clientHeight < 80;
}

const toEnd = () => { $("thread").scrollTop = $("thread").scrollHeight; };

// ---- conversations

function open(id) {
  halt();
  ranking = editing = null;
  now = id;
  tell("");
  show();
  toEnd();
  closeMenu();
}

function begin() {
  open(null);
  $("say").focus();
}

function remove(id) {
  if (id === now) halt();
  chats = chats.filter((chat) => chat.id !== id);
  keep(() => removeChat(id));
  if (id === now) open(chats[0]?.id || null);
  show();
}

function say(text) {
  if (!current()) {
    now = freshId();
    chats.unshift({ id: now, title: text.slice(0, 60), turns: [] });
  }
  current().turns.push({ role: "user", content: text });
  keepChat(current());
  answer();
}

function regenerate() {
  const turns = current().turns;
  while (turns.length && turns[turns.length - 1].role === "assistant") turns.pop();
  answer();
}

// ---- answers

function request(turns, more) {
  const { temperature, top_p, top_k, max_tokens, model } = settings;
  const system = settings.system.trim() ? [{ role: "system", content: settings.system.trim() }] : [];
  const messages = [...system, ...turns.map(({ role, content }) => ({ role, content }))];
  return { model, messages, temperature, top_p, top_k, max_tokens, truncation: "auto", ...more };
}

const drawn = () => ({ temperature: settings.temperature, top_p: settings.top_p, top_k: settings.top_k, max_tokens: settings.max_tokens });

async function answer() {
  const chat = current();
  const body = request(chat.turns, { stream: true });
  const turn = { role: "assistant", content: "", model: settings.model, id: freshId(), drawn: drawn() };
  const mine = (running = new AbortController());
  chat.turns.push(turn);
  tell("");
  show();
  toEnd();
  try {
    const reply = await ask("/v1/chat/completions", body, mine.signal);
    noteDropped(reply);
    for await (const event of events(reply.body)) {
      if (event.error) throw new Error(event.error.message);
      turn.content += event.choices[0]?.delta?.content || "";
      if (now === chat.id) grow(turn);
    }
    turn.content = turn.content.trim();
  } catch (error) {
    if (error.name !== "AbortError") tell(error.message, true);
    else tell("Stopped.");
  }
  turn.content = turn.content.trim();
  if (!turn.content) {
    chat.turns.splice(chat.turns.indexOf(turn), 1);
    if (!$("status").textContent) tell("The model said nothing.");
  }
  if (running === mine) running = null;
  keepChat(chat);
  show();
  if (now === chat.id) toEnd();
}

function noteDropped(reply) {
  const dropped = Number(reply.headers.get("x-dropped-messages"));
  if (dropped) tell(`The model's context is full: it no longer sees the ${dropped} oldest messages.`);
}

async function* events(stream) {
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

function grow(turn) {
  const follow = atEnd();
  const text = $("thread").querySelector(".turn.live .text");
  if (text) text.replaceChildren(markdown(turn.content));
  if (follow) toEnd();
}

function halt() {
  running?.abort();
  running = null;
}

// ---- what people think of them

async function judge(place, up) {
  const chat = current();
  const turns = chat.turns.slice(0, place + 1);
  const turn = turns[place];
  const messages = request(turns, {}).messages;
  try {
    await ask("/feedback/thumb", { id: `${turn.id}-${up ? "up" : "down"}-${freshId().slice(0, 6)}`, model: turn.model, messages, up, sampling: turn.drawn });
    turn.up = up;
    keepChat(chat);
    tell("Noted, thank you.");
  } catch (error) {
    tell(error.message, true);
  }
  show();
}

async function rankSeveral() {
  const chat = current();
  const before = chat.turns.slice(0, -1);
  const first = chat.turns[chat.turns.length - 1];
  const mine = (running = new AbortController());
  tell("More answers to the same are being written ...");
  show();
  try {
    const reply = await ask("/v1/chat/completions", request(before, { n: RANKED - 1 }), mine.signal);
    const made = (await reply.json()).choices.map((choice) => ({ ...first, content: choice.message.content.trim(), model: settings.model, id: freshId(), drawn: drawn(), up: undefined }));
    const answers = shuffled([first, ...made].filter((one) => one.content));
    tell(answers.length < 2 ? "The model said nothing else." : "");
    if (answers.length > 1 && now === chat.id) ranking = rankForm(answers.map((one) => one.content), (ranks, seconds) => keepRanks(chat, before, answers, ranks, seconds), () => { ranking = null; show(); });
  } catch (error) {
    tell(error.name === "AbortError" ? "Stopped." : error.message, error.name !== "AbortError");
  }
  if (running === mine) running = null;
  show();
  ranking?.scrollIntoView({ block: "start" });
  ranking?.querySelector("input")?.focus({ preventScroll: true });
}

async function keepRanks(chat, before, answers, ranks, seconds) {
  const body = { id: freshId(), messages: request(before, {}).messages, completions: answers.map((one) => one.content), ranking: ranks, models: answers.map((one) => one.model), sampling: drawn(), seconds };
  try {
    await ask("/feedback/ranking", body);
  } catch (error) {
    tell(error.message, true);
    throw error;
  }
  chat.turns[chat.turns.length - 1] = answers[ranks.indexOf(1)];
  ranking = null;
  keepChat(chat);
  tell("The order is kept, thank you.");
  show();
}

function shuffled(list) {
  for (let i = list.length - 1; i > 0; i--) {
    const j = crypto.getRandomValues(new Uint32Array(1))[0] % (i + 1);
    [list[i], list[j]] = [list[j], list[i]];
  }
  return list;
}

// ---- settings, keys, the door

const sends = (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing;

function fit() {
  $("say").style.height = "auto";
  $("say").style.height = `${$("say").scrollHeight + 2}px`;
}

function closeMenu() {
  $("side").classList.remove("open");
  $("menu").setAttribute("aria-expanded", "false");
}

function openDoor() {
  if (!$("door").open) $("door").showModal();
}

async function meet() {
  const found = (await (await ask("/v1/models")).json()).data.filter((model) => model.kind !== "reward");
  $("model").replaceChildren(...found.map((model) => el("option", { value: model.id }, model.id)));
  if (!found.some((model) => model.id === settings.model)) settings.model = found[0]?.id || "";
  $("model").value = settings.model;
}

function arrange() {
  for (const name of ["temperature", "top_p", "top_k", "max_tokens", "system"]) {
    const box = $(name);
    box.value = settings[name];
    const set = () => {
      if (!box.checkValidity() || (box.type === "number" && box.value === "")) return;
      settings[name] = name === "system" ? box.value : Number(box.value);
      if ($(`${name}-is`)) $(`${name}-is`).textContent = Number(box.value).toFixed(2);
      keepSettings();
    };
    box.addEventListener("input", set);
    set();
  }
  $("settings").addEventListener("submit", (event) => event.preventDefault());
  $("model").addEventListener("change", () => { settings.model = $("model").value; keepSettings(); });
  $("tune").addEventListener("click", () => {
    $("settings").hidden = !$("settings").hidden;
    $("tune").setAttribute("aria-expanded", String(!$("settings").hidden));
  });
  $("menu").addEventListener("click", () => $("menu").setAttribute("aria-expanded", String($("side").classList.toggle("open"))));
  $("new").addEventListener("click", begin);
  $("stop").addEventListener("click", () => { halt(); $("say").focus(); });
  $("say").addEventListener("input", fit);
  $("say").addEventListener("keydown", (event) => { if (sends(event)) { event.preventDefault(); $("composer").requestSubmit(); } });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && running) halt(); });
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("say").value.trim();
    if (!text || running) return;
    ranking = editing = null;
    $("say").value = "";
    fit();
    say(text);
  });
  $("login").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await ask("/login", { token: $("token").value.trim() });
      $("token").value = "";
      $("door").close();
      await meet();
      tell("");
    } catch (error) {
      $("door-note").textContent = error.message;
    }
  });
}

arrange();
watchChats(takeOver);
show();
toEnd();
meet().catch((error) => tell(error.message, true)).finally(() => $("say").focus());
