// Elements made of plain text: no page reads text as markup.

const LONG = 1200; // characters of an answer from which on it is folded
const TALL = 20; // lines, likewise

export const $ = (id) => document.getElementById(id);

export function el(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name.startsWith("on") && value) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// True for Enter that sends, and not Shift+Enter or a composition's.
export const sends = (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing;

// Makes a text box as high as its text.
export function fitHeight(box) {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

export const nth = (n) => `${n}${["th", "st", "nd", "rd"][n % 100 > 10 && n % 100 < 14 ? 0 : n % 10] || "th"}`;
export const plural = (n, word, words = `${word}s`) => `${n} ${n === 1 ? word : words}`;

// The part of Markdown that models and people write: paragraphs, lists, headings, fenced code, **bold**, *italic*, `code`.
// Every block has the direction of its first letter. links: [text](https://...) becomes a link, in the owner's texts
// alone; heading: maps the number of marks to a heading's level.
export function markdown(text, { links = false, heading = () => 3 } = {}) {
  const out = document.createDocumentFragment();
  text.split(/^```[^\n]*$/m).forEach((part, i) => {
    if (i % 2) out.append(el("pre", { tabindex: "0", dir: "auto" }, el("code", {}, part.replace(/^\n|\n$/g, ""))));
    else blocks(part, out, links, heading);
  });
  return out;
}

function blocks(text, out, links, heading) {
  let words = [];
  let list = null;
  const flush = () => {
    if (words.length) out.append(el("p", { dir: "auto" }, inline(words.join("\n"), links)));
    words = [];
  };
  for (const line of text.split("\n")) {
    const item = /^\s*([-*]|\d+[.)])\s+(.+)$/.exec(line);
    const head = /^(#{1,4})\s+(.+)$/.exec(line);
    if (item) {
      flush();
      const tag = /\d/.test(item[1]) ? "ol" : "ul";
      if (!list || list.localName !== tag) {
        list = el(tag, tag === "ol" ? { start: parseInt(item[1], 10), dir: "auto" } : { dir: "auto" });
        out.append(list);
      }
      list.append(el("li", { dir: "auto" }, inline(item[2], links)));
    } else if (list && /^\s+\S/.test(line)) {
      list.lastChild.append(" ", ...inline(line.trim(), links));
    } else {
      list = line.trim() ? null : list;
      if (head || !line.trim()) flush();
      if (head) out.append(el(`h${heading(head[1].length)}`, { dir: "auto" }, inline(head[2], links)));
      else if (line.trim()) words.push(line);
    }
  }
  flush();
}

function inline(text, links) {
  const pattern = /\*\*([^*\n]+)\*\*|\*([^*\s][^*\n]*)\*|`([^`\n]+)`|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/g;
  const out = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    const [whole, bold, italic, code, label, address] = match;
    if (address && !links) continue;
    out.push(text.slice(end, match.index));
    if (address) out.push(el("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, label));
    else out.push(el(bold ? "strong" : italic ? "em" : "code", {}, bold || italic || code));
    end = match.index + whole.length;
  }
  out.push(text.slice(end));
  return out;
}

// Text as it was typed: line breaks stay, and nothing is markup.
export const plain = (text, options = {}) => el("div", { class: "text plain", dir: "auto", ...options }, text);

// An answer as Markdown, or a note that it is empty.
export function completion(text, options = {}) {
  const words = text.trim() ? markdown(text) : el("p", { class: "nothing" }, "(says nothing)");
  return el("div", { class: "text", ...options }, words);
}

// A node and, where its text is long, the button that shows all of it.
export function folded(node, text) {
  if (text.length <= LONG && text.split("\n").length <= TALL) return [node];
  const count = plural(text.split(/\s+/).filter(Boolean).length, "word");
  const button = el("button", { type: "button", class: "unfold", "aria-expanded": "false", onclick: toggle }, `Show all ${count}`);
  function toggle() {
    const open = !node.classList.toggle("folded");
    button.textContent = open ? "Show less" : `Show all ${count}`;
    button.setAttribute("aria-expanded", String(open));
    if (!open) button.scrollIntoView({ block: "nearest" });
  }
  node.classList.add("folded");
  return [node, button];
}

export function turn(message) {
  const name = { user: "Person", assistant: "Assistant", system: "Setting" }[message.role];
  const text = message.role === "assistant" ? completion(message.content) : plain(message.content);
  return el("div", { class: `turn ${message.role}` }, el("b", {}, name), folded(text, message.content));
}
