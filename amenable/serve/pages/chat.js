// The chat page: conversations kept in this browser, answers streamed, and what a person thinks of them sent back.

import { $, completion, el, fitHeight, markdown, plain, sends } from "./elements.js";
import { rankForm } from "./chat-rank.js";
import { freshId, loadChats, read, removeChat, saveChat, watchChats } from "./chat-store.js";
import { addLogin, ask, readEvents, setStatus } from "./requests.js";

const SETTINGS_KEY = "amenable-settings";
const RANKED = 4; // answers to rank at once
const settings = { temperature: 0.7, top_p: 0.95, top_k: 0, max_tokens: 128, system: "", model: "", ...read(SETTINGS_KEY, {}) };
let chats = loadChats();
let now = chats[0]?.id || null;
let running = null;
let ranking = null;
let editing = null;

function tryStore(write) {
  try {
    write();
  } catch {
    setStatus("This browser keeps nothing here: the conversations end with the page.", true);
  }
}

const saveSettings = () => tryStore(() => localStorage.setItem(SETTINGS_KEY, JSON.stringify(settings)));

function storeChat(chat) {
  const id = chat.id;
  tryStore(() => saveChat(chat));
  if (chat.id === id) return;
  setStatus("Another tab has changed this conversation too: what was said here is kept as a conversation of its own.");
  chats = loadChats().map((stored) => (stored.id === chat.id ? chat : stored));
  if (now === id) now = chat.id;
}

// Takes over a conversation that another tab stored (null: removed), unless it is being changed here.
function mergeFromTab(id, stored) {
  const here = chats.findIndex((chat) => chat.id === id);
  if (id === now && (running || ranking || editing !== null)) return;
  if (stored && here >= 0) chats[here] = stored;
  else if (stored) chats.unshift(stored);
  else if (here >= 0 && id !== now) chats.splice(here, 1);
  show();
}

const current = () => chats.find((chat) => chat.id === now);

// ---- display

function show() {
  const chat = current();
  $("list").replaceChildren(...chats.map((each) =>
    el("li", { class: each.id === now ? "now" : "" },
      el("button", { type: "button", class: "title", dir: "auto", "aria-current": each.id === now ? "true" : null, onclick: () => open(each.id) }, each.title || "New conversation"),
      el("button", { type: "button", class: "gone", "aria-label": `Delete ${each.title || "conversation"}`, onclick: () => remove(each.id) }, "✕"))));
  const turns = chat ? chat.turns.map(turnNode) : [];
  if (!turns.length) turns.push(el("div", { class: "hello" }, el("h2", {}, "Ask something"), el("p", { class: "note" }, "Enter sends, Shift+Enter makes a new line, Esc stops an answer.")));
  if (ranking) turns.push(ranking);
  $("thread").replaceChildren(...turns);
  $("stop").hidden = !running;
  $("send").hidden = Boolean(running);
}

function turnNode(turn, index) {
  const last = index === current().turns.length - 1;
  if (turn.role === "user") {
    if (editing === index) return editNode(turn, index);
    return el("article", { class: "turn user" }, el("p", { class: "who unseen" }, "You"), plain(turn.content),
      actions(action("Edit", () => { editing = index; show(); $("thread").querySelector("form textarea").focus(); })));
  }
  const live = running && last;
  const text = live && !turn.content ? el("div", { class: "text" }, el("p", {}, "\u200b")) : completion(turn.content);
  const thumb = (up, name) => action(name, () => judge(index, up), { "aria-pressed": String(turn.up === up), title: `${name} answer` });
  return el("article", { class: `turn assistant${live ? " live" : ""}` }, el("p", { class: "who" }, turn.model), text,
    live ? null : actions(thumb(true, "Good"), thumb(false, "Bad"),
      last && action("Regenerate", () => regenerate()), last && action("Rank several", () => rankSeveral())));
}

const actions = (...all) => el("div", { class: "deeds" }, all);
const action = (name, act, more = {}) => el("button", { type: "button", disabled: Boolean(running), onclick: act, ...more }, name);

