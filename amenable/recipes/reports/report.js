"use strict";

// Values under the pointer: the nearest point of every curve, in a small box beside it.
function readOut(figure) {
  const { range: [xLow, xHigh, yLow, yHigh], box: [left, right, top, bottom], x: xName, series } = JSON.parse(figure.dataset.chart);
  const svg = figure.querySelector("svg"), reader = figure.querySelector(".reader"), tip = figure.querySelector(".tip");
  const line = reader.querySelector("line"), dots = reader.querySelectorAll("circle");
  const across = (value) => left + (right - left) * (value - xLow) / (xHigh - xLow);
  const down = (value) => bottom - (bottom - top) * (value - yLow) / (yHigh - yLow);
  const written = (value) => String(value).replace("-", "\u2212");

  function show(event) {
    const box = svg.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const wanted = xLow + (at - left) / (right - left) * (xHigh - xLow);
    const nearest = series.map(({ points }) => points.reduce((a, b) => Math.abs(b[0] - wanted) < Math.abs(a[0] - wanted) ? b : a));
    const x = nearest.reduce((a, b) => Math.abs(b[0] - wanted) < Math.abs(a[0] - wanted) ? b : a)[0];
    line.setAttribute("x1", across(x));
    line.setAttribute("x2", across(x));
    nearest.forEach((point, i) => {
      dots[i].setAttribute("cx", across(point[0]));
      dots[i].setAttribute("cy", down(point[1]));
    });
    const rows = series.map(({ name, colour }, i) => make("span", `key c${colour}`, `${name} ${written(nearest[i][1])}`));
    tip.replaceChildren(make("b", "", `${xName} ${written(Number(x.toPrecision(4)))}`), ...rows);
    tip.style.left = across(x) < (left + right) / 2 ? `${across(x) / svg.viewBox.baseVal.width * 100 + 3}%` : "auto";
    tip.style.right = across(x) < (left + right) / 2 ? "auto" : `${103 - across(x) / svg.viewBox.baseVal.width * 100}%`;
    reader.style.visibility = "visible";
    tip.hidden = false;
  }
  function rest() {
    reader.style.visibility = "hidden";
    tip.hidden = true;
  }
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", rest);
}

// An element with a class and a text; what models wrote only ever becomes text.
function make(tag, kind, text, ...children) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}

