// SPDX-License-Identifier: Apache-2.0
/** The API's own page: every operation of openapi.json, to read and to try. */
import { call } from "./api.js";
import { announce, byId, copyText, growWithText, h } from "./dom.js";
import { example, folded, resolve, schemaView, typeName } from "./docs_schema.js";
import { icon } from "./icons.js";
import { applyLanguage, number, t } from "./lang.js";
import { apiKey, applyTheme, setApiKey, settings } from "./settings.js";

/** What an answer shows at most, in characters. */
const kMaxShown = 200000;

const kMethods = ["get", "post", "put", "patch", "delete"];

function operationsOf(root) {
  return Object.entries(root.paths ?? {}).flatMap(([path, item]) =>
    kMethods.filter((method) => item[method]).map((method) =>
      ({ path, method, ...item[method], parameters: [...(item.parameters ?? []), ...(item[method].parameters ?? [])] })));
}

const anchor = ({ method, path }) => `${method}${path.replace(/[^A-Za-z0-9]+/g, "-")}`;

/** Operations under their first tag, in the order of the description. */
function groupsOf(operations) {
  const groups = new Map();
  for (const operation of operations) {
    const name = operation.tags?.[0] ?? t("operations");
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(operation);
  }
  return [...groups];
}

const jsonBody = (root, operation) => resolve(root, operation.requestBody ?? {}).content?.["application/json"];

/** The same call for a terminal. */
function curlOf({ method, path }, body) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const parts = [`curl ${quoted(new URL(path.replace(/^\//, ""), document.baseURI).href)}`];
  if (method !== "get") parts.push(`-X ${method.toUpperCase()}`);
  if (apiKey()) parts.push("-H \"Authorization: Bearer $KEY\"");
  if (body) parts.push("-H 'Content-Type: application/json'", `-d ${quoted(body)}`);
  return parts.join(" \\\n  ");
}

/** Runs an operation and shows what comes, while it comes. */
class Trial {
  constructor(root, operation) {
    this.operation = operation;
    const content = jsonBody(root, operation);
    this.fields = operation.parameters.map((given) => resolve(root, given)).filter(({ in: where }) => where !== "header")
      .map((parameter) => {
        const input = h("input", { placeholder: typeName(root, parameter.schema ?? {}), required: parameter.required });
        return { parameter, input, label: h("label", { class: "parameter" }, h("code", {}, parameter.name), input) };
      });
    if (content) {
      this.area = h("textarea", { "aria-label": t("body"), spellcheck: "false", rows: "4" });
      this.area.value = JSON.stringify(content.example ?? example(root, content.schema ?? {}), null, 2);
      growWithText(this.area);
    }
    this.status = h("span", { class: "status", role: "status" });
    this.output = h("pre", { class: "output", hidden: true, tabindex: "0", "aria-label": t("answer") });
    this.button = h("button", { type: "submit", class: "primary" }, t("send"));
    const copy = h("button", { type: "button", class: "plain", on: { click: async () => {
      if (await copyText(curlOf(this.operation, this.area?.value))) this.status.textContent = t("copied");
    } } }, icon("copy"), "curl");
    this.element = h("form", { class: "trial", on: { submit: (event) => { event.preventDefault(); this.#run(); } } },
                     this.fields.map(({ label }) => label), this.area ?? null,
                     h("div", { class: "row" }, this.button, copy, this.status), this.output);
  }

  #url() {
    let path = this.operation.path;
    const query = new URLSearchParams();
    for (const { parameter, input } of this.fields) {
      if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (input.value) query.set(parameter.name, input.value);
    }
    return path.replace(/^\//, "") + (query.size ? `?${query}` : "");
  }

  async #run() {
    if (this.abort) {
      this.abort.abort();
      return;
    }
    this.abort = new AbortController();
    this.button.textContent = t("stop");
    this.output.hidden = false;
    this.output.textContent = "";
    this.status.textContent = "…";
    const begin = performance.now();
    const seconds = () => `${number((performance.now() - begin) / 1000, 2)} s`;
    try {
      const response = await call(this.#url(), { method: this.operation.method.toUpperCase(), body: this.area?.value,
                                                 signal: this.abort.signal });
      await this.#show(response);
      this.status.textContent = `${response.status} · ${seconds()}`;
    } catch (error) {
      const isStopped = error.name === "AbortError";
      this.status.textContent = isStopped ? t("stopped") : `${error.status ?? ""} ${seconds()}`.trim();
      if (!isStopped) this.output.textContent += error.message || t(`error-${error.kind}`);
    }
    this.abort = null;
    this.button.textContent = t("send");
    announce(this.status.textContent);
  }

  async #show(response) {
    const decoder = new TextDecoder();
    let text = "";
    for (const reader = response.body.getReader(); ;) {
      const { done, value } = await reader.read();
      if (done) break;
      text += decoder.decode(value, { stream: true });
      this.output.textContent = text.slice(0, kMaxShown);
    }
    if (!(response.headers.get("content-type") ?? "").startsWith("application/json") || !text) return;
    this.output.textContent = JSON.stringify(JSON.parse(text), null, 2).slice(0, kMaxShown);
  }
}

