// SPDX-License-Identifier: Apache-2.0
/** What the user has set, kept in the browser. The key is kept only for the window, unless asked. */

const kDefaults = {
  language: "",         // "" follows the browser
  theme: "",            // "" follows the system, else "light" or "dark"
  model: "",            // "" is the first that the server lists
  system: "",           // of new conversations
  rememberKey: false,
  sidebar: true,
  sampling: {},         // what is not in it is the server's to choose
};

const kName = "lmd.settings";
const kKeyName = "lmd.key";

function read() {
  try {
    return { ...kDefaults, ...JSON.parse(localStorage.getItem(kName) ?? "{}") };
  } catch {
    return { ...kDefaults };
  }
}

export const settings = read();

/** Changes some of them, keeps all. Where the browser keeps nothing they last as long as the page. */
export function change(values) {
  Object.assign(settings, values);
  try {
    localStorage.setItem(kName, JSON.stringify(settings));
  } catch { /* they still count now */ }
}

let key = "";
try {
  key = localStorage.getItem(kKeyName) ?? sessionStorage.getItem(kKeyName) ?? "";
} catch { /* no storage, no key */ }

export const apiKey = () => key;

export function setApiKey(text, isRemembered) {
  key = text.trim();
  change({ rememberKey: isRemembered });
  try {
    localStorage.removeItem(kKeyName);
    sessionStorage.removeItem(kKeyName);
    if (key) (isRemembered ? localStorage : sessionStorage).setItem(kKeyName, key);
  } catch { /* it still counts now */ }
}

export function applyTheme() {
  if (settings.theme) {
    document.documentElement.dataset.theme = settings.theme;
  } else {
    delete document.documentElement.dataset.theme;
  }
}

/** Numbers of the sampling panel: the field of a request, its range, its step. */
export const kSampling = [
  { field: "temperature", min: 0, max: 2, step: 0.05 },
  { field: "top_p", min: 0.01, max: 1, step: 0.01 },
  { field: "top_k", min: 0, max: 1000, step: 1 },
  { field: "min_p", min: 0, max: 1, step: 0.01 },
  { field: "repetition_penalty", min: 0.5, max: 2, step: 0.01 },
  { field: "max_tokens", min: 1, max: 1048576, step: 1 },
  { field: "seed", min: 0, max: 2147483647, step: 1 },
];
