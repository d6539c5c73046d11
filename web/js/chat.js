// SPDX-License-Identifier: Apache-2.0
/** The open conversation and what is done to it. Views listen; nothing here touches the document. */
import { ApiError, listModels, streamChat } from "./api.js";
import * as tree from "./conversation.js";
import { settings } from "./settings.js";

/** How often a growing answer is stored, in ms: what a closed window loses at most. */
const kSaveInterval = 1000;

/**
 * Events: "list" (titles changed), "open" (another conversation, or its messages changed), "grow"
 * (detail: the node that has more text), "busy" (an answer has begun or ended; detail: the node),
 * "models", "unsaved" (the browser could not keep a conversation).
 */
export class Chat extends EventTarget {
  constructor(store) {
    super();
    this.store = store;
    this.models = [];
    this.modelsError = null;
    this.listing = null;       // a promise, while the server is asked for its models
    this.conversation = tree.createConversation(settings.system);
    this.answers = new Set();  // that grow: { conversation, abort }
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  get model() {
    return this.models.find((model) => model.id === settings.model) ?? this.models[0] ?? null;
  }

  get isBusy() {
    return this.#growing(this.conversation.id) !== undefined;
  }

  /** The answer that grows in a conversation, of which there is one at most. */
  #growing(id) {
    return [...this.answers].find((answer) => answer.conversation.id === id);
  }

  loadModels() {
    this.listing = this.#listModels();
    return this.listing;
  }

  async #listModels() {
    try {
      this.models = await listModels();
      this.modelsError = this.models.length ? null : new ApiError("server", "");
    } catch (error) {
      this.modelsError = error;
    }
    this.#tell("models");
  }

  create() {
    this.conversation = tree.createConversation(settings.system);
    this.#tell("open");
  }

  async open(id) {
    const here = this.#growing(id)?.conversation;
    const conversation = here ?? (await this.store.load(id));
    if (!conversation) return;
    // An answer that was growing when the window was closed grows no more.
    for (const node of here ? [] : Object.values(conversation.nodes)) {
      if (node.state === "streaming") node.state = "stopped";
    }
    this.conversation = conversation;
    this.#tell("open");
  }

  async save(conversation = this.conversation) {
    try {
      await this.store.save(conversation);
      this.#tell("list");
    } catch {
      this.#tell("unsaved");
    }
  }

  async rename(id, title) {
    const conversation = id === this.conversation.id ? this.conversation : await this.store.load(id);
    conversation.title = tree.titleOf(title) || conversation.title;
    await this.save(conversation);
    if (conversation === this.conversation) this.#tell("open");
  }

  /** Removes a conversation and returns what puts it back. */
  async removeConversation(id) {
    this.stop(id);
    const kept = id === this.conversation.id ? this.conversation : await this.store.load(id);
    await this.store.remove(id);
    if (id === this.conversation.id) this.create();
    this.#tell("list");
    return async () => {
      await this.save(kept);
      await this.open(id);
    };
  }

  setSystem(text) {
    this.conversation.system = text;
    if (Object.keys(this.conversation.nodes).length) this.save();
  }

  send(text, images) {
    const last = tree.path(this.conversation).at(-1);
    const asked = tree.addMessage(this.conversation, last?.id ?? "", { text, images });
    return this.#answer(asked);
  }

  /** Another answer to what was asked before `node`. A failed one is replaced. */
  regenerate(node) {
    const asked = this.conversation.nodes[node.parent];
    if (node.error && !node.text) tree.removeMessage(this.conversation, node.id);
    return this.#answer(asked);
  }

  /** An edited question is a branch with an answer of its own; an edited answer just says it now. */
  edit(node, text) {
    if (node.role === "assistant") {
      node.text = text;
      this.#tell("open");
      return this.save();
    }
    const asked = tree.addMessage(this.conversation, node.parent, { text, images: node.images });
    return this.#answer(asked);
  }

  /** Goes on where an answer ended. */
  continue(node) {
    return this.#grow(node, true);
  }

  /** Removes a message and what follows, and returns what puts it back. */
  removeMessage(node) {
    this.stop();
    const conversation = this.conversation;
    const { nodes, chosen } = structuredClone({ nodes: conversation.nodes, chosen: conversation.chosen });
    tree.removeMessage(conversation, node.id);
    this.#tell("open");
    this.save();
    return () => {
      Object.assign(conversation, { nodes, chosen });
      this.#tell("open");
      return this.save(conversation);
    };
  }

  choose(node, step) {
    tree.chooseSibling(this.conversation, node, step);
    this.#tell("open");
    this.save();
  }

  stop(id = this.conversation.id) {
    this.#growing(id)?.abort.abort();
  }

  #answer(asked) {
    const node = tree.addMessage(this.conversation, asked.id,
                                 { role: "assistant", model: this.model?.id ?? "" });
    return this.#grow(node, false);
  }

  /** Streams an answer into `node`, behind what it says already when it is continued. */
  async #grow(node, isContinued) {
    this.stop();
    const conversation = this.conversation;
    const abort = new AbortController();
    const answer = { conversation, abort };
    this.answers.add(answer);
    Object.assign(node, { state: "streaming", error: null });
    this.#tell("open");
    this.#tell("busy", node);
    const count = new Count();
    let saved = performance.now();
    this.save(conversation);
    try {
      await this.listing;  // who is quick asks before the page knows the model's name
      node.model ||= this.model?.id ?? "";
      const request = requestFor(conversation, node, isContinued, this.model);
      for await (const piece of streamChat(request, abort.signal)) {
        node.text += piece.text ?? "";
        node.reasoning += piece.reasoning ?? "";
        if (piece.finish) node.state = piece.finish === "length" ? "length" : "done";
        count.take(piece);
        this.#tell("grow", node);
        if (performance.now() - saved > kSaveInterval) {
          saved = performance.now();
          this.save(conversation);
        }
      }
      if (node.state === "streaming") node.state = "done";
    } catch (error) {
      settle(node, error);
    }
    node.stats = count.stats() ?? node.stats;
    this.answers.delete(answer);
    conversation.updated = Date.now();
    // A conversation that was removed meanwhile stays removed.
    if (!abort.signal.aborted || (await this.store.load(conversation.id))) await this.save(conversation);
    this.#tell("busy", node);
    if (conversation === this.conversation) this.#tell("open");
  }
}