function editNode(turn, index) {
  const box = el("textarea", { rows: 3, dir: "auto", maxlength: 20000, "aria-label": "Your message" });
  box.value = turn.content;
  const leave = () => { editing = null; show(); };
  const form = el("form", {}, box, el("div", { class: "buttons" }, el("button", { type: "submit", class: "main" }, "Send again"), el("button", { type: "button", onclick: leave }, "Leave it")));
  box.addEventListener("keydown", (event) => { if (event.key === "Escape") leave(); else if (sends(event)) form.requestSubmit(); });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!box.value.trim() || running) return;
    editing = null;
    current().turns.splice(index);
    say(box.value.trim());
  });
  return el("article", { class: "turn user" }, form);
}

function isAtEnd() {
  const thread = $("thread");
  return thread.scrollHeight - thread.scrollTop - thread.clientHeight < 80;
}

const scrollToEnd = () => { $("thread").scrollTop = $("thread").scrollHeight; };

// ---- conversations

function open(id) {
  stop();
  ranking = editing = null;
  now = id;
  setStatus("");
  show();
  scrollToEnd();
  closeMenu();
}

function begin() {
  open(null);
  $("say").focus();
}

function remove(id) {
  if (id === now) stop();
  chats = chats.filter((chat) => chat.id !== id);
  tryStore(() => removeChat(id));
  if (id === now) open(chats[0]?.id || null);
  show();
}