// The same prompts, answered by each model: which are shown, in which order, is what the reader asks for.
function explore(section) {
  const { models, marks, prompts } = JSON.parse(section.querySelector("script").textContent);
  const form = section.querySelector(".asking"), cards = section.querySelector(".cards"), more = section.querySelector(".more");
  const choices = Object.fromEntries([...form.querySelectorAll("[name]")].map((choice) => [choice.name, choice]));
  const chips = [...form.querySelectorAll("[data-set]")];
  const few = Number(section.dataset.few);
  let room = few;

  const worth = (answer) => answer ? answer[1] ?? answer[2] : null;
  const minus = (a, b) => a === null || b === null ? null : a - b;
  const answersOf = (prompt) => prompt[4][choices.decoding.value];
  // how far up a prompt comes in each order; null where nothing is known
  const orders = {
    random: () => 0,
    best: (prompt) => worth(answersOf(prompt)[choices.model.value]),
    worst: (prompt) => minus(0, orders.best(prompt)),
    gain: (prompt) => minus(orders.best(prompt), worth(answersOf(prompt)[choices.against.value])),
    loss: (prompt) => minus(0, orders.gain(prompt)),
  };

  function fits(prompt) {
    const [suite, kind, turns] = prompt, answer = answersOf(prompt)[choices.model.value];
    const wanted = choices.text.value.trim().toLowerCase();
    return (choices.suite.value === "" || suite === choices.suite.value)
      && (choices.kind.value === "" || kind === choices.kind.value)
      && (choices.only.value === "" || Boolean(answer && answer[3].includes(Number(choices.only.value))))
      && (wanted === "" || [...turns.map((turn) => turn[1]), ...answersOf(prompt).map((one) => one ? one[0] : "")]
        .some((text) => text.toLowerCase().includes(wanted)));
  }

  function spoken(answer, i) {
    const { name, colour } = models[i];
    const words = answer[0] ? make("dd", "", answer[0]) : make("dd", "", "", make("span", "empty", "(says nothing)"));
    const notes = answer[3].map((mark) => make("small", `mark ${marks[mark][1]}`, marks[mark][0]));
    words.append(make("span", "marks", "", ...notes));
    const value = worth(answer);
    const figure = make("dd", "figure", value === null ? "" : value.toFixed(2).replace("-", "\u2212"));
    const row = make("div", i === Number(choices.model.value) ? "chosen" : "", "", make("dt", `c${colour}`, name), words, figure);
    return row;
  }

  function card(prompt) {
    const [suite, kind, turns, truth] = prompt;
    const head = make("div", "", "", make("p", "kind", [kind.replaceAll("_", " "), choices.suite.value ? "" : suite].filter(Boolean).join(", ")));
    for (const [role, text] of turns) head.append(make("p", `turn ${role === "assistant" || role === "system" ? role : "user"}`, text));
    if (truth) head.append(make("p", "truth", `truth: ${truth}`));
    const compared = choices.order.value === "gain" || choices.order.value === "loss" ? Number(choices.against.value) : -1;
    const isShown = (i) => choices.all.checked || models[i].shown || i === Number(choices.model.value) || i === compared;
    const rows = answersOf(prompt).map((answer, i) => answer && isShown(i) ? spoken(answer, i) : null).filter(Boolean);
    return make("article", "card", "", head, make("dl", "said", "", ...rows));
  }

  function update() {
    const worthOf = orders[choices.order.value], compared = ["gain", "loss"].includes(choices.order.value);
    const fitting = prompts.filter(fits).map((prompt) => [worthOf(prompt), prompt])
      .filter(([value]) => value !== null && (!compared || value > 0));
    fitting.sort((a, b) => b[0] - a[0]);  // sorting keeps the drawn order among equals
    cards.replaceChildren(...fitting.slice(0, room).map(([, prompt]) => card(prompt)));
    more.hidden = fitting.length <= room;
    section.querySelector(".count").textContent = fitting.length ? `${fitting.length} of ${prompts.length} prompts` : "No such prompt is among those kept in this file.";
    section.querySelector("[data-against]").hidden = !compared;
  }
  function press(chip) {
    const wanted = new URLSearchParams(chip.dataset.set);
    for (const name of ["order", "only", "model", "against", "kind", "text"]) {
      const choice = choices[name];
      if (wanted.has(name)) choice.value = wanted.get(name);
      else if (name === "order") choice.value = "random";
      else if (name !== "model" && name !== "against") choice.value = "";
    }
  }
  function changed(pressed) {
    room = few;
    chips.forEach((chip) => chip.setAttribute("aria-pressed", String(chip === pressed)));
    update();
  }
  for (const choice of Object.values(choices)) choice.addEventListener("input", () => changed(null));
  for (const chip of chips) chip.addEventListener("click", () => { press(chip); changed(chip); });
  more.addEventListener("click", () => { room += 2 * few; update(); });
  form.hidden = false;
  changed(chips[0]);
}

// One iteration of PPO at a time.
function chooseIteration(section) {
  const parts = [...section.querySelectorAll(".iteration")], slider = section.querySelector("input");
  const update = () => parts.forEach((part, i) => { part.hidden = i !== Number(slider.value); });
  slider.addEventListener("input", update);
  section.querySelector(".choices").hidden = false;
  update();
}

document.querySelectorAll("[data-chart]").forEach(readOut);
document.querySelectorAll("[data-explorer]").forEach(explore);
document.querySelectorAll("[data-iterations]").forEach(chooseIteration);
