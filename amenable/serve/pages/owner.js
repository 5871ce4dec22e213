// The owner's page: the figures of the labels so far, the labels themselves, and the instructions.

import { $, el, plural, turn } from "./elements.js";
import { ask } from "./requests.js";

const percent = (x) => (x === null || x === undefined ? "–" : `${(100 * x).toFixed(0)} %`);
const number = (x, digits = 2) => (x === null || x === undefined ? "–" : x.toFixed(digits));
const interval = (x, show = number) => (x.low === null || x.low === undefined ? null : el("small", {}, ` ${show(x.low)} to ${show(x.high)}`));
const seconds = (x) => (x === null || x === undefined ? "–" : x < 90 ? `${x.toFixed(0)} s` : `${(x / 60).toFixed(1)} min`);
const excerpt = (text) => (text.length > 160 ? `${text.slice(0, 160)} …` : text);

async function load() {
  let data;
  try {
    data = await (await ask("/api/owner/figures")).json();
  } catch (error) {
    $("figures").replaceChildren(el("p", { role: "alert" }, error.message), el("p", {}, el("a", { href: "/" }, "Come in with an owner’s token")));
    return;
  }
  $("figures").replaceChildren(...[tiles(data), people(data), hours(data), agreement(data), model(data), positions(data), hasty(data), disagreements(data), counts(data), exports()].filter(Boolean));
  const me = await (await ask("/api/me")).json();
  if (!$("text").value) $("text").value = me.instructions;
  $("instructions").hidden = false;
}

function tiles(data) {
  const labels = Object.values(data.kinds).reduce((a, b) => a + b, 0);
  const worked = data.people.reduce((sum, person) => sum + person.hours, 0);
  const tile = (value, caption, more) => el("div", { class: "tile" }, el("b", {}, value), el("span", {}, caption), more ? el("small", {}, more) : null);
  const alike = data.agreement.pairwise;
  return el("div", { class: "tiles" },
    tile(String(labels), labels === 1 ? "label" : "labels", `${plural(data.kinds.ranking ?? 0, "order")}, ${(data.kinds.demonstration ?? 0) + (data.kinds.conversation ?? 0)} written`),
    tile(worked > 0 ? (labels / worked).toFixed(0) : "–", "labels an hour", `of ${worked.toFixed(1)} hours at work`),
    tile(percent(alike.share), "of pairs ordered alike", alike.share === null ? "no task was ranked by two people yet" : `${percent(alike.low)} to ${percent(alike.high)}, ${plural(alike.n, "pair")}`),
    tile(number(data.agreement.krippendorff.value), "Krippendorff’s alpha", data.agreement.krippendorff.low === null ? plural(data.agreement.tasks, "task") : `${number(data.agreement.krippendorff.low)} to ${number(data.agreement.krippendorff.high)}`));
}
const table = (head, rows) => el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `A table of ${head.filter(Boolean).join(", ")}` }, el("table", {}, el("thead", {}, el("tr", {}, head.map((h) => (h ? el("th", { scope: "col" }, h) : el("td"))))), el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell) => el("td", {}, cell)))))));

