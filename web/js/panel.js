// SPDX-License-Identifier: Apache-2.0
/** The panel of settings: a dialog at the right edge, the whole screen of a phone. */
import { growWithText, h } from "./dom.js";
import { icon } from "./icons.js";
import { language, t } from "./lang.js";
import { apiKey, applyTheme, change, kSampling, setApiKey, settings } from "./settings.js";
import { toast } from "./toast.js";
import { exportJson, importJson } from "./transfer.js";

function choice(name, options, value, onChange) {
  return h("fieldset", { class: "choice" }, h("legend", {}, t(name)), options.map(([key, text]) => {
    const radio = h("input", { type: "radio", name, value: key, checked: key === value,
                               on: { change: () => onChange(key) } });
    return h("label", {}, radio, h("span", {}, text));
  }));
}

export class Panel {
  constructor(chat, { onLanguage }) {
    this.chat = chat;
    this.onLanguage = onLanguage;
    this.dialog = h("dialog", { id: "settings", "aria-label": t("settings") });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
    document.body.append(this.dialog);
  }

  /** Opens it; `focus` names a field to begin with. */
  open(focus = "") {
    this.#build();
    if (!this.dialog.open) this.dialog.showModal();
    if (focus) this.dialog.querySelector(`[name="${focus}"]`)?.focus();
  }

  #build() {
    this.dialog.setAttribute("aria-label", t("settings"));
    this.dialog.replaceChildren(h("div", { class: "sheet" },
      h("header", {}, h("h2", {}, t("settings")),
        h("button", { type: "button", class: "quiet", title: t("close"), "aria-label": t("close"),
                      on: { click: () => this.dialog.close() } }, icon("close"))),
      this.#system(), this.#sampling(), this.#server(), this.#look(), this.#conversations(), this.#keys()));
  }

  #section(name, ...children) {
    return h("section", {}, h("h3", {}, t(name)), children);
  }

  #system() {
    const area = h("textarea", { name: "system", rows: "3", placeholder: t("systemHint"), "aria-label": t("system"),
                                 dir: "auto" });
    area.value = this.chat.conversation.system;
    area.addEventListener("change", () => this.chat.setSystem(area.value));
    growWithText(area);
    const keep = () => {
      this.chat.setSystem(area.value);
      change({ system: area.value });
      toast(t("systemKept"));
    };
    return this.#section("system", area, h("div", { class: "row" },
      h("span", { class: "note" }, t("systemNote")),
      h("button", { type: "button", class: "link", on: { click: keep } }, t("systemDefault"))));
  }

  #sampling() {
    const fields = kSampling.map(({ field, min, max, step }) => {
      const input = h("input", { type: "number", name: field, min, max, step: step === 1 ? 1 : "any",
                                 placeholder: t("serverDefault"), value: settings.sampling[field] ?? null });
      input.addEventListener("change", () => {
        const sampling = { ...settings.sampling };
        delete sampling[field];
        if (input.value !== "" && input.checkValidity()) sampling[field] = Number(input.value);
        input.reportValidity();
        change({ sampling });
      });
      return h("label", { class: "number" }, h("span", {}, t(field)), input);
    });
    const stop = h("input", { name: "stop", placeholder: t("stopHint"), value: (settings.sampling.stop ?? []).join(", ") });
    stop.addEventListener("change", () => {
      const words = stop.value.split(",").map((word) => word.trim()).filter(Boolean).slice(0, 16);
      const { stop: _, ...sampling } = settings.sampling;
      change({ sampling: words.length ? { ...sampling, stop: words } : sampling });
    });
    const reset = () => { change({ sampling: {} }); this.open(); };
    return this.#section("sampling", h("div", { class: "numbers" }, fields),
                         h("label", { class: "number" }, h("span", {}, t("stopWords")), stop),
                         h("div", { class: "row" }, h("span", { class: "note" }, t("samplingNote")),
                           h("button", { type: "button", class: "link", on: { click: reset } }, t("reset"))));
  }

  #server() {
    const key = h("input", { type: "password", name: "key", autocomplete: "off", spellcheck: "false", value: apiKey(),
                             "aria-label": t("apiKey"), placeholder: t("apiKeyHint") });
    const remember = h("input", { type: "checkbox", checked: settings.rememberKey });
    const keep = () => {
      setApiKey(key.value, remember.checked);
      this.chat.loadModels();
    };
    key.addEventListener("change", keep);
    remember.addEventListener("change", keep);
    return this.#section("apiKey", key, h("label", { class: "check" }, remember, t("rememberKey")));
  }

  #look() {
    const themes = [["", t("auto")], ["light", t("light")], ["dark", t("dark")]];
    return this.#section("look",
      choice("theme", themes, settings.theme, (theme) => { change({ theme }); applyTheme(); }),
      choice("language", [["en", "English"], ["zh", "中文"]], language(), (name) => {
        change({ language: name });
        this.onLanguage();
        this.open("language");
      }));
  }

  #conversations() {
    const file = h("input", { type: "file", accept: ".json,application/json", hidden: true,
                              on: { change: () => this.#import(file.files[0]) } });
    const all = async () => {
      const heads = await this.chat.store.list();
      exportJson(await Promise.all(heads.map((head) => this.chat.store.load(head.id))), "lmd-conversations");
    };
    return this.#section("conversations", h("p", { class: "note" }, t("storageNote")), h("div", { class: "row" },
      h("button", { type: "button", class: "plain", data: { action: "export-all" }, on: { click: all } }, t("exportAll")),
      h("button", { type: "button", class: "plain", on: { click: () => file.click() } }, t("import")), file));
  }

  async #import(file) {
    try {
      const conversations = importJson(await file.text());
      for (const conversation of conversations) await this.chat.save(conversation);
      toast(t("imported", { n: conversations.length }));
    } catch {
      toast(t("notImported", { name: file.name }));
    }
  }

  #keys() {
    const rows = [["Enter", "send"], ["Shift Enter", "newLine"], ["Esc", "stop"], ["↑", "editLast"],
                  ["Ctrl Shift O", "newConversation"], ["Ctrl B", "toggleSidebar"], ["Ctrl ,", "settings"],
                  ["/", "skipToPrompt"]];
    return this.#section("keyboard", h("dl", { class: "keys" }, rows.flatMap(([keys, name]) => [
      h("dt", {}, keys.split(" ").map((key) => h("kbd", {}, key))), h("dd", {}, t(name))])));
  }
}
