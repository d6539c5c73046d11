/// \file  GET /openapi.json: what the server offers, made of the tables that it checks requests by.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/config.hpp>
#include <lmd/serve/answer_options.hpp>
#include <lmd/serve/field_schemas.hpp>
#include <lmd/serve/json_number.hpp>
#include <lmd/serve/json_text.hpp>
#include <lmd/serve/limits.hpp>
#include <lmd/serve/served_model.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lmd::serve {

/// A path that clients may use. `schema` names what it answers, under components/schemas.
struct Operation {
  std::string_view method;  ///< lower case, as OpenAPI has it
  std::string_view path;
  std::string_view summary;
  Endpoints endpoint;       ///< whose fields the body has; 0: there is none
  std::string_view schema;  ///< empty: the answer has none
  bool has_stream = false;
  enum class Kind { kEndpoint, kPage, kRefusal } kind = Kind::kEndpoint;
};

inline constexpr Operation kOperations[] = {
    {"get", "/v1/models", "The names of the model", 0, "Models"},
    {"get", "/v1/models/{model}", "One of them", 0, "Model"},
    {"post", "/v1/chat/completions", "An answer to a conversation", kChat, "Chat", true},
    {"post", "/v1/completions", "What follows a text", kCompletions, "Completion", true},
    {"post", "/v1/chat/interactive", "A turn of a conversation that the server remembers",
     kInteractive, "Turn", true},
    {"post", "/generate", "What follows a text, with token ids", kGenerate, "Generated", true},
    {"post", "/v1/encode", "The token ids of texts", kEncode, "Encoded"},
    {"post", "/v1/embeddings", "Not offered: the model gives text alone", 0, "", false,
     Operation::Kind::kRefusal},
    {"post", "/tokenize", "The token ids of a text or a conversation", kTokenize, "Tokens"},
    {"post", "/detokenize", "The text of token ids", kDetokenize, "Text"},
    {"get", "/health", "Whether requests are taken", 0, ""},
    {"get", "/health/live", "Whether the process works", 0, ""},
    {"get", "/health/ready", "Whether requests are taken", 0, ""},
    {"get", "/metrics", "Figures for Prometheus", 0, ""},
    {"get", "/version", "The version of lmd", 0, "Version"},
    {"get", "/openapi.json", "This description", 0, ""},
    {"get", "/", "The chat page", 0, "", false, Operation::Kind::kPage},
    {"get", "/docs", "This description as a page", 0, "", false, Operation::Kind::kPage},
};
static_assert(std::ranges::all_of(kOperations,
                                  [](const Operation& operation) {
                                    return operation.method == "post" || operation.endpoint == 0;
                                  }),
              "bodies come with POST alone");