function operationView(root, operation) {
  const content = jsonBody(root, operation);
  const answers = Object.entries(operation.responses ?? {}).map(([status, given]) => {
    const answer = resolve(root, given);
    const schema = Object.values(answer.content ?? {})[0]?.schema;
    const line = [h("code", {}, status), ` ${answer.description ?? ""}`];
    return h("li", {}, line, schema && folded(t("fields"), () => schemaView(root, schema)));
  });
  const make = () => h("div", { class: "inside" },
    operation.description && h("p", {}, operation.description),
    h("section", {}, h("h4", {}, t("tryIt")), new Trial(root, operation).element),
    content && h("section", {}, h("h4", {}, t("body")), schemaView(root, content.schema ?? {})),
    answers.length > 0 && h("section", {}, h("h4", {}, t("answers")), h("ul", { class: "answers" }, answers)));
  const title = [h("span", { class: `method ${operation.method}` }, operation.method.toUpperCase()),
                 h("code", { class: "path" }, operation.path), h("span", { class: "summary" }, operation.summary ?? "")];
  const view = folded(title, make);
  view.id = anchor(operation);
  view.className = "operation";
  return view;
}

function show(root) {
  const groups = groupsOf(operationsOf(root));
  byId("contents").replaceChildren(...groups.flatMap(([name, operations]) => [
    h("h2", {}, name),
    h("ul", {}, operations.map((operation) => h("li", {}, h("a", { href: `#${anchor(operation)}` }, operation.path)))),
  ]));
  byId("operations").replaceChildren(
    h("h1", {}, root.info?.title ?? "API", h("span", { class: "version" }, root.info?.version ?? "")),
    root.info?.description ? h("p", { class: "lead" }, root.info.description) : "",
    h("p", {}, h("a", { href: "openapi.json" }, "openapi.json")),
    ...groups.flatMap(([name, operations]) => [h("h2", {}, name), ...operations.map((one) => operationView(root, one))]));
  openTarget();
}

/** Opens what the address names. */
function openTarget() {
  const target = location.hash && byId(location.hash.slice(1));
  if (!target) return;
  target.open = true;
  target.scrollIntoView();
}

async function load() {
  try {
    show(await (await call("openapi.json")).json());
  } catch (error) {
    const text = [t(`error-${error.kind ?? "server"}`), error.message].filter(Boolean).join(" ");
    byId("operations").replaceChildren(h("div", { class: "failure", role: "alert" }, icon("warning"), h("span", {}, text),
      h("button", { type: "button", class: "plain", on: { click: load } }, t("retry"))));
  }
}

applyTheme();
applyLanguage();
byId("contents").setAttribute("aria-label", t("contents"));
byId("key").value = apiKey();
byId("key").placeholder = t("apiKeyHint");
byId("key").addEventListener("change", () => {
  setApiKey(byId("key").value, settings.rememberKey);
  load();
});
addEventListener("hashchange", openTarget);
load();
