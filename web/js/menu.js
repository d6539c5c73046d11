// SPDX-License-Identifier: Apache-2.0
/** A menu that a button opens: arrow keys, Escape, a click elsewhere. */
import { h } from "./dom.js";
import { icon } from "./icons.js";

let close = null;

/** Opens under `button`. `items`: { icon, text, action, isDanger }. */
export function openMenu(button, items) {
  const isSame = close?.button === button;
  close?.();
  if (isSame) return;
  const menu = h("div", { class: "menu", role: "menu" });
  for (const item of items) {
    menu.append(h("button", {
      type: "button", role: "menuitem", tabindex: "-1", class: item.isDanger ? "danger" : null,
      on: { click: () => { close(); item.action(); } },
    }, icon(item.icon), item.text));
  }
  document.body.append(menu);
  place(menu, button);
  button.setAttribute("aria-expanded", "true");

  const outside = (event) => {
    if (!menu.contains(event.target) && !button.contains(event.target)) close();
  };
  close = () => {
    menu.remove();
    button.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", outside, true);
    close = null;
  };
  close.button = button;
  document.addEventListener("pointerdown", outside, true);
  menu.addEventListener("keydown", (event) => onKey(event, menu, button));
  menu.firstChild.focus();
}

function place(menu, button) {
  const at = button.getBoundingClientRect();
  const box = menu.getBoundingClientRect();
  const left = Math.min(Math.max(8, at.right - box.width), innerWidth - box.width - 8);
  const below = at.bottom + 4;
  menu.style.left = `${left}px`;
  menu.style.top = `${below + box.height < innerHeight ? below : at.top - box.height - 4}px`;
}

function onKey(event, menu, button) {
  const all = [...menu.children];
  const at = all.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to !== undefined) {
    event.preventDefault();
    all[(to + all.length) % all.length].focus();
  } else if (event.key === "Escape" || event.key === "Tab") {
    event.preventDefault();
    event.stopPropagation();
    close();
    button.focus();
  }
}
