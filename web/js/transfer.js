// SPDX-License-Identifier: Apache-2.0
/** Conversations as files: JSON, which can be read back, and Markdown. */
import { createConversation, path, titleOf } from "./conversation.js";
import { saveFile } from "./dom.js";
import { t } from "./lang.js";

const kFormat = "lmd-conversations";

const fileName = (title, end) =>
  `${title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "lmd"}.${end}`;

export function exportJson(conversations, title) {
  const content = { format: kFormat, version: 1, conversations };
  saveFile(fileName(title, "json"), "application/json", JSON.stringify(content, null, 1));
}

/** The path that is shown; pictures are named, not included. */
export function markdownOf(conversation) {
  const parts = [`# ${conversation.title}`];
  if (conversation.system.trim()) parts.push(`**${t("system")}**`, conversation.system.trim());
  for (const node of path(conversation)) {
    parts.push(`**${t(node.role === "user" ? "you" : "assistant")}**`);
    if (node.images.length) parts.push(`*${t("pictures", { n: node.images.length })}*`);
    parts.push(node.text.trim());
  }
  return `${parts.join("\n\n")}\n`;
}

export function exportMarkdown(conversation) {
  saveFile(fileName(conversation.title, "md"), "text/markdown", markdownOf(conversation));
}

const text = (value) => (typeof value === "string" ? value : "");
const time = (value) => (Number.isFinite(value) ? value : Date.now());
const isPicture = (url) => /^data:image\/(png|jpeg|webp);base64,[A-Za-z0-9+/=]*$/.test(url);

/** A conversation as it was exported. Takes nothing over but what is known, under a new name. */
function checked(given) {
  const result = createConversation(text(given.system));
  const nodes = Object.values(given.nodes ?? {});
  const known = new Set(nodes.map((node) => text(node.id)).filter((id) => /^[0-9a-f]{1,64}$/.test(id)));
  for (const node of nodes) {
    const isRoot = node.parent === "";
    if (!known.has(node.id) || !(isRoot || known.has(node.parent))) continue;
    result.nodes[node.id] = {
      id: node.id, parent: node.parent, role: node.role === "assistant" ? "assistant" : "user",
      text: text(node.text), reasoning: text(node.reasoning), images: (node.images ?? []).filter(isPicture),
      state: "done", stats: null, error: null, time: time(node.time),
    };
  }
  for (const [parent, child] of Object.entries(given.chosen ?? {})) {
    if (result.nodes[child]?.parent === parent) result.chosen[parent] = child;
  }
  return Object.assign(result, { title: titleOf(text(given.title)), created: time(given.created),
                                 updated: time(given.updated) });
}

/** The conversations of a file that `exportJson` made. \throws where it is none. */
export function importJson(content) {
  const body = JSON.parse(content);
  if (body.format !== kFormat || !Array.isArray(body.conversations)) throw new Error(kFormat);
  return body.conversations.map(checked);
}