namespace detail {

/// Components that are the same for every model.
inline constexpr std::string_view kComponents =
    R"("components":{"securitySchemes":{"key":{"type":"http","scheme":"bearer"}},"schemas":{)"
    R"("Message":{"type":"object","required":["role"],"properties":{)"
    R"("role":{"enum":["system","developer","user","assistant","tool","environment"]},)"
    R"("name":{"type":["string","null"]},)"
    R"("content":{"anyOf":[{"type":["string","null"]},{"type":"array","items":{"$ref":"#/components/schemas/Part"}}]},)"
    R"("tool_call_id":{"type":["string","null"]},)"
    R"("tool_calls":{"type":["array","null"],"items":{"$ref":"#/components/schemas/Call"}}}},)"
    R"("Part":{"type":"object","required":["type","text"],"properties":{"type":{"enum":["text"]},"text":{"type":"string"}}},)"
    R"("Call":{"type":"object","required":["function"],"properties":{"id":{"type":"string"},"type":{"enum":["function"]},)"
    R"("function":{"type":"object","required":["name"],"properties":{"name":{"type":"string"},"arguments":{"type":["string","object","null"]}}}}},)"
    R"("Tool":{"type":"object","required":["type","function"],"properties":{"type":{"enum":["function"]},)"
    R"("function":{"type":"object","required":["name"],"properties":{"name":{"type":"string","minLength":1,"maxLength":64},)"
    R"("description":{"type":["string","null"]},"parameters":{"type":["object","null"]}}}}},)"
    R"("Usage":{"type":"object","required":["prompt_tokens","completion_tokens","total_tokens"],"properties":{)"
    R"("prompt_tokens":{"type":"integer"},"completion_tokens":{"type":"integer"},"total_tokens":{"type":"integer"}}},)"
    R"("Models":{"type":"object","required":["object","data"],"properties":{"object":{"const":"list"},)"
    R"("data":{"type":"array","items":{"$ref":"#/components/schemas/Model"}}}},)"
    R"("Model":{"type":"object","required":["id","object"],"properties":{"object":{"const":"model"}}},)"
    R"("Chat":{"type":"object","required":["id","object","created","model","choices","usage"],"properties":{)"
    R"("object":{"const":"chat.completion"},"choices":{"type":"array","items":{"type":"object",)"
    R"("required":["index","message","finish_reason"]}},"usage":{"$ref":"#/components/schemas/Usage"}}},)"
    R"("Completion":{"type":"object","required":["id","object","created","model","choices","usage"],"properties":{)"
    R"("object":{"const":"text_completion"},"choices":{"type":"array","items":{"type":"object",)"
    R"("required":["index","text","finish_reason"]}},"usage":{"$ref":"#/components/schemas/Usage"}}},)"
    R"("Turn":{"type":"object","required":["text","tokens","input_tokens","history_tokens","finish_reason"]},)"
    R"("Generated":{"type":"object","required":["text","output_ids","meta_info"]},)"
    R"("Encoded":{"type":"object","required":["input_ids","length"]},)"
    R"("Tokens":{"type":"object","required":["count","max_model_len","tokens"]},)"
    R"("Text":{"type":"object","required":["prompt"],"properties":{"prompt":{"type":"string"}}},)"
    R"("Version":{"type":"object","required":["version"],"properties":{"version":{"type":"string"}}},)"
    R"("Error":{"type":"object","required":["message","type","code","object"],"properties":{"message":{"type":"string"},)"
    R"("type":{"type":"string"},"code":{"type":"integer"},"param":{"type":"null"},"object":{"const":"error"}}}}})";

/// What requests that do not say get, where that is one number.
[[nodiscard]] inline std::optional<double> default_of(std::string_view name,
                                                      const kernels::SamplingParams& p) {
  if (name == "temperature") return p.temperature;
  if (name == "top_p") return p.top_p;
  if (name == "top_k") return p.top_k;
  if (name == "min_p") return p.min_p;
  if (name == "repetition_penalty") return p.repetition_penalty;
  if (name == "presence_penalty") return p.presence_penalty;
  if (name == "frequency_penalty") return p.frequency_penalty;
  return name == "n" ? std::optional(1.0) : std::nullopt;
}

/// A number as JSON. Defaults were rounded to floats.
[[nodiscard]] inline std::string schema_number(FieldType type, double value) {
  std::string text;
  if (type == FieldType::kInteger) {
    append_json_integer(text, static_cast<std::int64_t>(value));
  } else {
    append_json_real(text, static_cast<float>(value));
  }
  return text;
}

[[nodiscard]] inline std::string number_schema(const NumberLimit& limit,
                                               const ServedModel& model,
                                               const kernels::SamplingParams& defaults) {
  const bool is_integer = limit.type == FieldType::kInteger;
  const bool is_count = limit.name == "n" || limit.name == "best_of";
  std::string schema = std::string(R"({"type":[)") + (is_integer ? "\"integer\"" : "\"number\"") +
                       R"(,"null"],)" +
                       (limit.is_min_open ? "\"exclusiveMinimum\":" : "\"minimum\":") +
                       schema_number(limit.type, limit.min) + R"(,"maximum":)" +
                       schema_number(limit.type, is_count ? model.max_n : limit.max);
  if (const auto value = default_of(limit.name, defaults))
    schema += R"(,"default":)" + schema_number(limit.type, *value);
  if (!limit.note.empty()) schema += R"(,"description":)" + json_string(limit.note);
  return schema + '}';
}

[[nodiscard]] inline std::string name_list(const ServedModel& model) {
  std::string list;
  for (const std::string& name : model.names)
    list += (list.empty() ? "[" : ",") + json_string(name);
  return list + ']';
}

/// Of an input that has two forms.
[[nodiscard]] inline std::string_view either_form(Endpoints endpoint) {
  if (endpoint == kGenerate)
    return R"(,"oneOf":[{"required":["prompt"]},{"required":["input_ids"]}])";
  if (endpoint == kTokenize)
    return R"(,"oneOf":[{"required":["prompt"]},{"required":["messages"]}])";
  if (endpoint == kChat)
    return R"(,"anyOf":[{"required":["messages"]},{"required":["input_ids"]}])";
  return {};
}

/// The body of an endpoint.
[[nodiscard]] inline std::string body_schema(Endpoints endpoint, const ServedModel& model) {
  const json::OrderedJson nothing = json::OrderedJson::object();
  const bool is_sampled = (endpoint & kSampled) != 0;
  kernels::SamplingParams defaults;
  if (is_sampled) defaults = read_sampling({nothing, {}, model.compat}, endpoint, model);
  std::string properties;
  std::string required;
  const auto add = [&](std::string_view name, const std::string& schema) {
    properties += (properties.empty() ? "" : ",") + json_string(name) + ':' + schema;
  };
  for (const FieldSchema& field : kFieldSchemas) {
    if ((field.where & endpoint) == 0) continue;
    std::string schema = '{' + std::string(field.schema);
    if (field.name == "model" && field.is_required) schema += R"(,"enum":)" + name_list(model);
    if (!field.note.empty()) schema += R"(,"description":)" + json_string(field.note);
    add(field.name, schema + '}');
    if (field.is_required) required += (required.empty() ? "" : ",") + json_string(field.name);
  }
  for (const NumberLimit& limit : kNumberLimits)
    if ((limit.where & endpoint) != 0) add(limit.name, number_schema(limit, model, defaults));
  return R"({"type":"object")" + std::string(either_form(endpoint)) +
         (required.empty() ? "" : R"(,"required":[)" + required + ']') + R"(,"properties":{)" +
         properties + "}}";
}

/// Statuses beside 200.
[[nodiscard]] inline std::string error_responses(const Operation& operation, ApiCompat compat) {
  const bool is_old = compat == ApiCompat::k05;
  const std::string content =
      operation.path.starts_with("/health") || is_old
          ? R"("content":{"application/json":{}})"
          : R"("content":{"application/json":{"schema":{"$ref":"#/components/schemas/Error"}}})";
  std::string text;
  const auto add = [&](const char* status, const char* what) {
    text += std::string(",\"") + status + R"(":{"description":")" + what + "\"," + content + '}';
  };
  add("400", "The request is wrong");
  add("401", "A key is needed");
  add("403", "Not from this page");
  if (operation.endpoint != 0 || operation.path.ends_with('}'))
    add("404", "There is no such model");
  if (operation.method == "post") {
    add("408", "The request did not arrive in time");
    add("413", "The body is too large");
    if (is_old) add("422", "The request is wrong");
    add("429", "Too much waits already");
    add("500", "The engine failed");
  }
  if (operation.kind == Operation::Kind::kRefusal) add("501", "This is not offered");
  add("405", "The path has other methods");
  add("431", "The header is too large");
  add("503", "The server is not ready");
  return text;
}

/// A name of its own: v1_chat_completions.
[[nodiscard]] inline std::string operation_id(std::string_view path) {
  if (path == "/") return "page";
  std::string id;
  for (const char c : path.substr(1))
    if (c != '{' && c != '}') id += c == '/' || c == '.' ? '_' : c;
  return id;
}

/// The responses of status 200.
[[nodiscard]] inline std::string answer_response(const Operation& operation) {
  if (operation.kind == Operation::Kind::kRefusal) return {};
  std::string text = R"("200":{"description":"As asked","content":{)";
  if (operation.kind == Operation::Kind::kPage) {
    text += R"("text/html":{})";
  } else if (operation.schema.empty()) {
    text += R"("text/plain":{},"application/json":{})";
  } else {
    text += R"("application/json":{"schema":{"$ref":"#/components/schemas/)" +
            std::string(operation.schema) + R"("}})";
  }
  if (operation.has_stream) text += R"(,"text/event-stream":{})";
  return text + "}}";
}

