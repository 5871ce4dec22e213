// The arena: one message to two hidden models, their answers side by side, a vote, and only then their names.

import { $, completion, el, fitHeight, folded, markdown, plain, sends } from "./elements.js";
import { addLogin, ask, readEvents, setStatus } from "./requests.js";

const STORAGE_KEY = "amenable-battle";
const SIDES = ["left", "right"];
const NAMES = { left: "Left", right: "Right" };
const VOTES = [["left", "Left is better"], ["right", "Right is better"], ["tie", "A tie"], ["both_bad", "Both are bad"]];
const VERDICTS = { left: "left was better", right: "right was better", tie: "a tie", both_bad: "both were bad" };
const IDLE = 60; // seconds without a sign of life that no longer count
let battle = null; // its id, once there is a message
let turns = [];
let live = null; // the turn that is being answered
let judged = null;
let running = null;
let voting = false;
let worked = 0;
let lastActivity = Date.now();

// ---- display

function show() {
  const all = live ? [...turns, live] : turns;
  const hello = el("div", { class: "hello" }, el("h2", {}, "Two models, one question"),
    el("p", { class: "note" }, "Ask something. Two models answer, and you do not see which. Go on as long as you like, say which is better, and then you see their names."));
  $("thread").replaceChildren(...(all.length ? all.map(turnNode) : [hello]));
  const ready = turns.length > 0 && !running && !judged;
  $("votes").hidden = !ready;
  $("votes").querySelectorAll("button").forEach((button) => { button.disabled = voting; });
  $("after").hidden = !judged;
  $("composer").hidden = Boolean(judged);
  $("send").hidden = Boolean(running);
  $("stop").hidden = !running;
  $("new").hidden = Boolean(judged);
  $("new").disabled = Boolean(running) || voting || !all.length;
  SIDES.forEach(head);
}

function head(side) {
  const won = judged && (judged.vote === side || judged.vote === "tie");
  const name = judged ? el("b", { class: "name" }, judged.models[side]) : null;
  $(`${side}-head`).className = won ? "won" : "";
  $(`${side}-head`).replaceChildren(el("span", {}, NAMES[side]), ...(name ? [name] : []));
}

function turnNode(turn) {
  return el("article", { class: "turn" },
    el("div", { class: "asked" }, el("p", { class: "unseen" }, "You"), plain(turn.user)),
    el("div", { class: "answers" }, SIDES.map((side) => answerNode(turn, side))));
}

function answerNode(turn, side) {
  const open = turn === live && turn.ended[side] === undefined;
  const cut = !open && turn[side] && turn.ended[side] === false;
  const growing = el("div", { class: "text" }, turn[side] ? markdown(turn[side]) : el("p", {}, "\u200b"));
  const text = open ? growing : folded(completion(turn[side]), turn[side]);
  return el("section", { class: `answer ${side}${open ? " open" : ""}`, "aria-label": `${NAMES[side]} answer`, "aria-busy": String(open) },
    el("h2", {}, NAMES[side], judged ? el("b", { class: "name" }, ` ${judged.models[side]}`) : null), text,
    cut ? el("p", { class: "note" }, turn.stopped ? "Stopped here." : "Cut at the longest answer.") : null);
}

function grow(side) {
  const follow = isAtEnd();
  const node = [...$("thread").querySelectorAll(`.answer.${side}`)].pop();
  node?.replaceWith(answerNode(live, side));
  if (follow) scrollToEnd();
}

const isAtEnd = () => $("thread").scrollHeight - $("thread").scrollTop - $("thread").clientHeight < 90;
const scrollToEnd = () => { $("thread").scrollTop = $("thread").scrollHeight; };

function storeBattle() {
  try {
    if (battle) sessionStorage.setItem(STORAGE_KEY, JSON.stringify({ battle, worked }));
    else sessionStorage.removeItem(STORAGE_KEY);
  } catch { /* a browser that keeps nothing */ }
}

// ---- a battle

async function say(text) {
  const mine = (running = new AbortController());
  live = { user: text, left: "", right: "", ended: {} };
  setStatus("");
  show();
  scrollToEnd();
  let wrong = null;
  try {
    if (!battle) battle = (await (await ask("/api/battle", {}, mine.signal)).json()).battle;
    storeBattle();
    const reply = await ask("/api/say", { battle, text }, mine.signal);
    for await (const event of readEvents(reply.body)) showEvent(event);
  } catch (error) {
    wrong = error;
  }
  const stopped = wrong?.name === "AbortError";
  if (wrong && !stopped) setStatus(wrong.message, true);
  const known = await syncBattle(stopped);
  running = live = null;
  if (!known && wrong?.code !== "no_battle") setStatus("The server does not answer; try again.", true);
  if (wrong?.code === "no_battle" || (!turns.length && !stopped && !wrong)) battle = null;
  const isStored = turns.length > 0 && turns[turns.length - 1].user === text;
  if (!isStored && !$("say").value) $("say").value = text;
  if (stopped) setStatus("Stopped.");
  else if (isStored && !wrong && !$("status").textContent) setStatus("Both have answered. Which is better?");
  storeBattle();
  show();
  scrollToEnd();
  fitHeight($("say"));
  if (isStored) $("votes").focus({ preventScroll: true });
  else $("say").focus();
}

