// SPDX-License-Identifier: Apache-2.0
/**
 * Conversations in the browser's database: titles apart from contents, so that the list is read
 * without the images. Where the browser has no database (private windows of some), they live until
 * the page is closed, and `isLasting` says so.
 */

const kHeads = "heads";
const kBodies = "bodies";

function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function openDatabase() {
  const request = indexedDB.open("lmd", 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore(kHeads, { keyPath: "id" });
    request.result.createObjectStore(kBodies, { keyPath: "id" });
  };
  return result(request);
}

class LastingStore {
  constructor(database) {
    this.database = database;
    this.isLasting = true;
  }

  /** { id, title, created, updated } of every conversation, the newest first. */
  async list() {
    const heads = await result(this.database.transaction(kHeads).objectStore(kHeads).getAll());
    return heads.sort((a, b) => b.updated - a.updated);
  }

  load(id) {
    return result(this.database.transaction(kBodies).objectStore(kBodies).get(id));
  }

  save(conversation) {
    const { id, title, created, updated } = conversation;
    return this.#change((heads, bodies) => {
      heads.put({ id, title, created, updated });
      bodies.put(conversation);
    });
  }

  remove(id) {
    return this.#change((heads, bodies) => {
      heads.delete(id);
      bodies.delete(id);
    });
  }

  #change(action) {
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction([kHeads, kBodies], "readwrite");
      transaction.oncomplete = resolve;
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
      action(transaction.objectStore(kHeads), transaction.objectStore(kBodies));
    });
  }
}

class FleetingStore {
  isLasting = false;
  #all = new Map();

  async list() {
    return [...this.#all.values()].sort((a, b) => b.updated - a.updated);
  }

  async load(id) {
    return structuredClone(this.#all.get(id));
  }

  async save(conversation) {
    this.#all.set(conversation.id, structuredClone(conversation));
  }

  async remove(id) {
    this.#all.delete(id);
  }
}

export async function openStore() {
  try {
    return new LastingStore(await openDatabase());
  } catch {
    return new FleetingStore();
  }
}
