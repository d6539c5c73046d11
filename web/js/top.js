// SPDX-License-Identifier: Apache-2.0
/** The bar above the messages: the model, how full its context is, settings. */
import { path } from "./conversation.js";
import { byId, h } from "./dom.js";
import { icon } from "./icons.js";
import { number, t } from "./lang.js";
import { change } from "./settings.js";

/** Tokens of the context after the last answer: what the server counted, 0 when it did not. */
function contextUsed(conversation) {
  const last = path(conversation).findLast((node) => node.stats?.prompt);
  return last ? last.stats.prompt + last.stats.tokens : 0;
}

export class Top {
  constructor(chat, { toggleSidebar, openSettings }) {
    this.chat = chat;
    this.toggleSidebar = toggleSidebar;
    this.openSettings = openSettings;
    this.build();
    for (const name of ["models", "open", "busy"]) chat.addEventListener(name, () => this.update());
  }

  build() {
    const button = (id, name, iconName, action) =>
      h("button", { type: "button", id, class: "quiet", title: t(name), "aria-label": t(name), on: { click: action } },
        icon(iconName));
    this.model = h("div", { class: "model" });
    const list = button("toggle-sidebar", "toggleSidebar", "menu", () => this.toggleSidebar());
    list.setAttribute("aria-controls", "sidebar");
    list.setAttribute("aria-expanded", String(document.body.classList.contains("sidebar-open")));
    byId("top").replaceChildren(list, this.model,
      button("create", "newConversation", "plus", () => { this.chat.create(); byId("prompt").focus(); }),
      button("open-settings", "settings", "settings", () => this.openSettings()));
    this.update();
  }

  update() {
    const { models, model, conversation } = this.chat;
    document.title = conversation.title ? `${conversation.title} · lmd` : "lmd";
    if (models.length > 1) {
      const select = h("select", { "aria-label": t("model"), on: { change: () => {
        change({ model: select.value });
        this.chat.dispatchEvent(new CustomEvent("models"));
      } } }, models.map((other) => h("option", { value: other.id, selected: other === model }, other.id)));
      this.model.replaceChildren(select);
    } else {
      this.model.replaceChildren(h("span", { title: model?.id ?? null }, model?.id ?? t("noModel")));
    }
    this.#showContext();
  }

  #showContext() {
    const used = contextUsed(this.chat.conversation);
    const all = this.chat.model?.context ?? 0;
    const meter = byId("composer").querySelector(".context");
    if (!meter) return;
    meter.hidden = !used;
    const text = all ? t("contextOf", { n: number(used), all: number(all) }) : t("contextUsed", { n: number(used) });
    const share = all ? Math.min(1, used / all) : 0;
    meter.style.setProperty("--share", share);
    meter.classList.toggle("full", share > 0.9);
    meter.setAttribute("aria-label", text);
    meter.title = t("contextTitle");
    meter.replaceChildren(all ? h("i", {}) : "", text);
  }
}