function people(data) {
  if (!data.people.length) return el("p", { class: "note" }, "Nobody has labelled anything yet.");
  return el("section", {}, el("h2", {}, "People"), table(
    ["", "labels", "an hour", "median time", "skipped", "right where the order is known"],
    data.people.map((person) => [person.name, String(person.labels), person.per_hour === null ? "–" : person.per_hour.toFixed(0), seconds(person.median_seconds), String(person.skips), [percent(person.known.share), person.known.n ? el("small", {}, ` ${percent(person.known.low)} to ${percent(person.known.high)}, ${plural(person.known.n, "pair")}`) : ""]])));
}
function hours(data) {
  if (data.hours.length < 2) return null;
  const most = Math.max(...data.hours.map((hour) => hour.labels));
  const columns = data.hours.map((hour) => { const bar = el("i", { title: `${new Date(hour.start * 1000).toLocaleString()}: ${hour.labels}` }); bar.style.height = `${(100 * hour.labels) / most}%`; return bar; });
  return el("section", {}, el("h2", {}, "Labels by the hour"), el("div", { class: "columns", role: "img", "aria-label": `Labels in each of ${data.hours.length} hours, at most ${most}` }, columns), el("p", { class: "note" }, `${new Date(data.hours[0].start * 1000).toLocaleString()} to ${new Date(data.hours.at(-1).start * 1000).toLocaleString()}; at most ${most} in an hour`));
}
function agreement(data) {
  const all = data.agreement;
  if (!all.tasks) return null;
  const row = (name, x) => [name, number(x.value), interval(x) ?? "–"];
  return el("section", {}, el("h2", {}, "Agreement"), el("p", { class: "note" }, `Of pairs of answers, over ${plural(all.tasks, "task")} that several people ranked; intervals take a task as one, and are left out where tasks are too few.`),
    table(["", "beyond chance", "95 %"], [row("Krippendorff’s alpha, everybody", all.krippendorff), row("Fleiss’ kappa, everybody", all.fleiss), ...all.cohen.map((pair) => row(`Cohen’s kappa, ${pair.people[0]} and ${pair.people[1]}`, pair))]));
}
function model(data) {
  const agreement = data.reward_model;
  if (!agreement || !agreement.all.n) return null;
  return el("section", {}, el("h2", {}, "With the reward model"), table(["", "pairs ordered alike", "95 %", "pairs"],
    [{ name: "everybody", ...agreement.all }, ...agreement.people].map((row) => [row.name, percent(row.share), interval(row, percent) ?? "–", String(row.n)])));
}
function positions(data) {
  const groups = data.positions.filter((group) => group.places[0].n >= 5);
  if (!groups.length) return null;
  return el("section", {}, el("h2", {}, "Does the place on the page matter?"), el("p", { class: "note" }, "How often the answer shown at each place was the best. The order is drawn by lot, so every place should win as often (dashed)."),
    groups.map((group) => [el("h3", {}, `${plural(group.answers, "answer")}, ${plural(group.places[0].n, "task")}`), ...group.places.map((place, n) => bar(group.answers === 2 ? ["left", "right"][n] : `place ${n + 1}`, place, group.expected))]));
}
function bar(name, x, even) {
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", "0 0 100 16"); svg.setAttribute("preserveAspectRatio", "none"); svg.setAttribute("aria-hidden", "true");
  const line = (kind, x1, x2) => { const l = document.createElementNS(ns, "line"); for (const [k, v] of Object.entries({ class: kind, x1, x2, y1: 8, y2: 8, "vector-effect": "non-scaling-stroke" })) l.setAttribute(k, v); svg.append(l); return l; };
  line("base", 0, 100); line("ends", 100 * x.low, 100 * x.high);
  const dot = line("ends", 100 * x.share - 0.4, 100 * x.share + 0.4); dot.style.opacity = 1; dot.style.strokeWidth = 9;
  const mark = line("even", 100 * even, 100 * even); mark.setAttribute("y1", 0); mark.setAttribute("y2", 16);
  return el("div", { class: "row-bar" }, el("span", {}, name), svg, el("span", {}, `${percent(x.share)}, ${percent(x.low)} to ${percent(x.high)}`));
}
function hasty(data) {
  if (!data.hasty.length) return null;
  return el("section", {}, el("h2", {}, "Very fast"), el("p", { class: "note" }, "Orders given in far less time than is usual for so many answers."),
    table(["who", "label", "answers", "took", "usual"], data.hasty.map((label) => [label.annotator, String(label.id), String(label.answers), seconds(label.seconds), seconds(label.usual)])));
}
function disagreements(data) {
  if (!data.disagreements.length) return null;
  return el("section", {}, el("h2", {}, "Worth talking about"), el("p", { class: "note" }, "Tasks that people ordered differently, the most contrary first."),
    data.disagreements.slice(0, 3).map(contrast),
    data.disagreements.length > 3 ? el("details", {}, el("summary", {}, `${data.disagreements.length - 3} more`), data.disagreements.slice(3).map(contrast)) : null);
}
function contrast(task) {
  return el("div", { class: "contrary" }, task.prompt.map(turn),
    table(["answer", ...task.said.map((s) => s.annotator)], task.completions.map((text, i) => [excerpt(text), ...task.said.map((s) => String(s.ranks[i]))])),
    el("p", { class: "note" }, `${percent(task.contrary)} of ${plural(task.pairs, "pair")} contrary. `, task.said.filter((s) => s.notes).map((s) => `${s.annotator}: ${s.notes} `)));
}
function counts(data) {
  const lists = [["Flags", data.flags], ["Skipped because", data.skips], ["Suggestions", data.suggestions]].filter(([, all]) => Object.keys(all).length);
  if (!lists.length) return null;
  return el("section", {}, lists.map(([name, all]) => [el("h2", {}, name), table(["", "times"], Object.entries(all).sort((a, b) => b[1] - a[1]).map(([name, n]) => [name, String(n)]))]));
}
function exports() {
  return el("section", {}, el("h2", {}, "Export"), el("p", { class: "note" }, "As training reads them. On the command line: amenable export-labels."),
    el("div", { class: "exports" }, ["rankings", "pairs", "demonstrations"].map((kind) => el("a", { href: `/api/owner/export/${kind}`, download: `${kind}.jsonl` }, `${kind}.jsonl`))));
}

$("again").addEventListener("click", load);
$("editor").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await ask("/api/owner/instructions", { text: $("text").value });
    $("saved").textContent = "Saved.";
  } catch (error) {
    $("saved").textContent = error.message;
  }
});
load();