function say(text) {
  if (!current()) {
    now = freshId();
    chats.unshift({ id: now, title: text.slice(0, 60), turns: [] });
  }
  current().turns.push({ role: "user", content: text });
  storeChat(current());
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

const sampling = () => ({ temperature: settings.temperature, top_p: settings.top_p, top_k: settings.top_k, max_tokens: settings.max_tokens });

async function answer() {
  const chat = current();
  const body = request(chat.turns, { stream: true });
  const turn = { role: "assistant", content: "", model: settings.model, id: freshId(), drawn: sampling() };
  const mine = (running = new AbortController());
  chat.turns.push(turn);
  setStatus("");
  show();
  scrollToEnd();
  try {
    const reply = await ask("/v1/chat/completions", body, mine.signal);
    noteDropped(reply);
    for await (const event of readEvents(reply.body)) {
      if (event.error) throw new Error(event.error.message);
      turn.content += event.choices[0]?.delta?.content || "";
      if (now === chat.id) grow(turn);
    }
    turn.content = turn.content.trim();
  } catch (error) {
    if (error.name !== "AbortError") setStatus(error.message, true);
    else setStatus("Stopped.");
  }
  turn.content = turn.content.trim();
  if (!turn.content) {
    chat.turns.splice(chat.turns.indexOf(turn), 1);
    if (!$("status").textContent) setStatus("The model said nothing.");
  }
  if (running === mine) running = null;
  storeChat(chat);
  show();
  if (now === chat.id) scrollToEnd();
}

function noteDropped(reply) {
  const dropped = Number(reply.headers.get("x-dropped-messages"));
  if (dropped) setStatus(`The model's context is full: it no longer sees the ${dropped} oldest messages.`);
}

function grow(turn) {
  const follow = isAtEnd();
  const text = $("thread").querySelector(".turn.live .text");
  if (text) text.replaceChildren(markdown(turn.content));
  if (follow) scrollToEnd();
}

function stop() {
  running?.abort();
  running = null;
}

// ---- thumbs and rankings

async function judge(index, up) {
  const chat = current();
  const turns = chat.turns.slice(0, index + 1);
  const turn = turns[index];
  const messages = request(turns, {}).messages;
  try {
    await ask("/feedback/thumb", { id: `${turn.id}-${up ? "up" : "down"}-${freshId().slice(0, 6)}`, model: turn.model, messages, up, sampling: turn.drawn });
    turn.up = up;
    storeChat(chat);
    setStatus("Noted, thank you.");
  } catch (error) {
    setStatus(error.message, true);
  }
  show();
}

async function rankSeveral() {
  const chat = current();
  const before = chat.turns.slice(0, -1);
  const first = chat.turns[chat.turns.length - 1];
  const mine = (running = new AbortController());
  setStatus("More answers to the same are being written ...");
  show();
  try {
    const reply = await ask("/v1/chat/completions", request(before, { n: RANKED - 1 }), mine.signal);
    const others = (await reply.json()).choices.map((choice) => ({ ...first, content: choice.message.content.trim(), model: settings.model, id: freshId(), drawn: sampling(), up: undefined }));
    const answers = shuffled([first, ...others].filter((turn) => turn.content));
    setStatus(answers.length < 2 ? "The model said nothing else." : "");
    if (answers.length > 1 && now === chat.id) ranking = rankForm(answers.map((turn) => turn.content), (ranks, seconds) => sendRanks(chat, before, answers, ranks, seconds), () => { ranking = null; show(); });
  } catch (error) {
    setStatus(error.name === "AbortError" ? "Stopped." : error.message, error.name !== "AbortError");
  }
  if (running === mine) running = null;
  show();
  ranking?.scrollIntoView({ block: "start" });
  ranking?.querySelector("input")?.focus({ preventScroll: true });
}

async function sendRanks(chat, before, answers, ranks, seconds) {
  const body = { id: freshId(), messages: request(before, {}).messages, completions: answers.map((turn) => turn.content), ranking: ranks, models: answers.map((turn) => turn.model), sampling: sampling(), seconds };
  try {
    await ask("/feedback/ranking", body);
  } catch (error) {
    setStatus(error.message, true);
    throw error;
  }
  chat.turns[chat.turns.length - 1] = answers[ranks.indexOf(1)];
  ranking = null;
  storeChat(chat);
  setStatus("The order is kept, thank you.");
  show();
}

function shuffled(list) {
  for (let i = list.length - 1; i > 0; i--) {
    const j = crypto.getRandomValues(new Uint32Array(1))[0] % (i + 1);
    [list[i], list[j]] = [list[j], list[i]];
  }
  return list;
}

// ---- settings, keys, login

function closeMenu() {
  $("side").classList.remove("open");
  $("menu").setAttribute("aria-expanded", "false");
}

async function loadModels() {
  const models = (await (await ask("/v1/models")).json()).data.filter((model) => model.kind !== "reward");
  $("model").replaceChildren(...models.map((model) => el("option", { value: model.id }, model.id)));
  if (!models.some((model) => model.id === settings.model)) settings.model = models[0]?.id || "";
  $("model").value = settings.model;
}

function addListeners() {
  for (const name of ["temperature", "top_p", "top_k", "max_tokens", "system"]) {
    const box = $(name);
    box.value = settings[name];
    const set = () => {
      if (!box.checkValidity() || (box.type === "number" && box.value === "")) return;
      settings[name] = name === "system" ? box.value : Number(box.value);
      if ($(`${name}-is`)) $(`${name}-is`).textContent = Number(box.value).toFixed(2);
      saveSettings();
    };
    box.addEventListener("input", set);
    set();
  }
  $("settings").addEventListener("submit", (event) => event.preventDefault());
  $("model").addEventListener("change", () => { settings.model = $("model").value; saveSettings(); });
  $("tune").addEventListener("click", () => {
    $("settings").hidden = !$("settings").hidden;
    $("tune").setAttribute("aria-expanded", String(!$("settings").hidden));
  });
  $("menu").addEventListener("click", () => $("menu").setAttribute("aria-expanded", String($("side").classList.toggle("open"))));
  $("new").addEventListener("click", begin);
  $("stop").addEventListener("click", () => { stop(); $("say").focus(); });
  $("say").addEventListener("input", () => fitHeight($("say")));
  $("say").addEventListener("keydown", (event) => { if (sends(event)) { event.preventDefault(); $("composer").requestSubmit(); } });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && running) stop(); });
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("say").value.trim();
    if (!text || running) return;
    ranking = editing = null;
    $("say").value = "";
    fitHeight($("say"));
    say(text);
  });
  addLogin("/login", async () => { await loadModels(); setStatus(""); });
}

addListeners();
watchChats(mergeFromTab);
show();
scrollToEnd();
loadModels().catch((error) => setStatus(error.message, true)).finally(() => $("say").focus());
