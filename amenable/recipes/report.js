"use strict";

// Values under the pointer: the nearest point of every curve is read out beside the chart's title.
function readOut(figure) {
  const { range: [xLow, xHigh, yLow, yHigh], box: [left, right, top, bottom], x: xName, series } = JSON.parse(figure.dataset.chart);
  const svg = figure.querySelector("svg"), reader = figure.querySelector(".reader"), output = figure.querySelector("output");
  const line = reader.querySelector("line"), dots = reader.querySelectorAll("circle"), atRest = output.textContent;
  const across = (value) => left + (right - left) * (value - xLow) / (xHigh - xLow);
  const down = (value) => bottom - (bottom - top) * (value - yLow) / (yHigh - yLow);

  function show(event) {
    const place = svg.getBoundingClientRect();
    const at = (event.clientX - place.left) / place.width * svg.viewBox.baseVal.width;
    const wanted = xLow + (at - left) / (right - left) * (xHigh - xLow);
    const nearest = series.map(({ points }) => points.reduce((a, b) => Math.abs(b[0] - wanted) < Math.abs(a[0] - wanted) ? b : a));
    const x = nearest.reduce((a, b) => Math.abs(b[0] - wanted) < Math.abs(a[0] - wanted) ? b : a)[0];
    line.setAttribute("x1", across(x));
    line.setAttribute("x2", across(x));
    nearest.forEach((point, i) => {
      dots[i].setAttribute("cx", across(point[0]));
      dots[i].setAttribute("cy", down(point[1]));
    });
    reader.style.visibility = "visible";
    output.textContent = `${xName} ${x}: ` + nearest.map((point) => String(point[1]).replace("-", "\u2212")).join(", ");
  }
  function rest() {
    reader.style.visibility = "hidden";
    output.textContent = atRest;
  }
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", rest);
}

// Which prompts are shown, in which order, and under which decoding.
function chooseCards(section) {
  const list = section.querySelector(".cards"), cards = [...list.children], more = section.querySelector("button");
  const [order, kind, decoding] = ["order", "kind", "decoding"].map((name) => section.querySelector(`select[name=${name}]`));
  const few = Number(section.dataset.shown);
  let room = few;

  function update() {
    const place = (card) => JSON.parse(card.dataset.orders)[order.value];
    const fitting = cards.filter((card) => place(card) !== undefined && (kind.value === "" || card.dataset.kind === kind.value));
    fitting.sort((a, b) => place(a) - place(b));
    cards.forEach((card) => { card.hidden = true; });
    fitting.slice(0, room).forEach((card) => { card.hidden = false; list.append(card); });
    section.querySelectorAll("[data-decoding]").forEach((said) => { said.hidden = said.dataset.decoding !== decoding.value; });
    more.hidden = fitting.length <= room;
    section.querySelector(".none").hidden = fitting.length > 0;
  }
  for (const choice of [order, kind, decoding]) {
    choice.addEventListener("change", () => { room = few; update(); });
  }
  more.addEventListener("click", () => { room += few; update(); });
  section.querySelector(".choices").hidden = false;
  update();
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
document.querySelectorAll("[data-shown]").forEach(chooseCards);
document.querySelectorAll("[data-iterations]").forEach(chooseIteration);
