"use strict";

// An answer's tokens, coloured by one of their numbers, through the iterations of a run of PPO.
(() => {
  const minus = (text) => text.replace("-", "\u2212");
  const plain = (value, digits = 2) => minus((Number(value.toFixed(digits)) + 0).toFixed(digits));
  const signed = (value, digits = 2) => (Number(value.toFixed(digits)) > 0 ? "+" : "") + plain(value, digits);
  const percent = (p) => p < 0.001 ? "<0.1%" : `${(100 * p).toFixed(p < 0.1 ? 1 : 0)}%`;
  const sum = (values) => values.reduce((total, value) => total + value, 0);

  function make(tag, classes, ...children) {
    const node = document.createElement(tag);
    node.className = classes;
    node.append(...children);
    return node;
  }

  // A piece of text as it is seen: control tokens by name, line ends as a sign.
  const isControl = (piece) => /^<\|.*\|>$/.test(piece);
  const visible = (piece) => isControl(piece) ? piece.slice(2, -2) : piece.replaceAll("\n", "\u21b5\n");
  const alone = (piece) => make("span", "shown", visible(piece).replace(/^ /, "\u2423").replaceAll("\n", ""));

  function inspector(root) {
    const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    const part = (name) => root.querySelector(`[data-part=${name}]`);
    const form = root.querySelector("form");
    const { prompt: promptChoice, step: slider } = form.elements;
    let token = Infinity;  // the one that is looked at; beyond the end means the last

    const promptNow = () => Number(promptChoice.value);
    const stepNow = () => Number(slider.value);
    const answerAt = (step) => data.answers[step][promptNow()];
    const quantity = () => form.elements.quantity.value;
    const tokenOf = (answer) => Math.min(token, answer.tokens.length - 1);

    // Colours grow with the square root: a last token's score must not drown the small prices before it.
    function colour(key, value) {
      const size = key === "ratios" ? Math.log(Math.max(value, 1e-6)) : value;
      const strength = Math.min(1, Math.sqrt(Math.abs(size) / data.limits[key]));
      return `color-mix(in srgb, var(--${size < 0 ? "below" : "above"}) ${Math.round(100 * strength)}%, transparent)`;
    }

    function tokens(answer, step) {
      const key = quantity();
      return answer.tokens.flatMap((index, i) => {
        const piece = data.pieces[index], word = piece.replace(/^ (?=.)/, "");
        const node = make("span", "piece", visible(word));
        node.style.background = colour(key, answer[key][i]);
        node.classList.toggle("control", isControl(piece));
        node.classList.toggle("read", i === answer.score_index);
        Object.assign(node.dataset, { step, token: i });
        return word === piece ? [node] : [" ", node];  // so that a line's end shows no coloured space
      });
    }

    function showScale() {
      const key = quantity(), most = data.limits[key], stops = [];
      const at = (share) => Math.sign(share) * share * share * most;  // the inverse of the square root
      const value = (share) => key === "ratios" ? Math.exp(at(share)) : at(share);
      for (let share = -1; share <= 1; share += 0.125) stops.push(colour(key, value(share)));
      part("gradient").style.background = `linear-gradient(to right, ${stops.join(", ")})`;
      const write = key === "ratios" ? (number) => `\u00d7${plain(number)}` : (number) => signed(number, most < 0.2 ? 3 : 2);
      part("ticks").replaceChildren(...[-1, -0.5, 0, 0.5, 1].map((share) => make("span", "", write(value(share)))));
      part("meaning").textContent = form.querySelector("input[name=quantity]:checked").dataset.meaning;
    }

    function showAnswer() {
      const step = stepNow(), answer = answerAt(step);
      part("step").textContent = `${data.steps[step]} of ${data.last}`;
      part("asked").replaceChildren(...data.prompts[promptNow()].tokens.map(
        (piece) => make("span", isControl(piece) ? "piece control" : "piece", visible(piece))));
      const nothing = answer?.ended && answer.tokens.length === 1 ? [make("span", "empty", "(says nothing)")] : [];
      part("answer").replaceChildren(...nothing, ...(answer ? tokens(answer, step) : [make("span", "empty", "no answer of this iteration")]));
      if (answer) part("answer").append(make("small", "flag", `\u25c2 score ${signed(answer.score)} is read here`));
      part("facts").replaceChildren(...(answer ? facts(answer) : []).map(
        ([name, value]) => make("div", "", make("dt", "", name), make("dd", "", value))));
    }

    function facts(answer) {
      const fee = answer.raw_score - answer.score;
      const paid = Math.abs(fee) > 0.001 ? ` (reward model ${signed(answer.raw_score)})` : "";
      return [
        ["score", signed(answer.score) + paid],
        ["KL", `${plain(sum(answer.kl))} nats`],
        ["KL price", `${plain(answer.kl_coef, 3)} a nat`],
        ...(answer.rewards ? [["reward in all", signed(sum(answer.rewards))]] : []),
        ["length", `${answer.tokens.length} tokens${answer.ended ? "" : ", cut off"}`],
      ];
    }

    function showDetail(step, i) {
      const answer = answerAt(step), key = quantity();
      root.querySelectorAll(".piece.chosen").forEach((node) => node.classList.remove("chosen"));
      if (!answer) return part("detail").replaceChildren();
      root.querySelectorAll(`.piece[data-step="${step}"][data-token="${i}"]`).forEach((node) => node.classList.add("chosen"));
      const p = Math.exp(answer.logps[i]);
      const rows = [
        ...(answer.rewards ? [["rewards", "reward", signed(answer.rewards[i], 3)]] : []),
        ["kl", "KL", `${signed(answer.kl[i], 3)} nats`],
        ...(answer.values ? [["values", "value", signed(answer.values[i])]] : []),
        ["advantages", "advantage", signed(answer.advantages[i])],
        ...(answer.values ? [["", "value + advantage", signed(answer.values[i] + answer.advantages[i])]] : []),
        ["ratios", "ratio", `\u00d7${plain(answer.ratios[i], 3)}`],
        ["", "probability", percent(p)],
        ["", "under the reference", percent(Math.exp(answer.logps[i] - answer.kl[i]))],
        ["", "after the updates", percent(Math.min(1, p * answer.ratios[i]))],
      ].map(([name, label, value]) => make("div", name === key ? "now" : "", make("dt", "", label), make("dd", "", value)));
      const heading = make("p", "place", `iteration ${data.steps[step]}, token ${i + 1} of ${answer.tokens.length}`);
      const title = make("p", "title", alone(data.pieces[answer.tokens[i]]));
      part("detail").replaceChildren(heading, title, make("dl", "", ...rows), alternatives(answer, i, p));
    }

    // What the sampler could have drawn, and the token itself where it is none of the likeliest.
    function alternatives(answer, i, p) {
      const drawn = answer.tokens[i], rows = answer.top[i].map(([piece, q]) => [piece, q]);
      if (!rows.some(([piece]) => piece === drawn)) rows.push([drawn, p]);
      const lines = rows.map(([piece, q]) => {
        const bar = make("i", "");
        bar.style.width = `${100 * q}%`;
        return make("div", piece === drawn ? "drawn" : "", alone(data.pieces[piece]), make("span", "bar-of", bar), make("b", "", percent(q)));
      });
      return make("div", "top", make("p", "place", "The sampler\u2019s likeliest here"), ...lines);
    }

    function showStrip() {
      part("strip").replaceChildren(...data.steps.map((name, step) => {
        const answer = answerAt(step), button = make("button", "", String(name));
        button.type = "button";
        button.dataset.step = step;
        button.setAttribute("aria-label", `iteration ${name}`);
        const row = make("div", step === stepNow() ? "frame current" : "frame", button);
        if (answer) {
          row.append(make("span", "words", ...tokens(answer, step)), make("span", "figure score", signed(answer.score)),
            make("span", "figure kl", plain(sum(answer.kl))), make("span", "figure length", `${answer.tokens.length}${answer.ended ? "" : "\u2026"}`));
        } else {
          row.append(make("span", "words empty", "no answer"));
        }
        return row;
      }));
    }

    function rest() {
      const answer = answerAt(stepNow());
      showDetail(stepNow(), answer ? tokenOf(answer) : 0);
    }

    function show() {
      showScale();
      showAnswer();
      showStrip();
      rest();
    }

    function goTo(step) {
      slider.value = step;
      show();
    }

    data.prompts.forEach(({ text }, i) => promptChoice.append(new Option(text.length > 90 ? `${text.slice(0, 88)}\u2026` : text, i)));
    slider.max = data.steps.length - 1;
    slider.value = slider.max;
    promptChoice.addEventListener("change", () => { token = Infinity; show(); });
    slider.addEventListener("input", show);
    form.querySelectorAll("input[name=quantity]").forEach((input) => input.addEventListener("change", show));
    form.querySelectorAll("[data-move]").forEach((button) => {
      button.addEventListener("click", () => goTo(stepNow() + Number(button.dataset.move)));
    });
    form.addEventListener("submit", (event) => event.preventDefault());

    root.addEventListener("pointerover", ({ target, pointerType }) => {
      if (pointerType === "mouse" && target.dataset.token !== undefined) showDetail(Number(target.dataset.step), Number(target.dataset.token));
    });
    for (const area of [part("answer"), part("strip")]) area.addEventListener("pointerleave", rest);
    root.addEventListener("click", ({ target }) => {
      if (target.dataset.token !== undefined) token = Number(target.dataset.token);
      if (target.dataset.step !== undefined) goTo(Number(target.dataset.step));
    });
    part("answer").addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key], answer = answerAt(stepNow());
      if (!move || !answer) return;
      event.preventDefault();
      token = Math.max(0, Math.min(answer.tokens.length - 1, tokenOf(answer) + move));
      rest();
    });
    root.querySelectorAll("[hidden]").forEach((node) => { node.hidden = false; });
    show();
  }

  document.querySelectorAll("[data-inspector]").forEach(inspector);
})();