[[nodiscard]] inline std::string operation_text(const Operation& operation,
                                                const ServedModel& model) {
  std::string text = json_string(operation.method) + R"(:{"summary":)" +
                     json_string(operation.summary) + R"(,"operationId":)" +
                     json_string(operation_id(operation.path));
  if (operation.path.ends_with("{model}")) {
    text += R"(,"parameters":[{"name":"model","in":"path","required":true,"schema":{"enum":)" +
            name_list(model) + "}}]";
  }
  if (operation.endpoint != 0) {
    text += R"(,"requestBody":{"required":true,"content":{"application/json":{"schema":)" +
            body_schema(operation.endpoint, model) + "}}}";
  }
  const std::string answer = answer_response(operation);
  const std::string errors = error_responses(operation, model.compat);  // each begins with a comma
  return text + R"(,"responses":{)" + (answer.empty() ? errors.substr(1) : answer + errors) + "}}";
}

}  // namespace detail

/// The document, of OpenAPI 3.1, on one line. \param has_pages  whether the server shows pages, too
[[nodiscard]] inline std::string openapi_text(const ServedModel& model, bool has_pages) {
  std::string paths;
  for (const Operation& operation : kOperations) {
    if (operation.kind == Operation::Kind::kPage && !has_pages) continue;
    paths += (paths.empty() ? "" : ",") + json_string(operation.path) + ":{" +
             detail::operation_text(operation, model) + '}';
  }
  return std::string(R"({"openapi":"3.1.0","info":{"title":"lmd","version":")") + kVersion +
         R"(","description":"A language model behind the interfaces of OpenAI and LMDeploy."},)"
         R"("security":[{},{"key":[]}],"paths":{)" +
         paths + "}," + std::string(detail::kComponents) + '}';
}

}  // namespace lmd::serve
