// Elements made of plain text: nothing here, and nowhere else on this page, reads text as markup.

export function el(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// Of Markdown: paragraphs, lists, headings, fenced code, **bold**, *italic*, `code`. Links stay text.
export function prose(text) {
  const out = document.createDocumentFragment();
  const parts = text.split(/^```[^\n]*$/m);
  parts.forEach((part, i) => {
    if (i % 2) out.append(el("pre", { tabindex: "0" }, el("code", {}, part.replace(/^\n|\n$/g, ""))));
    else blocks(part, out);
  });
  if (!out.childNodes.length) out.append(el("p", {}, "\u200b"));
  return out;
}

function blocks(text, out) {
  let words = [];
  let list = null;
  const flush = () => {
    if (words.length) out.append(el("p", {}, inline(words.join("\n"))));
    words = [];
  };
  for (const line of text.split("\n")) {
    const item = /^\s*([-*]|\d+[.)])\s+(.+)$/.exec(line);
    const heading = /^#{1,4}\s+(.+)$/.exec(line);
    if (item) {
      flush();
      const tag = /\d/.test(item[1]) ? "ol" : "ul";
      if (!list || list.localName !== tag) {
        list = el(tag, tag === "ol" ? { start: parseInt(item[1], 10) } : {});
        out.append(list);
      }
      list.append(el("li", {}, inline(item[2])));
      continue;
    }
    list = line.trim() ? null : list;
    if (heading || !line.trim()) flush();
    if (heading) out.append(el("h3", {}, inline(heading[1])));
    else if (line.trim()) words.push(line);
  }
  flush();
}

function inline(text) {
  const out = [];
  let end = 0;
  for (const found of text.matchAll(/\*\*([^*\n]+)\*\*|\*([^*\s][^*\n]*)\*|`([^`\n]+)`/g)) {
    out.push(text.slice(end, found.index));
    const tag = found[1] ? "strong" : found[2] ? "em" : "code";
    out.push(el(tag, {}, found[1] || found[2] || found[3]));
    end = found.index + found[0].length;
  }
  out.push(text.slice(end));
  return out;
}
