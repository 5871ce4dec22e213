// Forms for rankings, with ties, by keys, buttons or dragging; and for comparisons of two, with a slider or at once.

import { clip } from "./clip.js";
import { completion, el, folded, nth, plural } from "./elements.js";

const STRENGTHS = ["far better", "clearly better", "better", "slightly better"];

// A card's rating and flags, in both forms. state: {ratings, flags, open}
function ratingAndFlags(i, k, state, page) {
  const name = `rating-${i}`;
  const rate = el("fieldset", { class: "rate" }, el("legend", {}, "Rating"));
  for (let value = 1; value <= 7; value += 1) {
    const input = el("input", {
      type: "radio", name, value, checked: state.ratings[i] === value,
      "aria-label": `${value} of 7${value === 1 ? ", worst" : value === 7 ? ", best" : ""}`,
      onchange: () => { state.ratings[i] = value; mark(); page.changed(); },
    });
    rate.append(el("label", {}, input, el("span", {}, String(value))));
  }
  const flags = el("fieldset", { class: "flags" }, el("legend", {}, "What is wrong with it"));
  for (const flag of page.flags) {
    const input = el("input", {
      type: "checkbox", checked: state.flags[i].includes(flag),
      onchange: (event) => {
        state.flags[i] = event.target.checked ? [...state.flags[i], flag] : state.flags[i].filter((f) => f !== flag);
        mark(); page.changed();
      },
    });
    flags.append(el("label", {}, input, el("span", {}, flag)));
  }
  const summary = el("span", { class: "said-so" });
  const box = el("details", { class: "judge", open: state.open.has(i), ontoggle: () => (box.open ? state.open.add(i) : state.open.delete(i)) },
    el("summary", {}, "Rate and flag", summary), rate, flags);
  function mark() {
    const count = state.flags[i].length;
    const words = [state.ratings[i] ? `${state.ratings[i]} of 7` : "", count ? plural(count, "flag") : ""];
    summary.textContent = words.filter(Boolean).join(", ");
  }
  mark();
  return box;
}

// Instructions for a keyboard, or for a touch screen.
const instructions = () => (matchMedia("(pointer: coarse)").matches
  ? "Tap “Place next” from the best answer to the worst, or drag them here by their numbers."
  : "Press the numbers of the answers from best to worst, or drag them here.");

// A note under an answer that was cut at its greatest length.
const cutNote = (task, i) => (task.ended[i] ? null : el("p", { class: "cut" }, "… cut off here, at the greatest length"));

const initialState = (k, given) => ({
  ratings: given?.ratings?.length === k ? given.ratings : Array(k).fill(null),
  flags: given?.flags?.length === k ? given.flags : Array.from({ length: k }, () => []),
  open: new Set(),
});

