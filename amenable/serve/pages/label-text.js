// Elements made of plain text: nothing here, and nowhere else on these pages, reads text as markup.

export function el(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function turn(message) {
  const who = { user: "Person", assistant: "Assistant", system: "Setting" }[message.role];
  return el("div", { class: `turn ${message.role}` }, el("b", {}, who), el("p", {}, message.content));
}

// The part of Markdown that instructions need: headings, lists, paragraphs, **bold**, *italic*, `code`, links.
export function markdown(text) {
  const out = document.createDocumentFragment();
  let list = null;
  let words = [];
  const flush = () => {
    if (words.length) out.append(el("p", {}, ...inline(words.join(" "))));
    words = [];
  };
  for (const line of text.split("\n")) {
    const heading = /^(#{1,4})\s+(.*)$/.exec(line);
    const item = /^\s*([-*]|\d+[.)])\s+(.*)$/.exec(line);
    if (item) {
      flush();
      const tag = /\d/.test(item[1]) ? "ol" : "ul";
      if (!list || list.localName !== tag) out.append((list = el(tag)));
      list.append(el("li", {}, ...inline(item[2])));
    } else if (list && /^\s+\S/.test(line)) {
      list.lastChild.append(" ", ...inline(line.trim()));
    } else {
      list = null;
      if (heading || !line.trim()) flush();
      if (heading) out.append(el(`h${heading[1].length + 1}`, {}, ...inline(heading[2])));
      else if (line.trim()) words.push(line.trim());
    }
  }
  flush();
  return out;
}

function inline(text) {
  const pattern = /\*\*(.+?)\*\*|\*(.+?)\*|`(.+?)`|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/g;
  const out = [];
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    out.push(text.slice(end, found.index));
    if (found[1]) out.push(el("strong", {}, ...inline(found[1])));
    else if (found[2]) out.push(el("em", {}, ...inline(found[2])));
    else if (found[3]) out.push(el("code", {}, found[3]));
    else out.push(el("a", { href: found[5], rel: "noopener noreferrer", target: "_blank" }, found[4]));
    end = found.index + found[0].length;
  }
  out.push(text.slice(end));
  return out;
}

export const nth = (n) => `${n}${["th", "st", "nd", "rd"][n % 100 > 10 && n % 100 < 14 ? 0 : n % 10] || "th"}`;
