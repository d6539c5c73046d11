// SPDX-License-Identifier: Apache-2.0
/** The messages of the open conversation, and where the reader is in them. */
import { path } from "./conversation.js";
import { announce, byId, h, oncePerFrame } from "./dom.js";
import { icon } from "./icons.js";
import { t } from "./lang.js";
import { MessageView } from "./message.js";
import { toast } from "./toast.js";

const kExamples = ["example1", "example2", "example3", "example4"];

export class Thread {
  constructor(chat, { askKey, prompt }) {
    this.chat = chat;
    this.prompt = prompt;
    this.views = new Map();
    this.actions = { remove: (node) => this.#remove(node), askKey };
    this.scroller = byId("scroller");
    this.isAtEnd = true;
    this.toEnd = h("button", { type: "button", class: "to-end", hidden: true, title: t("toEnd"),
                               "aria-label": t("toEnd"), on: { click: () => this.scrollToEnd() } }, icon("down"));
    byId("composer").before(this.toEnd);
    new IntersectionObserver(([entry]) => {
      this.isAtEnd = entry.isIntersecting;
      this.toEnd.hidden = this.isAtEnd;
    }, { root: this.scroller, rootMargin: "0px 0px 60px 0px" }).observe(byId("bottom"));

    const grow = oncePerFrame(() => this.#grow());
    chat.addEventListener("grow", (event) => { this.growing = event.detail; grow(); });
    chat.addEventListener("open", () => this.show());
    chat.addEventListener("busy", (event) => this.#announce(event.detail));
  }

  /** Shows the path anew; views of messages that are still there stay. */
  show() {
    const nodes = path(this.chat.conversation);
    const isOther = this.shown !== this.chat.conversation;
    if (isOther) this.views.clear();
    this.shown = this.chat.conversation;
    const old = this.views;
    this.views = new Map();
    for (const node of nodes) {
      const known = old.get(node.id);
      const isSame = known?.node === node && (node.role === "assistant" || known.body.textContent === node.text);
      const view = isSame ? known : new MessageView(this.chat, node, this.actions);
      if (view === known) view.update();
      this.views.set(node.id, view);
    }
    const elements = [...this.views.values()].map((view) => view.element);
    byId("thread").replaceChildren(...(elements.length ? elements : [this.#welcome()]));
    document.body.classList.toggle("empty", elements.length === 0);
    if (isOther || this.chat.isBusy) this.scrollToEnd();
  }

  /** After the language changed. */
  reset() {
    this.views.clear();
    this.show();
  }

  editLastQuestion() {
    const last = path(this.chat.conversation).findLast((node) => node.role === "user");
    if (last) this.views.get(last.id).startEdit();
  }

  scrollToEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #grow() {
    const view = this.views.get(this.growing.id);
    if (view?.node !== this.growing || this.growing.state !== "streaming") return;
    const isFollowing = this.isAtEnd;
    view.grow();
    if (isFollowing) this.scrollToEnd();
  }

  #remove(node) {
    const undo = this.chat.removeMessage(node);
    toast(t("messageDeleted"), t("undo"), undo);
  }

  #announce(node) {
    if (node.state === "streaming") {
      announce(t("answering"));
    } else if (!node.error) {
      announce(node.text.slice(0, 2000) || t("stopped"));
    }
  }

  #welcome() {
    return h("div", { class: "welcome" },
             h("h1", {}, t("welcome")),
             h("p", {}, t("welcomeMore")),
             h("div", { class: "examples" }, kExamples.map((key) =>
               h("button", { type: "button", on: { click: () => this.prompt(t(key)) } }, t(key)))));
  }
}