function settle(node, error) {
  if (error.name === "AbortError") {
    node.state = "stopped";
    return;
  }
  node.state = "broken";
  const { kind, message, status, requestId, retryAfter } =
    error instanceof ApiError ? error : new ApiError("broken", String(error));
  node.error = { kind, message, status, requestId, retryAfter };
}

/** A message as the server takes it. */
function messageOf(node) {
  if (!node.images.length) return { role: node.role, content: node.text };
  const images = node.images.map((url) => ({ type: "image_url", image_url: { url } }));
  return { role: node.role, content: [{ type: "text", text: node.text }, ...images] };
}

function requestFor(conversation, node, isContinued, model) {
  const before = tree.pathTo(conversation, isContinued ? node.id : node.parent);
  const messages = before.map(messageOf);
  if (conversation.system.trim()) messages.unshift({ role: "system", content: conversation.system });
  const request = { model: model?.id ?? "", messages, ...settings.sampling };
  // lmd goes on with a last message of the assistant's anyway; some others want to be told.
  if (isContinued) Object.assign(request, { continue_final_message: true, add_generation_prompt: false });
  return request;
}

/** Counts tokens and time. Without `usage` from the server a piece counts as a token. */
class Count {
  #begin = performance.now();
  #first = 0;
  #last = 0;
  #pieces = 0;
  #usage = null;

  take(piece) {
    if (piece.text || piece.reasoning) {
      this.#last = performance.now();
      this.#first ||= this.#last;
      this.#pieces += 1;
    }
    this.#usage = piece.usage ?? this.#usage;
  }

  /** { tokens, prompt: tokens or 0, isExact, rate: tokens/s or 0, first: ms }, null without an answer. */
  stats() {
    if (!this.#pieces) return null;
    const tokens = this.#usage?.completion_tokens ?? this.#pieces;
    const seconds = (this.#last - this.#first) / 1000;
    return {
      tokens,
      prompt: this.#usage?.prompt_tokens ?? 0,
      isExact: this.#usage !== null,
      rate: tokens > 1 && seconds > 0.01 ? (tokens - 1) / seconds : 0,
      first: this.#first - this.#begin,
    };
  }
}
