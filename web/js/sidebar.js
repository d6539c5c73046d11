// SPDX-License-Identifier: Apache-2.0
/** The list of conversations. */
import { byId, h } from "./dom.js";
import { icon } from "./icons.js";
import { t } from "./lang.js";
import { openMenu } from "./menu.js";
import { change, settings } from "./settings.js";
import { toast } from "./toast.js";
import { exportJson, exportMarkdown } from "./transfer.js";

const isNarrow = () => matchMedia("(max-width: 800px)").matches;

/** Under which word of time a conversation stands. */
function period(updated) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (updated >= midnight) return "today";
  if (updated >= midnight - 86400000) return "yesterday";
  return updated >= midnight - 7 * 86400000 ? "thisWeek" : "older";
}

export class Sidebar {
  constructor(chat) {
    this.chat = chat;
    this.heads = [];
    chat.addEventListener("list", () => this.load());
    chat.addEventListener("open", () => this.#show());
    byId("backdrop").addEventListener("click", () => this.toggle(false));
    byId("sidebar").addEventListener("keydown", (event) => {
      if (event.key === "Escape" && isNarrow()) this.toggle(false);
    });
    this.build();
    this.toggle(settings.sidebar && !isNarrow());
  }

  build() {
    this.filter = h("input", { type: "search", placeholder: t("search"), "aria-label": t("search"),
                               on: { input: () => this.#show() } });
    this.list = h("nav", { class: "list" });
    byId("sidebar").replaceChildren(
      h("div", { class: "brand" }, h("span", { class: "mark", "aria-hidden": "true" }), "lmd"),
      h("button", { type: "button", class: "plain create", on: { click: () => this.#leave(() => this.chat.create()) } },
        icon("plus"), t("newConversation")),
      h("label", { class: "search" }, icon("search"), this.filter),
      this.list,
      h("div", { class: "links" }, h("a", { href: "docs" }, icon("book"), t("apiDocs")),
        h("a", { href: "licenses" }, t("licenses"))));
    this.#show();
  }

  get isOpen() {
    return document.body.classList.contains("sidebar-open");
  }

  toggle(isOpen = !this.isOpen) {
    document.body.classList.toggle("sidebar-open", isOpen);
    byId("sidebar").inert = !isOpen;
    byId("backdrop").hidden = !(isOpen && isNarrow());
    byId("toggle-sidebar")?.setAttribute("aria-expanded", String(isOpen));
    if (!isNarrow()) change({ sidebar: isOpen });
    else if (isOpen) byId("sidebar").querySelector("button").focus();
  }

  async load() {
    this.heads = await this.chat.store.list();
    this.#show();
  }

  menuOf(id) {
    return [
      { icon: "edit", text: t("rename"), action: () => this.#rename(id) },
      { icon: "upload", text: t("exportMarkdown"), action: async () => exportMarkdown(await this.#body(id)) },
      { icon: "upload", text: t("exportJson"), action: async () => {
        const body = await this.#body(id);
        exportJson([body], body.title);
      } },
      { icon: "bin", text: t("delete"), isDanger: true, action: () => this.#remove(id) },
    ];
  }

  #body(id) {
    return id === this.chat.conversation.id ? this.chat.conversation : this.chat.store.load(id);
  }

  /** Does something that shows a conversation; on a phone the list makes room for it. */
  #leave(action) {
    action();
    if (isNarrow()) this.toggle(false);
    byId("prompt").focus();
  }

  #show() {
    const words = this.filter.value.trim().toLowerCase();
    const heads = this.heads.filter((head) => head.title.toLowerCase().includes(words));
    const groups = new Map();
    for (const head of heads) {
      const name = period(head.updated);
      if (!groups.has(name)) groups.set(name, h("ul", {}));
      groups.get(name).append(this.#row(head));
    }
    this.list.replaceChildren(...[...groups].flatMap(([name, rows]) => [h("h2", {}, t(name)), rows]));
    if (!heads.length) this.list.append(h("p", { class: "none" }, t(words ? "nothingFound" : "noConversations")));
  }

  #row(head) {
    const isCurrent = head.id === this.chat.conversation.id;
    const more = h("button", { type: "button", class: "quiet", title: t("more"), "aria-label": `${t("more")}: ${head.title}`,
                               "aria-haspopup": "menu", "aria-expanded": "false" }, icon("more"));
    more.addEventListener("click", () => openMenu(more, this.menuOf(head.id)));
    return h("li", { class: isCurrent ? "current" : null, data: { id: head.id } },
             h("button", { type: "button", class: "title", "aria-current": isCurrent ? "true" : null,
                           on: { click: () => this.#leave(() => this.chat.open(head.id)) } }, head.title || t("untitled")),
             more);
  }

  #rename(id) {
    const row = this.list.querySelector(`[data-id="${id}"]`);
    const head = this.heads.find((other) => other.id === id);
    if (!row) {
      this.toggle(true);
      return;
    }
    const field = h("input", { value: head.title, "aria-label": t("rename") });
    let isDone = false;
    const end = (isKept) => {
      if (isDone) return;
      isDone = true;
      if (isKept && field.value.trim() && field.value !== head.title) this.chat.rename(id, field.value);
      else this.#show();
    };
    field.addEventListener("blur", () => end(true));
    field.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter") end(true);
      if (event.key === "Escape") { event.stopPropagation(); end(false); }
    });
    row.replaceChildren(field);
    field.select();
  }

  async #remove(id) {
    const undo = await this.chat.removeConversation(id);
    toast(t("conversationDeleted"), t("undo"), undo);
  }
}