export function rankForm(task, given, page) {
  const k = task.completions.length;
  const state = { ...initialState(k, given), tiers: tiersOf(given, k) };
  const list = el("ol", { class: "places", "aria-label": "Your order, best first" });
  const pool = el("div", { class: "pool", role: "group", "aria-label": "Answers not yet placed" });
  const node = el("div", { class: "ranking" }, list, pool);
  const texts = task.completions.map((text, i) => folded(completion(text, { id: `text-${i}` }), text));
  const placed = () => state.tiers.flat();
  const tierOf = (i) => state.tiers.findIndex((tier) => tier.includes(i));
  let drag = null;

  function remove(i) { state.tiers = state.tiers.map((tier) => tier.filter((j) => j !== i)).filter((tier) => tier.length); }
  function changed(i, words) {
    draw();
    if (i !== null) focus(i);
    const where = i === null ? -1 : tierOf(i);
    page.announce(words ?? (where < 0 ? `Answer ${i + 1} taken out` : `Answer ${i + 1} is ${nth(where + 1)}${state.tiers[where].length > 1 ? ", tied" : ""}`));
    page.changed();
  }
  function put(i) { if (tierOf(i) < 0) { state.tiers.push([i]); changed(i); } else focus(i); }
  function out(i) { remove(i); changed(i); }
  function tie(i) {
    const at = tierOf(i);
    if (at < 0) { if (state.tiers.length) { state.tiers.at(-1).push(i); changed(i); } else put(i); return; }
    if (state.tiers[at].length > 1) { remove(i); state.tiers.splice(at + 1, 0, [i]); changed(i, `Answer ${i + 1} is no longer tied`); }
    else if (at > 0) { remove(i); state.tiers[at - 1].push(i); changed(i); }
  }
  function move(i, by) {
    const at = tierOf(i);
    if (at < 0) { put(i); return; }
    if (state.tiers[at].length > 1) { remove(i); state.tiers.splice(by < 0 ? at : at + 1, 0, [i]); }
    else if (state.tiers[at + by]) { [state.tiers[at], state.tiers[at + by]] = [state.tiers[at + by], state.tiers[at]]; }
    changed(i);
  }
  const focus = (i) => node.querySelector(`[data-answer="${i}"]`)?.focus();
  const focused = () => { const card = document.activeElement?.closest?.("[data-answer]"); return card ? Number(card.dataset.answer) : null; };

  function card(i) {
    const at = tierOf(i);
    const tied = at >= 0 && state.tiers[at].length > 1;
    const where = at < 0 ? "not yet placed" : `${nth(at + 1)} of ${state.tiers.length}${tied ? ", tied" : ""}`;
    const button = (text, label, act, more = {}) => el("button", { type: "button", "aria-label": `${label}: answer ${i + 1}`, title: label, onclick: act, ...more }, text);
    const moves = at < 0
      ? [button("Place next", "Place next", () => put(i), { class: "wide" }), state.tiers.length ? button("=", "Tie with the last placed", () => tie(i)) : null]
      : [button("↑", "Better", () => move(i, -1), { disabled: at === 0 && !tied }), button("↓", "Worse", () => move(i, 1), { disabled: at === state.tiers.length - 1 && !tied }),
         button("=", tied ? "Untie" : "Tie with the one above", () => tie(i), { disabled: at === 0 && !tied, "aria-pressed": String(tied) }), button("×", "Take out", () => out(i))];
    return el("article", { class: "card", tabindex: 0, "data-answer": i, "aria-label": `Answer ${i + 1}, ${where}`, "aria-describedby": `text-${i}` },
      el("span", { class: "grip", "aria-hidden": "true", title: "Drag", onpointerdown: (event) => startDrag(event, i) }, String(i + 1)),
      el("div", { class: "answer" }, texts[i], cutNote(task, i)),
      el("div", { class: "moves" }, moves), ratingAndFlags(i, k, state, page));
  }
  function draw() {
    list.replaceChildren(...state.tiers.map((tier, at) => {
      const last = state.tiers.length - 1;
      const full = placed().length === k;
      const word = at === 0 ? "best" : at === last && full ? "worst" : "";
      return el("li", { class: `place${word ? ` ${word}` : ""}` }, el("div", { class: "rank" }, el("b", {}, String(at + 1)), word && el("span", {}, word), tier.length > 1 && el("i", {}, "tied")), el("div", { class: "cards" }, tier.map(card)));
    }));
    if (!state.tiers.length) list.append(el("li", { class: "place empty" }, instructions()));
    const left = [...Array(k).keys()].filter((i) => tierOf(i) < 0);
    pool.replaceChildren(...(left.length ? [el("h2", {}, left.length === k ? "Answers" : "Not yet placed"), ...left.map(card)] : []));
    pool.hidden = !left.length;
  }

  function startDrag(event, i) {
    if (event.button) return;
    event.preventDefault();
    const moved = node.querySelector(`[data-answer="${i}"]`);
    drag = { i, card: moved, x: event.clientX, y: event.clientY, target: null };
    moved.classList.add("lifted");
    const moving = (e) => { moved.style.transform = `translate(${e.clientX - drag.x}px, ${e.clientY - drag.y}px)`; markTarget(e.clientY); scrollAtEdge(e.clientY); };
    const drop = (e) => {
      window.removeEventListener("pointermove", moving); window.removeEventListener("pointerup", drop); window.removeEventListener("pointercancel", drop);
      const target = e.type === "pointerup" ? drag.target : null;
      drag = null;
      applyDrop(i, target);
    };
    window.addEventListener("pointermove", moving); window.addEventListener("pointerup", drop); window.addEventListener("pointercancel", drop);
  }
  function scrollAtEdge(y) { if (y < 90) window.scrollBy(0, -12); else if (y > innerHeight - 120) window.scrollBy(0, 12); }
  function markTarget(y) {
    node.querySelectorAll(".into, .before, .after").forEach((n) => n.classList.remove("into", "before", "after"));
    const rows = [...list.querySelectorAll(".place:not(.empty)")].filter((row) => !(row.querySelectorAll(".card").length === 1 && row.contains(drag.card)));
    drag.target = null;
    for (const row of rows) {
      const { top, bottom, height } = row.getBoundingClientRect();
      const first = Number(row.querySelector(".card:not(.lifted)").dataset.answer);
      const margin = Math.min(height * 0.3, 28);
      if (y < top + margin) { row.classList.add("before"); drag.target = { first, zone: "before" }; return; }
      if (y < bottom - margin) { row.classList.add("into"); drag.target = { first, zone: "into" }; return; }
      drag.target = { first, zone: "after", row };
    }
    const rect = pool.getBoundingClientRect();
    if (!pool.hidden && rows.length && y > rect.top + 40) { drag.target = { zone: "out" }; return; }
    if (drag.target) drag.target.row.classList.add("after");
    else drag.target = { zone: "first" };
  }
  function applyDrop(i, target) {
    if (target) {
      remove(i);
      const at = target.first === undefined ? 0 : tierOf(target.first);
      if (target.zone === "into") state.tiers[at].push(i);
      else if (target.zone === "before") state.tiers.splice(at, 0, [i]);
      else if (target.zone === "after") state.tiers.splice(at + 1, 0, [i]);
      else if (target.zone === "first") state.tiers.unshift([i]);
    }
    changed(i);
  }

  function key(event) {
    const here = focused();
    const all = [...node.querySelectorAll(".card")];
    if (/^[1-9]$/.test(event.key) && Number(event.key) <= k) put(Number(event.key) - 1);
    else if (event.key === "Backspace" && placed().length) out(here !== null && tierOf(here) >= 0 ? here : placed().at(-1));
    else if (event.key === "=" || event.key === "t") tie(here !== null && tierOf(here) >= 0 ? here : placed().at(-1) ?? 0);
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      const by = event.key === "ArrowUp" ? -1 : 1;
      if ((event.shiftKey || event.altKey) && here !== null) move(here, by);
      else (all[all.indexOf(document.activeElement?.closest?.(".card")) + by] ?? all[by > 0 ? 0 : all.length - 1])?.focus();
    } else if (event.key === "Enter" && placed().length < k && here !== null && tierOf(here) < 0) put(here);
    else return false;
    return true;
  }

  draw();
  return {
    node, key, path: "/api/rank",
    ready: () => { const left = k - placed().length; return left ? `${left} of ${k} to place` : ""; },
    state: () => ({ ranks: Array.from({ length: k }, (_, i) => tierOf(i) + 1), ratings: state.ratings, flags: state.flags }),
    body: () => ({ ranks: Array.from({ length: k }, (_, i) => tierOf(i) + 1), ratings: state.ratings, flags: state.flags }),
    focus: () => node.querySelector(".card")?.focus({ preventScroll: true }),
    keys: [["1 – 9", "place that answer next, best first"], ["=", "tie it with the one above, or untie it"], ["↑ ↓", "go from answer to answer"], ["Shift ↑ ↓", "move it up or down"], ["Backspace", "take it out again"], ["Enter", "send"]],
  };
}

