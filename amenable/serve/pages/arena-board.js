// The leaderboard: ratings with their intervals, and who beat whom how often.

import { $, el, plural } from "./elements.js";
import { addLogin, ask, setStatus } from "./requests.js";

const whole = (value) => Math.round(value).toString().replace("-", "−");
const percent = (value) => `${Math.round(100 * value)} %`;
const th = (text, more = {}) => el("th", { scope: "col", ...more }, text);
const SVG = "http://www.w3.org/2000/svg";

function svg(tag, options, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(options)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function standings(board) {
  const low = Math.min(...board.players.map((row) => row.low));
  const high = Math.max(...board.players.map((row) => row.high));
  const at = (value) => 4 + (192 * (value - low)) / Math.max(1e-9, high - low);
  const heads = el("tr", {}, th("Rank"), th("Model"), th("Rating"), th("95 % interval", { class: "wide" }), th("Elo"), th("Battles"), th("Won · tied · lost"), th("Score"), th("Characters"));
  const rows = board.players.map((row) => el("tr", {},
    el("td", {}, row.rank), el("th", { scope: "row" }, row.name), el("td", { class: "large" }, whole(row.rating)),
    el("td", { class: "wide" }, interval(row, at), el("small", {}, `${whole(row.low)} to ${whole(row.high)}`)),
    el("td", {}, whole(row.elo)), el("td", {}, row.battles), el("td", {}, `${row.wins} · ${row.ties} · ${row.losses}`),
    el("td", {}, percent(row.score)), el("td", {}, row.length === null ? "" : whole(row.length))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Standings, a table" }, el("table", {}, el("caption", { class: "unseen" }, "Models, best first"), el("thead", {}, heads), el("tbody", {}, rows)));
}

function interval(row, at) {
  return svg("svg", { viewBox: "0 0 200 16", "aria-hidden": "true", preserveAspectRatio: "none" },
    svg("line", { x1: 0, x2: 200, y1: 8, y2: 8, class: "base" }),
    svg("line", { x1: at(row.low), x2: at(row.high), y1: 8, y2: 8, class: "ends" }),
    svg("line", { x1: at(row.rating) - 2, x2: at(row.rating) + 2, y1: 8, y2: 8, class: "dot" }));
}

function rates(board) {
  const names = board.players.map((row) => row.name);
  const cell = (row, column) => {
    const met = board.win_rates[row][column];
    if (!met) return el("td", { class: "never" }, row === column ? "" : "–");
    const shade = Math.round(4 * (2 * met.score - 1));
    return el("td", { class: `shade${shade < 0 ? "-low" : ""}-${Math.abs(shade)}` }, percent(met.score), el("small", {}, `of ${met.count}`));
  };
  const rows = names.map((row) => el("tr", {}, el("th", { scope: "row" }, row), names.map((column) => cell(row, column))));
  return [el("h2", {}, "Who beats whom"), el("p", { class: "note" }, "How often the row was better than the column; a tie is half."),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Win rates, a table" },
      el("table", { class: "matrix" }, el("thead", {}, el("tr", {}, el("td", {}), names.map((name) => th(name)))), el("tbody", {}, rows)))];
}

function notes(board) {
  const texts = [`${plural(board.battles, "vote")}. The rating is Bradley-Terry's; the interval holds what the votes leave possible (95 %). A rank is one more than how many are surely better.`,
    `Elo: ${plural(board.terms.k, "point")} at stake, ${{ time: "in the order of the votes", reversed: "the last vote first", shuffled: "the mean over many orders" }[board.terms.order]}. “Both are bad” counts as a tie. Characters are those of a model's answers in a battle.`];
  if (board.length_worth) texts.push(`At equal length: an answer longer by a usual difference is worth ${whole(board.length_worth.rating)} points (${whole(board.length_worth.low)} to ${whole(board.length_worth.high)}), which are not counted here.`);
  if (board.several.length) texts.push(`Several models fought under one name, and are rated as one: ${board.several.join(", ")}.`);
  if (board.groups.length > 1) texts.push(`Never met, so that their ratings cannot be compared: ${board.groups.map((group) => group.join(", ")).join("; ")}.`);
  if (board.waiting.length) texts.push(`No vote yet: ${board.waiting.join(", ")}.`);
  return texts.map((text) => el("li", {}, text));
}

async function show() {
  const controlled = $("controlled").checked;
  try {
    const board = await (await ask(`/api/leaderboard?length_controlled=${controlled}`)).json();
    if (controlled !== $("controlled").checked) return;
    setStatus("");
    if (!board.players.length) {
      $("standings").replaceChildren(el("div", { class: "hello" }, el("h2", {}, "No votes yet"), el("p", {}, el("a", { href: "/" }, "Be the first to judge"))));
      $("rates").replaceChildren();
      return;
    }
    $("standings").replaceChildren(standings(board));
    $("rates").replaceChildren(...rates(board));
    $("notes").replaceChildren(...notes(board));
  } catch (error) {
    setStatus(error.message, true);
  }
}

addLogin("/login", show);
$("controlled").addEventListener("change", show);
show();
