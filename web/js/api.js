// SPDX-License-Identifier: Apache-2.0
/** The server: its models, and answers in pieces. Paths are relative, so the page may lie anywhere. */
import { events } from "./sse.js";
import { apiKey } from "./settings.js";

/** What went wrong. `kind`: "network", "key", "busy", "server", "request", "broken". */
export class ApiError extends Error {
  constructor(kind, message, details = {}) {
    super(message);
    this.kind = kind;
    Object.assign(this, details);  // status, requestId, retryAfter
  }
}

function kindOf(status) {
  if (status === 401) return "key";
  if (status === 429 || status === 503) return "busy";
  if (status === 502 || status === 504) return "network";  // what is in between does not reach it
  return status >= 500 ? "server" : "request";
}

/** The sentence in an error's body, in any of the shapes that servers use. */
function sentence(body) {
  const inner = body?.detail?.error ?? body?.error ?? body;
  if (typeof inner === "string") return inner;
  if (typeof inner?.message === "string") return inner.message;
  if (typeof inner?.detail === "string") return inner.detail;
  if (Array.isArray(inner?.detail)) {
    return inner.detail.map((part) => `${(part.loc ?? []).join(".")}: ${part.msg}`).join("; ");
  }
  return "";
}

async function failure(response) {
  let body = null;
  try {
    body = await response.json();
  } catch { /* no JSON: the status has to do */ }
  return new ApiError(kindOf(response.status), sentence(body), {
    status: response.status,
    requestId: response.headers.get("x-request-id") ?? "",
    retryAfter: Number(response.headers.get("retry-after")) || 0,
  });
}

/** A request with the key. \throws ApiError when there is no answer, or one that is an error. */
export async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (apiKey()) headers.authorization = `Bearer ${apiKey()}`;
  if (options.body) headers["content-type"] ??= "application/json";
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("network", "");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

/** The models: { id, context: tokens or 0, sees: true, false, or null where the server does not say }. */
export async function listModels() {
  const response = await call("v1/models");
  const body = await response.json();
  return (body.data ?? []).map((card) => ({
    id: card.id,
    context: card.max_model_len ?? card.context_length ?? card.meta?.n_ctx ?? 0,
    sees: sees(card),
  }));
}

function sees(card) {
  const kinds = card.input_modalities ?? card.architecture?.input_modalities ?? card.capabilities;
  if (Array.isArray(kinds)) return kinds.some((kind) => kind === "image" || kind === "multimodal");
  return /vl\b|vl\d|vision|llava|xcomposer/i.test(card.id) ? true : null;
}

/** One piece of an answer: { text, reasoning, finish, usage }, what is absent undefined. */
function piece(body) {
  if (body.error || body.object === "error") {
    const status = Number(body.error?.code ?? body.code) || 500;
    throw new ApiError(kindOf(status), sentence(body), { status });
  }
  const choice = body.choices?.[0];
  const delta = choice?.delta ?? choice?.message;
  return {
    text: delta?.content ?? undefined,
    reasoning: delta?.reasoning_content ?? undefined,
    finish: choice?.finish_reason ?? undefined,
    usage: body.usage ?? undefined,
  };
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new ApiError("broken", "");
  }
}

/** Asks for an answer and yields it in pieces. \throws ApiError, also when it breaks off. */
export async function* streamChat(request, signal) {
  const body = JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } });
  const response = await call("v1/chat/completions", { method: "POST", body, signal });
  const requestId = response.headers.get("x-request-id") ?? "";
  let isWhole = false;
  try {
    // Servers that report errors with status 200 do so as plain JSON.
    if (!(response.headers.get("content-type") ?? "").includes("event-stream")) {
      yield piece(await response.json());
      return;
    }
    for await (const data of events(response)) {
      if (data === "[DONE]") return;
      const next = piece(parsed(data));
      isWhole ||= Boolean(next.finish);
      yield next;
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error instanceof ApiError) throw Object.assign(error, { requestId });
    throw new ApiError("broken", "", { requestId });
  }
  if (!isWhole) throw new ApiError("broken", "", { requestId });
}
