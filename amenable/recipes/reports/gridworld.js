"use strict";

// The map for the sliders' positions, all of which are solved beforehand, and walks played on it.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const ARROWS = ["↑", "→", "↓", "←"];
  const STEP_MILLISECONDS = 280;
  const part = (id) => document.getElementById(id);
  const cells = [...data.rows.join("")].map((letter) => {
    const cell = document.createElement("div");
    cell.className = "TM".includes(letter) ? "cell end" : "cell";
    for (const name of ["letter", "arrows", "value"]) {
      const span = document.createElement("span");
      span.className = name;
      cell.append(span);
    }
    cell.children[0].textContent = letter === "." ? "" : letter;
    return cell;
  });
  let timer = 0;
  let walk = 0;

  const solution = () => data.solutions[Number(part("slip").value)][Number(part("discount").value)];
  const number = (value) => value.toFixed(2).replace("-", "−");

  function stop() {
    clearInterval(timer);
    cells.forEach((cell) => cell.classList.remove("cat", "walked"));
    cells[data.start].classList.add("cat");
    part("steps").textContent = part("return").textContent = "–";
  }

  function show() {
    stop();
    const { values, actions, random, improvements } = solution();
    const most = Math.max(...values.map(Math.abs), 1);
    cells.forEach((cell, state) => {
      const letter = cell.children[0].textContent;
      const worth = letter === "M" ? most : letter === "T" ? -most : values[state];
      cell.children[1].textContent = actions[state].map((action) => ARROWS[action]).join("");
      cell.children[2].textContent = cell.classList.contains("end") ? "" : values[state].toFixed(1).replace("-", "−");
      cell.style.setProperty("--tone", worth < 0 ? "var(--bad-tint)" : "var(--good-tint)");
      cell.style.setProperty("--strength", (0.75 * Math.abs(worth) / most).toFixed(3));
    });
    part("slip-text").textContent = `${Math.round(100 * data.slips[Number(part("slip").value)])} %`;
    part("discount-text").textContent = String(data.discounts[Number(part("discount").value)]);
    part("best").textContent = number(values[data.start]);
    part("random").textContent = number(random);
    part("improvements").textContent = String(improvements);
  }

  function play() {
    stop();
    const { walks } = solution();
    const { states, return: total } = walks[walk++ % walks.length];
    let step = 0;
    timer = setInterval(() => {
      cells[states[step]].classList.replace("cat", "walked");
      step += 1;
      if (step < states.length) {
        cells[states[step]].classList.add("cat");
        part("steps").textContent = String(step);
      }
      if (step >= states.length - 1) {
        clearInterval(timer);
        part("return").textContent = number(total);
      }
    }, STEP_MILLISECONDS);
  }

  part("map").style.gridTemplateColumns = `repeat(${data.rows[0].length}, minmax(0, 1fr))`;
  part("map").append(...cells);
  part("slip").addEventListener("input", show);
  part("discount").addEventListener("input", show);
  part("play").addEventListener("click", play);
  show();
})();