// Lists of tied answers, best first, of ranks (0: not placed).
function tiersOf(given, k) {
  if (given?.ranks?.length !== k) return [];
  const values = [...new Set(given.ranks.filter((rank) => rank > 0))].sort((a, b) => a - b);
  return values.map((value) => [...Array(k).keys()].filter((i) => given.ranks[i] === value));
}

export function compareForm(task, given, page) {
  const state = { ...initialState(2, given), value: given?.strength ?? null };
  const names = ["Left", "Right"];
  const cards = names.map((name, i) => el("article", { class: "card side", "aria-label": `${name} answer` },
    el("h2", {}, name), folded(completion(task.completions[i]), task.completions[i]), cutNote(task, i), ratingAndFlags(i, 2, state, page)));
  const words = el("output", { for: "strength" });
  const slider = el("input", { type: "range", id: "strength", min: -4, max: 4, step: 1, value: state.value ?? 0, "aria-label": "Which is better, and by how much", oninput: () => set(Number(slider.value)), onpointerup: () => set(Number(slider.value)) });
  const choice = (text, value) => el("button", { type: "button", "data-value": value, onclick: () => set(value) }, text);
  const choices = el("div", { class: "choices" }, choice("Left is better", -2), choice("Equal", 0), choice("Right is better", 2), el("button", { type: "button", onclick: () => page.skip("cannot tell") }, "Can’t tell"));
  const ticks = el("div", { class: "ticks", "aria-hidden": "true" }, Array.from({ length: 9 }, (_, n) => el("span", {}, String(Math.abs(n - 4)))));
  const node = el("div", { class: "comparison" }, el("div", { class: "sides" }, cards), el("div", { class: "scale" }, words, slider, ticks, choices));

  function described() {
    if (state.value === null) return "Which is better, and by how much?";
    if (state.value === 0) return "They are equal";
    return `${state.value < 0 ? "Left" : "Right"} is ${STRENGTHS[4 - Math.abs(state.value)]}`;
  }
  function draw() {
    words.textContent = described();
    slider.setAttribute("aria-valuetext", described());
    slider.value = state.value ?? 0;
    slider.classList.toggle("unset", state.value === null);
    cards[0].classList.toggle("chosen", state.value < 0);
    cards[1].classList.toggle("chosen", state.value > 0);
    choices.querySelectorAll("[data-value]").forEach((b) => b.setAttribute("aria-pressed", String(state.value !== null && Math.sign(state.value) === Math.sign(Number(b.dataset.value)))));
  }
  function set(value) { state.value = value; draw(); page.announce(described()); page.changed(); }
  function key(event) {
    if (/^[1-9]$/.test(event.key)) set(Number(event.key) - 5);
    else if (event.key === "ArrowLeft") set(Math.max(-4, (state.value ?? 0) - 1));
    else if (event.key === "ArrowRight") set(Math.min(4, (state.value ?? 0) + 1));
    else if (event.key === "=" || event.key === "e") set(0);
    else if (event.key === "x") page.skip("cannot tell");
    else return false;
    return true;
  }
  draw();
  return {
    node, key, path: "/api/rank",
    ready: () => (state.value === null ? "choose a side, or equal" : ""),
    state: () => ({ strength: state.value, ratings: state.ratings, flags: state.flags }),
    body: () => ({ ranks: state.value < 0 ? [1, 2] : state.value > 0 ? [2, 1] : [1, 1], strength: state.value, ratings: state.ratings, flags: state.flags }),
    focus: () => slider.focus({ preventScroll: true }),
    keys: [["← →", "lean to the left or the right answer"], ["1 – 9", "far left to far right; 5 is equal"], ["=", "equal"], ["X", "can’t tell"], ["Enter", "send"]],
  };
}

