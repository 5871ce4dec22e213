// A form that ranks several answers to one prompt, with ties, by keys or pointer.

import { completion, el, folded } from "./elements.js";

export function rankForm(answers, done, drop) {
  const began = performance.now();
  const name = `rank-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  const save = el("button", { type: "submit", class: "main", disabled: true }, "Keep this order");
  const rows = answers.map((answer, i) => {
    const choices = answers.map((_, k) =>
      el("label", {}, el("input", { type: "radio", name: `${name}-${i}`, value: k + 1, onchange: () => (save.disabled = !ranks().every(Boolean)) }),
        el("span", {}, el("b", { class: "unseen" }, "place "), String(k + 1))));
    return el("fieldset", {}, el("legend", {}, `Answer ${String.fromCharCode(65 + i)}`),
      folded(completion(answer), answer), el("div", { class: "places" }, choices));
  });
  const ranks = () => rows.map((row) => Number(row.querySelector("input:checked")?.value || 0));
  const form = el("form", { class: "rank", "aria-label": "Rank these answers" },
    el("h2", {}, "Which is better?"),
    el("p", { class: "note" }, "1 is the best; answers that are equally good may share a place. The best goes on in the conversation."),
    rows,
    el("div", { class: "buttons" }, save, el("button", { type: "button", onclick: drop }, "Leave it")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = ranks();
    if (!chosen.every(Boolean)) return;
    save.disabled = true;
    done(withoutGaps(chosen), (performance.now() - began) / 1000).catch(() => (save.disabled = false));
  });
  return form;
}

// Ranks that count the better answers: 2 2 4 becomes 1 1 3.
function withoutGaps(ranks) {
  return ranks.map((rank) => 1 + ranks.filter((other) => other < rank).length);
}