function showEvent(event) {
  if (event.error) throw new Error(event.error);
  if (event.dropped) setStatus("The conversation has become long: the models no longer see its oldest messages.");
  if (!event.side) return;
  if (event.text) live[event.side] += event.text;
  if (event.ended !== undefined) live.ended[event.side] = event.ended;
  grow(event.side);
}

// Reads the battle's turns from the server: after a stop it may hold a little more or less text than was shown here.
async function syncBattle(patient) {
  if (!battle) return true;
  for (let tries = 0; tries < 20; tries++) {
    try {
      const state = await (await ask(`/api/battle/${battle}`)).json();
      if (!state.busy) {
        turns = state.turns;
        judged = state.judged;
        if (judged) showVerdict();
        return true;
      }
    } catch (error) {
      if (error.status === 404) battle = null;
      if (!patient || error.status) return error.status === 404;
    }
    await new Promise((done) => setTimeout(done, 100));
  }
  return false;
}

async function vote(choice) {
  if (voting || running || judged || !turns.length) return;
  voting = true;
  setStatus("");
  show();
  try {
    judged = await (await ask("/api/vote", { battle, vote: choice, seconds: Math.round(worked * 10) / 10 })).json();
    setStatus("");
    showVerdict();
  } catch (error) {
    setStatus(`${error.message}. Your vote is not kept yet: vote again.`, true);
  }
  voting = false;
  storeBattle();
  show();
  if (judged) $("next").focus({ preventScroll: true });
  else if (turns.length) $("votes").focus({ preventScroll: true });
}

function showVerdict() {
  const { vote, models } = judged;
  $("after").replaceChildren(
    el("p", { role: "status" }, `Kept: ${VERDICTS[vote]}. Left was `, el("b", {}, models.left), ", right was ", el("b", {}, models.right), "."),
    el("div", { class: "buttons" }, el("button", { type: "button", id: "next", class: "main", onclick: nextPair }, "Next pair", el("kbd", {}, "Enter")),
      el("a", { class: "button", href: "/leaderboard" }, "Leaderboard")));
}

function nextPair() {
  if (running || voting) return;
  battle = judged = live = null;
  turns = [];
  worked = 0;
  setStatus("");
  storeBattle();
  show();
  $("say").focus();
}

// ---- keys, time, login

function key(event) {
  if ($("login").open || event.ctrlKey || event.metaKey) return;
  if (event.key === "Escape") {
    if (running) running.abort();
    else if (event.target === $("say") && !$("votes").hidden) $("votes").focus();
    return;
  }
  const typing = event.target === $("say") && !event.altKey;
  const digit = /^Digit([1-4])$/.exec(event.code)?.[1] || (/^[1-4]$/.test(event.key) ? event.key : null);
  if (digit && !typing && !$("votes").hidden) {
    event.preventDefault();
    vote(VOTES[digit - 1][0]);
  } else if (event.key === "Enter" && event.target === $("votes")) {
    event.preventDefault();
    $("say").focus();
  }
}

function addListeners() {
  $("votes").replaceChildren(...VOTES.map(([choice, words], n) =>
    el("button", { type: "button", "data-vote": choice, "aria-keyshortcuts": `${n + 1}`, onclick: () => vote(choice) }, el("kbd", { "aria-hidden": "true" }, n + 1), el("span", {}, words))));
  document.addEventListener("keydown", key);
  $("new").addEventListener("click", nextPair);
  $("stop").addEventListener("click", () => running?.abort());
  $("say").addEventListener("input", () => fitHeight($("say")));
  $("say").addEventListener("keydown", (event) => { if (sends(event) && !event.altKey) { event.preventDefault(); $("composer").requestSubmit(); } });
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("say").value.trim();
    if (!text || running || voting || judged) return;
    $("say").value = "";
    fitHeight($("say"));
    say(text);
  });
  addLogin("/login", () => { setStatus(""); return restoreBattle(); });
  for (const sign of ["pointermove", "pointerdown", "keydown", "scroll"]) document.addEventListener(sign, () => { lastActivity = Date.now(); }, { passive: true, capture: true });
  setInterval(() => {
    if (!turns.length && !running) return;
    if (judged || document.hidden || Date.now() - lastActivity > IDLE * 1000) return;
    worked += 0.5;
  }, 500);
  addEventListener("pagehide", storeBattle);
}

// Restores the open battle of a page that was reloaded.
async function restoreBattle() {
  try {
    const stored = JSON.parse(sessionStorage.getItem(STORAGE_KEY));
    battle = stored?.battle || null;
    worked = stored?.worked || 0;
  } catch {
    battle = null;
  }
  await syncBattle(true);
  show();
  scrollToEnd();
  if (judged) $("next").focus();
  else $("say").focus();
}

addListeners();
show();
restoreBattle();