// A comparison answered at once, by one key or tap: no strength, ratings or flags.
export function choiceForm(task, given, page) {
  let choice = given?.ranks ? given.ranks[1] - given.ranks[0] : null;
  const names = ["Left", "Right"];
  const shown = (name, i) => (page.clips ? clip(task.completions[i], `${name} clip`) : [folded(completion(task.completions[i]), task.completions[i]), cutNote(task, i)]);
  const cards = names.map((name, i) => el("article", { class: "card side", "aria-label": `${name} ${page.clips ? "clip" : "answer"}`, onclick: page.clips ? () => choose(i ? -1 : 1) : null },
    el("h2", {}, name), shown(name, i)));
  const button = (text, key, act) => el("button", { type: "button", onclick: act }, text, el("kbd", {}, key));
  const choices = el("div", { class: "choices" }, button("Left is better", "←", () => choose(1)), button("Equal", "=", () => choose(0)),
    button("Right is better", "→", () => choose(-1)), button("Can’t tell", "X", () => page.skip("cannot tell")));
  const node = el("div", { class: "comparison at-once", tabindex: -1 }, el("div", { class: "sides" }, cards), el("div", { class: "scale" }, choices));
  const draw = () => cards.forEach((card, i) => card.classList.toggle("chosen", choice !== null && choice * (i ? -1 : 1) > 0));
  function choose(value) { choice = value; draw(); page.announce(value ? `${names[value > 0 ? 0 : 1]} is better` : "They are equal"); page.send(); }
  function key(event) {
    const value = { ArrowLeft: 1, ArrowRight: -1, 1: 1, 2: -1, "=": 0, e: 0 }[event.key];
    if (event.key === "x") page.skip("cannot tell");
    else if (value === undefined || event.repeat) return false;
    else choose(value);
    return true;
  }
  draw();
  return {
    node, key, path: "/api/rank", quiet: true,
    ready: () => (choice === null ? "choose a side, or equal" : ""),
    state: () => ({}),
    body: () => ({ ranks: choice > 0 ? [1, 2] : choice < 0 ? [2, 1] : [1, 1] }),
    focus: () => node.focus({ preventScroll: true }),
    keys: [["←  1", "the left answer is better"], ["→  2", "the right answer is better"], ["=", "equal"], ["X", "can’t tell"]],
  };
}
