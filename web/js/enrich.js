// SPDX-License-Identifier: Apache-2.0
/** Formulas laid out, code coloured and with a button to copy. Both libraries come when first needed. */
import { copyText, h } from "./dom.js";
import { icon } from "./icons.js";
import { t } from "./lang.js";

/** Longer code stays in one colour, so that the page answers while it grows. */
const kMaxColoured = 30000;

const kAliases = {
  "c++": "cpp", cc: "cpp", cu: "cpp", cuda: "cpp", h: "c", hpp: "cpp", html: "markup", js: "javascript",
  py: "python", python3: "python", rs: "rust", sh: "bash", shell: "bash", ts: "typescript", xml: "markup",
  yml: "yaml", golang: "go", console: "bash", zsh: "bash", make: "makefile", dockerfile: "docker",
};

let prism = null;
let katex = null;

function loadPrism() {
  globalThis.Prism ??= { manual: true };
  prism ??= import("../vendor/prism.js").then((module) => module.default);
  return prism;
}

function loadKatex() {
  if (!katex) {
    document.head.append(h("link", { rel: "stylesheet", href: new URL("../vendor/katex.css", import.meta.url) }));
    katex = import("../vendor/katex.js").then(() => globalThis.katex);
  }
  return katex;
}

/** Prism's tokens as spans. Made here rather than from its HTML, so that there is none. */
function coloured(tokens) {
  const list = Array.isArray(tokens) ? tokens : [tokens];
  return list.map((token) => {
    if (typeof token === "string") return document.createTextNode(token);
    const names = ["token", token.type, token.alias ?? []].flat();
    return h("span", { class: names.join(" ") }, coloured(token.content));
  });
}

async function colour(code, language) {
  const Prism = await loadPrism();
  const grammar = Prism.languages[language];
  if (!grammar || typeof grammar === "function" || !code.isConnected) return;
  code.replaceChildren(...coloured(Prism.tokenize(code.textContent, grammar)));
}

function frameCode(pre) {
  const code = pre.querySelector("code") ?? pre;
  const word = /language-(\S+)/.exec(code.className)?.[1]?.toLowerCase() ?? "";
  const button = h("button", { type: "button", class: "quiet copy-code", title: t("copy") },
                   icon("copy"), h("span", {}, t("copy")));
  button.addEventListener("click", async () => {
    if (!(await copyText(code.textContent))) return;
    button.replaceChildren(icon("check"), h("span", {}, t("copied")));
    setTimeout(() => button.replaceChildren(icon("copy"), h("span", {}, t("copy"))), 1500);
  });
  const frame = h("div", { class: "code" },
                  h("div", { class: "code-top" }, h("span", {}, word || t("code")), button));
  pre.replaceWith(frame);
  pre.tabIndex = 0;  // so that the keyboard can scroll it
  frame.append(pre);
  const language = kAliases[word] ?? word;
  if (language && code.textContent.length <= kMaxColoured) colour(code, language);
}

/** Lays a formula out. One that is wrong, or asks for what is not allowed, stays as it was written. */
async function layOut(span) {
  const tex = span.textContent;
  const isDisplay = !span.classList.contains("math-inline");
  const library = await loadKatex();
  if (!span.isConnected) return;
  try {
    library.render(tex, span, {
      displayMode: isDisplay, throwOnError: true, strict: "ignore", trust: false, maxExpand: 500, maxSize: 50,
    });
  } catch {
    span.classList.add("math-wrong");
    span.textContent = tex;
  }
}

/** What is done to a block of an answer after it was made. */
export function enrich(element) {
  const wrap = h("div", {});
  element.before(wrap);
  wrap.append(element);
  for (const pre of wrap.querySelectorAll("pre")) frameCode(pre);
  for (const span of wrap.querySelectorAll(".math-inline, .math-display, .math-block")) layOut(span);
  for (const table of wrap.querySelectorAll("table")) {
    const scroll = h("div", { class: "table", tabindex: "0" });
    table.replaceWith(scroll);
    scroll.append(table);
  }
  wrap.replaceWith(...wrap.childNodes);
}
