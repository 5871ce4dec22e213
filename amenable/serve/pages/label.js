// The labelling page: login, tasks, the time at work on each, and the answers.

import { $, el, markdown, plural, turn } from "./elements.js";
import { choiceForm, compareForm, rankForm } from "./label-rank.js";
import { writeForm } from "./label-write.js";
import { addLogin, ask } from "./requests.js";

const NAMES = { rank: "Rank", compare: "Compare", demonstrate: "Write", converse: "Converse" };
const POLL = 2; // seconds after which the page looks for further clips
const IDLE = 60; // seconds without activity that no longer count as work
let me = null;
let task = null;
let form = null;
let kind = null;
let worked = 0;
let lastActivity = 0;
let busy = false;

// {status, data} of a request; status 0 and an error where the server does not answer.
async function call(path, body) {
  try {
    return { status: 200, data: await (await ask(path, body)).json() };
  } catch (error) {
    if (error.status) return { status: error.status, data: { error: error.message } };
    return { status: 0, data: { error: "The server does not answer. What you did here is kept in this browser; try again." } };
  }
}
async function post(path, body) {
  const { status, data } = await call(path, body);
  if (status === 200) return data;
  toast(data.error, true);
  return null;
}

async function begin() {
  const link = /^#token=(.+)$/.exec(location.hash);
  if (link) {
    history.replaceState(null, "", location.pathname);
    await call("/api/enter", { token: decodeURIComponent(link[1]) });
  }
  const { status, data } = await call("/api/me");
  if (status === 401) return undefined; // the login dialog is open
  if (status !== 200) return toast(data.error, true);
  me = data;
  $("me").replaceChildren(el("span", { class: "name" }, me.name), ...(me.role === "owner" ? [el("a", { href: "/owner" }, "Owner’s page")] : []),
    ...(me.entered ? [el("button", { type: "button", onclick: leave }, "Leave")] : []));
  $("reasons").replaceChildren(el("legend", {}, "Why?"), ...me.reasons.map((reason, n) => el("label", {}, el("input", { type: "radio", name: "reason", value: reason, checked: n === 0 }), el("span", {}, reason))));
  const wanted = stored("kind");
  kind = me.kinds.includes(wanted) ? wanted : me.kinds[0];
  $("kinds").replaceChildren(...me.kinds.map((each) => el("button", { type: "button", "data-kind": each, onclick: () => change(each) }, NAMES[each])));
  await next();
  if (!stored("told")) { help(); store("told", "yes"); }
}

async function leave() { await call("/api/leave", {}); location.reload(); }
function change(newKind) { saveDraft(); kind = newKind; store("kind", kind); next(); }

async function next() {
  const data = await post("/api/next", { kind });
  $("kinds").querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.kind === kind)));
  if (data) show(data);
}

function show({ task: newTask, progress }) {
  task = newTask;
  showProgress(progress);
  $("foot").hidden = !task;
  $("asked").replaceChildren();
  if (!task) {
    form = null;
    $("work").replaceChildren(el("div", { class: "done" }, el("h1", {}, me.clips ? "Waiting for clips" : "Nothing left here"), el("p", {}, me.thanks)));
    if (me.clips) setTimeout(() => { if (!task) next(); }, POLL * 1000);
    return;
  }
  const draft = JSON.parse(stored(`draft ${task.assignment}`) ?? "null") ?? task.former;
  const page = { flags: me.flags, suggests: me.suggests, clips: me.clips, post, changed, announce, skip, send };
  const make = { rank: rankForm, compare: me.one_key ? choiceForm : compareForm }[task.kind] ?? writeForm;
  form = make(task, draft, page);
  const question = el("h1", {}, task.prompt[0]?.content ?? "Which clip is better?");
  $("asked").replaceChildren(...(me.clips ? [question] : task.prompt.length ? [el("h1", {}, "What was asked"), ...task.prompt.map(turn)] : [el("h1", {}, "A conversation of your own"), el("p", { class: "note" }, "You play both sides: ask something as a person would, and answer as a good assistant would.")]));
  $("work").replaceChildren(form.node);
  document.body.dataset.kind = task.kind;
  document.body.classList.toggle("one-key", me.one_key && task.kind === "compare");
  $("notes").value = draft?.notes ?? "";
  $("keys").replaceChildren(...[...form.keys, ["U", "take the last answer back"], ["S", "skip"], ["?", "this list"]].flatMap(([k, meaning]) => [el("dt", {}, el("kbd", {}, k)), el("dd", {}, meaning)]));
  $("send").replaceChildren("Send", el("kbd", {}, ["demonstrate", "converse"].includes(task.kind) ? "Ctrl Enter" : "Enter"));
  worked = Number(draft?.worked ?? 0);
  lastActivity = Date.now();
  changed();
  window.scrollTo(0, 0);
  form.focus();
}
function showProgress(progress) {
  const of = progress.tasks ? ` · ${progress.answered} of ${plural(progress.tasks, "task")} answered` : "";
  $("progress").textContent = `${progress.mine} by you${of}`;
}

