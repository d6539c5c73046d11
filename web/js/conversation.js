// SPDX-License-Identifier: Apache-2.0
/**
 * A conversation: a tree of messages of which one path is shown. Asking again, or editing a question,
 * adds a branch; nothing is lost. Plain objects, so that they can be stored as they are.
 *
 *   conversation: { id, title, created, updated, system, nodes: {id: node}, chosen: {parent: child} }
 *   node: { id, parent, role: "user" | "assistant", text, images: [data URL], reasoning, state, stats,
 *           error, time }, with parent "" for a first message and
 *           state: "done" | "streaming" | "stopped" | "length" | "broken"
 */
import { newId } from "./dom.js";

export function createConversation(system) {
  const now = Date.now();
  return { id: newId(), title: "", created: now, updated: now, system, nodes: {}, chosen: {} };
}

/** Messages with the same parent, oldest first. */
export function siblings(conversation, parent) {
  return Object.values(conversation.nodes)
    .filter((node) => node.parent === parent)
    .sort((a, b) => a.time - b.time || (a.id < b.id ? -1 : 1));
}

/** The messages that are shown, first to last. */
export function path(conversation) {
  const result = [];
  for (let id = conversation.chosen[""]; id && conversation.nodes[id]; id = conversation.chosen[id]) {
    result.push(conversation.nodes[id]);
  }
  return result;
}

/** The messages up to `id`, first to last, whichever are shown. */
export function pathTo(conversation, id) {
  const result = [];
  for (let node = conversation.nodes[id]; node; node = conversation.nodes[node.parent]) {
    result.unshift(node);
  }
  return result;
}

/** Adds a message behind `parent` and shows it. Returns the node. */
export function addMessage(conversation, parent, fields) {
  const last = siblings(conversation, parent).at(-1);
  const node = {
    id: newId(), parent, role: "user", text: "", images: [], reasoning: "", state: "done",
    stats: null, error: null, time: Math.max(Date.now(), last ? last.time + 1 : 0), ...fields,
  };
  conversation.nodes[node.id] = node;
  conversation.chosen[parent] = node.id;
  conversation.updated = Date.now();
  if (!conversation.title && node.role === "user") conversation.title = titleOf(node.text);
  return node;
}

/** Shows the sibling of `node` that is `step` further. */
export function chooseSibling(conversation, node, step) {
  const all = siblings(conversation, node.parent);
  const at = all.findIndex((other) => other.id === node.id) + step;
  if (all[at]) conversation.chosen[node.parent] = all[at].id;
}

/** Removes a message and everything behind it. */
export function removeMessage(conversation, id) {
  const node = conversation.nodes[id];
  for (const child of siblings(conversation, id)) removeMessage(conversation, child.id);
  delete conversation.nodes[id];
  delete conversation.chosen[id];
  if (conversation.chosen[node.parent] !== id) return;
  const other = siblings(conversation, node.parent).at(-1);
  if (other) {
    conversation.chosen[node.parent] = other.id;
  } else {
    delete conversation.chosen[node.parent];
  }
}

/** The first words of a message, at most 60 characters. */
export function titleOf(text) {
  const line = text.trim().replace(/\s+/g, " ");
  const letters = Array.from(line);
  return letters.length <= 60 ? line : `${letters.slice(0, 59).join("").trimEnd()}…`;
}
