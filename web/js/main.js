// SPDX-License-Identifier: Apache-2.0
/** Puts the page together. */
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { byId, h } from "./dom.js";
import { icon } from "./icons.js";
import { applyLanguage, t } from "./lang.js";
import { Panel } from "./panel.js";
import { applyTheme } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { openStore } from "./store.js";
import { Thread } from "./thread.js";
import { toast } from "./toast.js";
import { Top } from "./top.js";

/** How long after a failure the server is asked again by itself: it may still load its model. */
const kAskAgain = 3000;

const kNotices = { key: "keyNeeded", network: "error-network" };

/** The server cannot be talked to at all: said above the messages until it can. */
function showNotice(chat, panel) {
  const error = chat.modelsError;
  const notice = byId("notice");
  notice.hidden = !error;
  if (!error) return;
  const isKey = error.kind === "key";
  if (!isKey) setTimeout(() => chat.modelsError === error && chat.loadModels(), kAskAgain);
  const action = isKey ? () => panel.open("key") : () => chat.loadModels();
  notice.replaceChildren(icon("warning"), h("span", {}, t(kNotices[error.kind] ?? "noModelYet")),
    h("button", { type: "button", class: "plain", on: { click: action } }, t(isKey ? "enterKey" : "retry")));
}

/** Keys that work everywhere on the page. */
function onKey(event, { chat, sidebar, panel }) {
  if (document.querySelector("dialog[open]")) return;
  const isWriting = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "");
  const hasControl = event.ctrlKey || event.metaKey;
  const actions = {
    Escape: () => chat.isBusy && chat.stop(),
    "/": () => !isWriting && byId("prompt").focus(),
    "^O": () => { chat.create(); byId("prompt").focus(); },
    "^b": () => sidebar.toggle(),
    "^,": () => panel.open(),
  };
  const name = hasControl ? `^${event.shiftKey ? event.key.toUpperCase() : event.key}` : event.key;
  const action = actions[name];
  if (!action || event.isComposing) return;
  if (action() !== false) event.preventDefault();
}

async function start() {
  applyTheme();
  const chat = new Chat(await openStore());
  const parts = { chat };
  parts.panel = new Panel(chat, { onLanguage: () => {
    applyLanguage();
    for (const part of [parts.sidebar, parts.top]) part.build();
    parts.composer.update();
    parts.thread.reset();
    showNotice(chat, parts.panel);
  } });
  parts.composer = new Composer(chat, { editLast: () => parts.thread.editLastQuestion() });
  parts.thread = new Thread(chat, { askKey: () => parts.panel.open("key"), prompt: (text) => parts.composer.set(text) });
  parts.top = new Top(chat, { toggleSidebar: () => parts.sidebar.toggle(), openSettings: () => parts.panel.open() });
  parts.sidebar = new Sidebar(chat);
  applyLanguage();
  chat.addEventListener("models", () => showNotice(chat, parts.panel));
  // A link to a conversation survives a reload.
  chat.addEventListener("open", () => {
    const isKept = Object.keys(chat.conversation.nodes).length > 0;
    history.replaceState(null, "", isKept ? `#${chat.conversation.id}` : location.pathname + location.search);
  });
  addEventListener("keydown", (event) => onKey(event, parts));
  if (!chat.store.isLasting) toast(t("nothingKept"));
  chat.addEventListener("unsaved", () => toast(t("notKept")));

  await parts.sidebar.load();
  parts.thread.show();
  if (location.hash.length > 1) await chat.open(location.hash.slice(1));
  await chat.loadModels();
  if (matchMedia("(hover: hover)").matches) byId("prompt").focus();
}

start();
