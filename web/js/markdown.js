// SPDX-License-Identifier: Apache-2.0
/**
 * What a model says, as nodes of the document. HTML in it is shown as text; whatever comes out of the
 * Markdown library passes DOMPurify; images are links, as fetching one would tell a third party.
 */
import "../vendor/marked.js";
import "../vendor/purify.js";

const { marked, DOMPurify } = globalThis;

// Debian 12's DOMPurify (2.4.1, with the changes of its deb12u1) reads a variable in `sanitize` that it
// declares elsewhere, and throws. It asks for the depth of the root, which is none.
globalThis.shadowNode ??= { __depth: 0 };

const kTags = [
  "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "input", "li",
  "ol", "p", "pre", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
];
const kPlainAttributes = ["align", "checked", "class", "disabled", "start", "title", "type"];

const escaped = (text) =>
  text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

/** A formula for the Markdown library: what is between the delimiters, as text with a class. */
function formula(name, level, start, pattern) {
  return {
    name,
    level,
    start: (source) => source.match(start)?.index,
    tokenizer(source) {
      const match = pattern.exec(source);
      return match ? { type: name, raw: match[0], text: match[1] ?? match[2] } : undefined;
    },
    renderer: (token) => `<span class="${name}">${escaped(token.text.trim())}</span>`,
  };
}

// Longer formulas stay text: laying one out, or looking for its end, takes more than linear time.
marked.use({
  extensions: [
    formula("math-block", "block", /^ {0,3}(?:\$\$|\\\[)/m,
            /^ {0,3}(?:\$\$([^]{1,2000}?)\$\$|\\\[([^]{1,2000}?)\\\])[ \t]*(?:\n|$)/),
    formula("math-display", "inline", /\$\$|\\\[/,
            /^(?:\$\$([^]{1,2000}?)\$\$|\\\[([^]{1,2000}?)\\\])/),
    // A dollar that is an amount has a digit behind its partner, or a space inside.
    formula("math-inline", "inline", /\$|\\\(/,
            /^(?:\$(?!\s|\$)((?:\\[^]|[^\\$\n]){1,2000}?)(?<!\s)\$(?!\d)|\\\(([^]{1,2000}?)\\\))/),
  ],
});

// `mangle` and `headerIds` are of marked before 5, and unknown to later ones.
marked.setOptions({ gfm: true, breaks: false, mangle: false, headerIds: false });

/** Turns HTML among the tokens into text, at every depth. */
function disarm(tokens) {
  for (const token of tokens) {
    if (token.type === "html" || token.type === "tag") {
      Object.assign(token, { type: "text", text: escaped(token.raw), tokens: undefined, escaped: true });
    }
    const below = [token.tokens, token.items, token.header, ...(token.rows ?? [])];
    for (const list of below) if (Array.isArray(list)) disarm(list);
  }
}

DOMPurify.addHook("uponSanitizeElement", (node, data) => {
  if (data.tagName !== "img") return;
  const link = document.createElement("a");
  link.setAttribute("href", node.getAttribute("src") ?? "");
  link.className = "image-link";
  link.textContent = node.getAttribute("alt") || node.getAttribute("src") || "image";
  node.replaceWith(link);
});

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "INPUT" && node.getAttribute("type") !== "checkbox") node.remove();
  if (node.tagName !== "A") return;
  node.setAttribute("rel", "noopener noreferrer nofollow");
  node.setAttribute("target", "_blank");
});

function fragmentOf(html) {
  return DOMPurify.sanitize(html, {
    ALLOWED_TAGS: kTags,
    ALLOWED_ATTR: ["href", ...kPlainAttributes],
    ADD_URI_SAFE_ATTR: kPlainAttributes,
    ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
}

/**
 * Shows a text that grows in `target`: only the last block is made again. `enrich(element)` is called
 * with every element that was made. A text that is no continuation is made from the beginning.
 */
export class GrowingMarkdown {
  constructor(target, enrich) {
    this.target = target;
    this.enrich = enrich;
    this.text = "";
    this.open = 0;  // where the last block begins; what is before it stays as it is
    this.kept = 0;  // nodes of the target that show what is before it
  }

  show(source) {
    // As the Markdown library sees it, so that lengths agree.
    const text = source.replace(/\r\n?/g, "\n").replace(/^( *)(\t+)/gm,
                                                        (_, spaces, tabs) => spaces + "    ".repeat(tabs.length));
    if (!text.startsWith(this.text.slice(0, this.open))) this.#forget();
    this.text = text;
    while (this.target.childNodes.length > this.kept) this.target.lastChild.remove();
    let at = this.open;
    // The library takes code that is not closed for a paragraph while its last line is half.
    for (const token of marked.lexer(`${text.slice(this.open)}\n`)) {
      if (token.type !== "space" && token.type !== "def") {
        this.open = at;
        this.kept = this.target.childNodes.length;
        this.#add(token);
      }
      at += token.raw.length;
    }
  }

  /** Shows a text that is whole: links may be defined behind their use. */
  finish(source) {
    if (/^ {0,3}\[[^\]]+\]:/m.test(source)) this.#forget();
    this.show(source);
  }

  #forget() {
    this.open = this.kept = 0;
  }

  #add(token) {
    disarm([token]);
    const fragment = fragmentOf(marked.parser([token]));
    const elements = [...fragment.children];
    this.target.append(fragment);
    for (const element of elements) this.enrich(element);
  }
}
