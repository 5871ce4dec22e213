// Form for demonstrations and for both sides of a conversation, with suggestions to take, edit or refuse.

import { completion, el, turn } from "./elements.js";

export function writeForm(task, given, page) {
  const both = task.kind === "converse";
  const state = { turns: given?.turns ?? [], words: given?.words ?? "", suggestion: given?.suggestion ?? null, offered: null };
  if (!both && state.turns.length) {
    state.words = state.turns[0].content;
    state.suggestion = state.turns[0].suggestion;
    state.turns = [];
  }
  const dialogue = el("div", { class: "dialogue", "aria-label": "Conversation so far" });
  const label = el("label", { for: "words" });
  const words = el("textarea", { id: "words", dir: "auto", rows: 5, maxlength: 20000, oninput: () => { state.words = words.value; page.changed(); draw(); } });
  const offer = el("div", { class: "offer", role: "group", "aria-label": "A suggestion", hidden: true });
  const ask = el("button", { type: "button", id: "suggest", onclick: suggest }, "Suggest an answer");
  const add = el("button", { type: "button", id: "add", onclick: () => { push(); } }, "Add turn");
  const back = el("button", { type: "button", onclick: pop }, "Change the last turn");
  const node = el("div", { class: "writing" }, both ? dialogue : null, label, words, offer, el("div", { class: "buttons" }, page.suggests ? ask : null, both ? add : null, both ? back : null));
  words.value = state.words;

  const role = () => (both && state.turns.length % 2 === 0 ? "user" : "assistant");
  const change = () => { draw(); page.changed(); };

  function draw() {
    dialogue.replaceChildren(...state.turns.map((each) => turn(each)));
    dialogue.hidden = !state.turns.length;
    label.textContent = !both ? "Your answer, as the assistant" : role() === "user" ? "As the person" : "As the assistant";
    words.placeholder = !both ? "The best answer you can give." : role() === "user" ? "Ask something, or go on." : "Answer as a good assistant would.";
    ask.hidden = role() !== "assistant";
    add.disabled = !words.value.trim();
    back.hidden = !state.turns.length;
    node.classList.toggle("as-person", role() === "user");
  }
  function push() {
    if (!words.value.trim()) return;
    state.turns.push({ role: role(), content: words.value.trim(), suggestion: state.suggestion });
    clear();
  }
  function pop() {
    const last = state.turns.pop();
    words.value = state.words = last.content;
    state.suggestion = last.suggestion;
    refuse();
    words.focus();
  }
  function clear() {
    words.value = state.words = "";
    state.suggestion = null;
    refuse();
    words.focus();
  }
  function refuse() { state.offered = null; offer.hidden = true; offer.replaceChildren(); change(); }

  async function suggest() {
    ask.disabled = true;
    ask.textContent = "Thinking …";
    const suggestion = await page.post("/api/suggest", { assignment: task.assignment, turns: both ? state.turns : [] });
    ask.disabled = false;
    ask.textContent = "Suggest another";
    if (!suggestion) return;
    state.offered = suggestion;
    offer.replaceChildren(
      el("b", {}, "Suggestion"), completion(suggestion.text),
      el("div", { class: "buttons" },
        el("button", { type: "button", id: "take", class: "main", onclick: () => accept(true) }, "Take"),
        el("button", { type: "button", id: "edit", onclick: () => accept(false) }, "Edit"),
        el("button", { type: "button", id: "refuse", onclick: () => { refuse(); words.focus(); } }, "Refuse")));
    offer.hidden = false;
    offer.querySelector("button").focus();
    page.announce(`Suggestion: ${suggestion.text}`);
  }
  function accept(whole) {
    words.value = state.words = state.offered.text;
    state.suggestion = state.offered.suggestion;
    if (whole && both) { push(); return; }
    refuse();
    if (whole) document.getElementById("send").focus();
    else words.focus();
  }
  function turns() {
    const all = state.turns.map((each) => ({ ...each, suggestion: each.suggestion ?? null }));
    if (words.value.trim()) all.push({ role: role(), content: words.value.trim(), suggestion: state.suggestion });
    return all;
  }
  draw();
  return {
    node, key: () => false, path: "/api/write",
    ready: () => { const all = turns(); return all.length === 0 ? "nothing written yet" : all.at(-1).role !== "assistant" ? "the assistant has the last word" : ""; },
    state: () => ({ turns: state.turns, words: words.value, suggestion: state.suggestion }),
    body: () => ({ turns: turns() }),
    focus: () => words.focus({ preventScroll: true }),
    keys: [["Ctrl Enter", "send"], ...(both ? [["Alt Enter", "add the turn and go on"]] : []), ["Tab", "go to the buttons"]],
    alt: both ? push : null,
  };
}
