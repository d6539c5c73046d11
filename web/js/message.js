// SPDX-License-Identifier: Apache-2.0
/** One message in the thread. */
import { siblings } from "./conversation.js";
import { copyText, growWithText, h } from "./dom.js";
import { enrich } from "./enrich.js";
import { icon } from "./icons.js";
import { number, t } from "./lang.js";
import { GrowingMarkdown } from "./markdown.js";
import { toast } from "./toast.js";

/** A view of `node` in `chat`'s conversation: `element`, `grow()` when it has more text, `startEdit()`. */
export class MessageView {
  constructor(chat, node, actions) {
    this.chat = chat;
    this.node = node;
    this.actions = actions;
    const isUser = node.role === "user";
    this.body = h("div", { class: "body", dir: "auto" });
    this.tools = h("div", { class: "tools" });
    this.element = h("article", { class: `message ${node.role}`, data: { id: node.id },
                                  "aria-label": t(isUser ? "you" : "assistant") },
                     this.#images(), this.#reasoning(), this.body);
    if (isUser) {
      this.body.textContent = node.text;
    } else {
      this.markdown = new GrowingMarkdown(this.body, enrich);
    }
    this.element.append(this.tools);
    this.update();
  }

  /** After the text grew. */
  grow() {
    if (this.node.reasoning && !this.thoughts) this.body.before(this.#reasoning());
    if (this.thoughts) this.thoughts.textContent = this.node.reasoning;
    this.markdown.show(this.node.text);
  }

  /** After anything else changed. */
  update() {
    const isGrowing = this.node.state === "streaming";
    this.element.classList.toggle("growing", isGrowing);
    this.element.setAttribute("aria-busy", String(isGrowing));
    if (this.markdown) {
      if (isGrowing) this.grow();
      else this.markdown.finish(this.node.text);
    }
    this.element.querySelector(".failure")?.remove();
    if (this.node.error) this.tools.before(this.#failure());
    this.tools.replaceChildren(...(isGrowing ? [] : this.#tools()));
  }

  startEdit() {
    if (this.element.querySelector("form")) return;
    const area = h("textarea", { "aria-label": t("edit"), rows: "1", dir: "auto" });
    area.value = this.node.text;
    const end = () => {
      form.remove();
      this.element.classList.remove("editing");
      this.element.querySelector(".tools button")?.focus();
    };
    const submit = (event) => {
      event.preventDefault();
      const text = area.value.trim();
      if (!text && !this.node.images.length) return;
      end();
      this.chat.edit(this.node, text);
    };
    const form = h("form", { class: "edit", on: { submit } }, area,
                   h("div", { class: "row" },
                     h("button", { type: "button", class: "plain", on: { click: end } }, t("cancel")),
                     h("button", { type: "submit", class: "primary" },
                       t(this.node.role === "user" ? "sendEdited" : "save"))));
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { event.stopPropagation(); end(); }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event);
    });
    this.element.classList.add("editing");
    this.tools.before(form);
    growWithText(area);
    area.focus();
  }

  #images() {
    if (!this.node.images.length) return null;
    return h("div", { class: "pictures" }, this.node.images.map((url) =>
      h("img", { src: url, alt: t("picture"), loading: "lazy" })));
  }

  #reasoning() {
    if (!this.node.reasoning) return null;
    this.thoughts = h("div", { class: "thoughts" }, this.node.reasoning);
    return h("details", { class: "reasoning" }, h("summary", {}, t("reasoning")), this.thoughts);
  }

  #button(name, iconName, action) {
    return h("button", { type: "button", class: "quiet", title: t(name), "aria-label": t(name),
                         data: { action: name }, on: { click: action } }, icon(iconName));
  }

  #tools() {
    const { chat, node } = this;
    const isAnswer = node.role === "assistant";
    const isLast = !chat.conversation.chosen[node.id];
    const tools = [
      this.#branches(),
      this.#button("copy", "copy", () => this.#copy()),
      this.#button("edit", "edit", () => this.startEdit()),
      isAnswer && this.#button("regenerate", "again", () => chat.regenerate(node)),
      isAnswer && isLast && node.text && this.#button("continue", "forward", () => chat.continue(node)),
      this.#button("delete", "bin", () => this.actions.remove(node)),
      isAnswer && this.#stats(),
    ];
    return tools.filter(Boolean);
  }

  async #copy() {
    if (await copyText(this.node.text)) toast(t("copied"));
  }

  #branches() {
    const all = siblings(this.chat.conversation, this.node.parent);
    if (all.length < 2) return null;
    const at = all.findIndex((node) => node.id === this.node.id);
    const step = (by, name, iconName, isEnd) => {
      const button = this.#button(name, iconName, () => this.chat.choose(this.node, by));
      button.disabled = isEnd;
      return button;
    };
    return h("span", { class: "branches" },
             step(-1, "previousVersion", "left", at === 0),
             h("span", { "aria-label": t("version") }, `${at + 1}/${all.length}`),
             step(1, "nextVersion", "right", at === all.length - 1));
  }

  #stats() {
    const { stats, state } = this.node;
    const parts = [];
    if (state === "stopped") parts.push(t("stopped"));
    if (state === "length") parts.push(t("cutShort"));
    if (stats) {
      parts.push(t("tokens", { n: (stats.isExact ? "" : "≈ ") + number(stats.tokens) }));
      if (stats.rate) parts.push(t("rate", { n: number(stats.rate, stats.rate < 100 ? 1 : 0) }));
      parts.push(t("firstAfter", { n: number(stats.first / 1000, 2) }));
    }
    return h("span", { class: "stats" }, parts.map((part) => h("span", {}, part)));
  }

  #failure() {
    const { error, text } = this.node;
    const buttons = [h("button", { type: "button", class: "primary", data: { action: "retry" }, on: { click: () => {
      if (text) this.chat.continue(this.node);
      else this.chat.regenerate(this.node);
    } } }, t(text ? "continue" : "retry"))];
    if (error.kind === "key") {
      buttons.unshift(h("button", { type: "button", class: "plain", on: { click: this.actions.askKey } }, t("enterKey")));
    }
    const wait = error.retryAfter ? ` ${t("waitFor", { n: error.retryAfter })}` : "";
    return h("div", { class: "failure", role: "alert" }, icon("warning"),
             h("div", {}, h("p", {}, `${t(`error-${error.kind}`)}${wait}`),
               h("p", { class: "detail" }, [error.message, error.status && `HTTP ${error.status}`, error.requestId]
                 .filter(Boolean).join(" · "))),
             h("div", { class: "row" }, buttons));
  }
}
