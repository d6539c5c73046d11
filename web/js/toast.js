// SPDX-License-Identifier: Apache-2.0
/** Short notes at the lower edge, with at most one thing to do. */
import { byId, h } from "./dom.js";

export function toast(text, actionName = "", action = null) {
  const note = h("div", { class: "toast" }, h("span", {}, text));
  const timer = setTimeout(() => note.remove(), action ? 8000 : 4000);
  if (action) {
    note.append(h("button", { type: "button", class: "link", on: { click: () => {
      clearTimeout(timer);
      note.remove();
      action();
    } } }, actionName));
  }
  byId("toasts").append(note);
}