function changed() {
  const missing = form.ready();
  $("missing").textContent = missing;
  $("send").disabled = busy || Boolean(missing);
  saveDraft();
}
function saveDraft() { if (form && task) store(`draft ${task.assignment}`, JSON.stringify({ ...form.state(), notes: $("notes").value, worked })); }
function announce(text) { $("spoken").textContent = text; }
function toast(text, bad = false) {
  $("say").textContent = text;
  $("say").classList.toggle("bad", bad);
  $("say").hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { $("say").hidden = true; }, bad ? 8000 : 2500);
}

async function finish(path, body, words) {
  if (busy) return;
  busy = true;
  $("send").disabled = true;
  const { assignment } = task;
  const { status, data } = await call(path, { assignment, notes: $("notes").value, seconds: Math.round(worked * 10) / 10, ...body });
  if (status === 200) {
    localStorage.removeItem(`draft ${assignment}`);
    if (words) toast(words);
  } else toast(data.error, true);
  if ([200, 404, 409].includes(status)) await next(); // not 200: answered in another tab, or with somebody else by now
  busy = false;
  if (form) changed();
}
function send() { if (form && !form.ready()) finish(form.path, form.body(), form.quiet ? "" : "Kept. Thank you."); }
function skip(reason, notes) { finish("/api/skip", { reason, ...(notes ? { notes } : {}) }, "Skipped."); }
async function undo() {
  saveDraft();
  const data = await post("/api/undo", {});
  if (!data) return;
  kind = data.task.kind;
  $("kinds").querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.kind === kind)));
  show(data);
  toast("Your last answer is taken back: change it and send it again.");
}
function help() {
  $("instructions-text").replaceChildren(markdown(me.instructions, { links: true, heading: (level) => level + 1 }));
  $("instructions").showModal();
}

// Time at work: the page is in view and was used within IDLE seconds.
function noteActivity() { lastActivity = Date.now(); }
setInterval(() => {
  if (!task || document.hidden || Date.now() - lastActivity > IDLE * 1000) return;
  worked += 1;
  $("clock").textContent = `${Math.floor(worked / 60)}:${String(worked % 60 | 0).padStart(2, "0")}`;
  if (worked % 15 === 0) saveDraft();
  if (worked % Math.max(60, Math.round(me.lease / 3)) === 0) call("/api/hold", { assignment: task.assignment });
}, 1000);
for (const sign of ["pointermove", "pointerdown", "keydown", "scroll"]) document.addEventListener(sign, noteActivity, { passive: true });

document.addEventListener("keydown", (event) => {
  if (!form || busy || document.querySelector("dialog[open]")) return;
  const typing = event.target.closest("textarea, input:not([type=range]):not([type=radio]):not([type=checkbox]), select");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); return; }
  if (event.key === "Enter" && event.altKey && form.alt) { event.preventDefault(); form.alt(); return; }
  if (typing || event.ctrlKey || event.metaKey) return;
  const pressing = event.target.closest("button, summary, a, input[type=radio], input[type=checkbox]");
  if (pressing && ["Enter", " ", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].includes(event.key)) return;
  if (form.key(event)) { event.preventDefault(); return; }
  if (event.key === "Enter") { event.preventDefault(); if (!form.ready()) send(); }
  else if (event.key === "u") undo();
  else if (event.key === "s") { event.preventDefault(); $("why").showModal(); }
  else if (event.key === "?") help();
});
new ResizeObserver(([{ target }]) => document.body.style.setProperty("--foot", `${target.offsetHeight}px`)).observe($("foot"));
$("send").addEventListener("click", send);
$("undo").addEventListener("click", undo);
$("help").addEventListener("click", help);
$("skip").addEventListener("click", () => $("why").showModal());
$("notes").addEventListener("input", saveDraft);
$("why").addEventListener("close", () => {
  if ($("why").returnValue === "yes") skip(document.querySelector("[name=reason]:checked").value, $("why-notes").value || $("notes").value);
  $("why-notes").value = "";
  $("why").returnValue = "";
});

// Another tab has answered the task that is open here: its draft is gone.
addEventListener("storage", (event) => {
  if (!task || busy || event.key !== `draft ${task.assignment}` || event.newValue !== null) return;
  toast("Answered in another tab.");
  next();
});

function store(name, value) { try { localStorage.setItem(name, value); } catch { /* a browser that keeps nothing */ } }
function stored(name) { try { return localStorage.getItem(name); } catch { return null; } }

addLogin("/api/enter", begin);
begin();
