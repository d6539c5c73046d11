// SPDX-License-Identifier: Apache-2.0
/** Schemas of an OpenAPI description: as tables, and as an example to begin with. */
import { h } from "./dom.js";
import { t } from "./lang.js";

/** Deeper schemas are named, not unfolded: they may contain themselves. */
const kMaxDepth = 6;

/** What a local reference (`#/components/...`) stands for; everything else is itself. */
export function resolve(root, schema) {
  let value = schema;
  for (let hops = 0; value?.$ref && hops < 16; ++hops) {
    const steps = value.$ref.replace(/^#\//, "").split("/");
    value = steps.reduce((at, step) => at?.[step.replaceAll("~1", "/").replaceAll("~0", "~")], root);
  }
  return value ?? {};
}

const alternatives = (schema) => schema.anyOf ?? schema.oneOf ?? null;

/** The type in a word or two: "string", "array of integer", "string or null". */
export function typeName(root, given) {
  const schema = resolve(root, given);
  const choices = alternatives(schema);
  if (choices) return [...new Set(choices.map((choice) => typeName(root, choice)))].join(` ${t("or")} `);
  const names = [schema.type ?? (schema.properties ? "object" : "")].flat();
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.items && names.includes("array")) return t("arrayOf", { type: typeName(root, schema.items) });
  return names.join(` ${t("or")} `) || t("anything");
}

/** Bounds and choices, each as a short text; of alternatives, those of each. */
function limits(root, given) {
  const schema = resolve(root, given);
  const texts = [...ownLimits(schema), ...(alternatives(schema) ?? []).flatMap((choice) => limits(root, choice))];
  return [...new Set(texts)];
}

function ownLimits(schema) {
  const known = [
    ["minimum", "≥ {}"], ["exclusiveMinimum", "> {}"], ["maximum", "≤ {}"], ["exclusiveMaximum", "< {}"],
    ["minLength", `${t("length")} ≥ {}`], ["maxLength", `${t("length")} ≤ {}`],
    ["minItems", `${t("items")} ≥ {}`], ["maxItems", `${t("items")} ≤ {}`], ["pattern", "{}"], ["format", "{}"],
  ];
  const texts = known.filter(([name]) => schema[name] !== undefined)
    .map(([name, text]) => text.replace("{}", schema[name]));
  if (schema.enum) texts.push(schema.enum.map((value) => JSON.stringify(value)).join(", "));
  if (schema.default !== undefined) texts.push(`${t("defaultValue")} ${JSON.stringify(schema.default)}`);
  return texts;
}

/** The schemas whose fields are worth unfolding: of objects, of arrays of objects, of alternatives. */
function objectsIn(root, given, depth = 0) {
  const schema = resolve(root, given);
  if (depth > 4) return [];
  if (schema.properties) return [schema];
  const below = alternatives(schema) ?? schema.allOf ?? (schema.items ? [schema.items] : []);
  return below.flatMap((other) => objectsIn(root, other, depth + 1));
}

/** The fields of a schema as a description list, nested ones folded. */
export function schemaView(root, given, depth = 0) {
  const rows = objectsIn(root, given).flatMap((schema) =>
    Object.entries(schema.properties).map(([name, field]) => {
      const resolved = resolve(root, field);
      const isRequired = schema.required?.includes(name);
      const below = depth < kMaxDepth ? objectsIn(root, field) : [];
      const notes = limits(root, field);
      return h("div", { class: "field" },
        h("dt", {}, h("code", {}, name), h("span", { class: "type" }, typeName(root, field)),
          isRequired && h("span", { class: "required" }, t("required"))),
        h("dd", {}, resolved.description && h("p", {}, resolved.description),
          notes.length > 0 && h("p", { class: "limits" }, notes.map((note) => h("code", {}, note))),
          below.length > 0 && folded(t("fields"), () => schemaView(root, field, depth + 1))));
    }));
  return rows.length ? h("dl", { class: "fields" }, rows) : h("p", { class: "type" }, typeName(root, given));
}

/** A part that is made when it is first opened. */
export function folded(title, make) {
  const details = h("details", {}, h("summary", {}, title));
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(make());
  });
  return details;
}

/** What the fields that carry the question begin with. */
const kQuestions = { messages: [{ role: "user", content: "Say hello." }], prompt: "Say hello.", input: "Say hello." };

/** The fields of an example: those that are required, and one with a question if none of them is. */
function exampleFields({ properties, required = [] }) {
  const asks = Object.keys(kQuestions).filter((name) => properties[name]);
  return asks.length && !asks.some((name) => required.includes(name)) ? [...required, asks.at(-1)] : required;
}

/** A value of the schema, with examples and defaults where there are. */
export function example(root, given, depth = 0) {
  const schema = resolve(root, given);
  if (schema.example !== undefined) return schema.example;
  if (schema.examples?.length) return schema.examples[0];
  if (schema.const !== undefined) return schema.const;
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  if (schema.enum) return schema.enum[0];
  if (schema.properties && depth < kMaxDepth) {
    return Object.fromEntries(exampleFields(schema).map((name) =>
      [name, kQuestions[name] ?? example(root, schema.properties[name], depth + 1)]));
  }
  const choices = alternatives(schema);
  if (choices?.length) return example(root, choices[0], depth + 1);
  const type = [schema.type].flat()[0];
  if (type === "array") return schema.minItems ? [example(root, schema.items ?? {}, depth + 1)] : [];
  return { string: "", integer: schema.minimum ?? 0, number: schema.minimum ?? 0, boolean: false, object: {} }[type] ?? null;
}
