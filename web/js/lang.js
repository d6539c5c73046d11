// SPDX-License-Identifier: Apache-2.0
/** The page's words in the user's language. */
import { en } from "./lang_en.js";
import { zh } from "./lang_zh.js";
import { settings } from "./settings.js";

const kLanguages = { en, zh };

export function language() {
  if (kLanguages[settings.language]) return settings.language;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** The text of `key`; `{name}` in it is replaced by values.name. */
export function t(key, values = {}) {
  const text = kLanguages[language()][key] ?? en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

export const number = (value, digits = 0) =>
  value.toLocaleString(language(), { maximumFractionDigits: digits, minimumFractionDigits: digits });

/** Puts the words into what the document has from the beginning. */
export function applyLanguage(root = document) {
  document.documentElement.lang = language() === "zh" ? "zh-CN" : "en";
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of root.querySelectorAll("[data-t-label]")) {
    element.setAttribute("aria-label", t(element.dataset.tLabel));
  }
}
