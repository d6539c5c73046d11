/// \file  The fields of requests that are no numbers, as JSON schemas: what /openapi.json says of them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/limits.hpp>

#include <algorithm>
#include <string_view>

namespace lmd::serve {

/// Numbers have rows in kNumberLimits instead.
struct FieldSchema {
  std::string_view name;
  std::string_view schema;  ///< members of a JSON schema object
  Endpoints where = kSampled;
  std::string_view note = {};  ///< for people; empty: the name says it
  bool is_required = false;
};

inline constexpr std::string_view kBooleanSchema = R"("type":["boolean","null"])";
inline constexpr std::string_view kObjectSchema = R"("type":["object","null"])";
inline constexpr std::string_view kStringSchema = R"("type":["string","null"])";
inline constexpr std::string_view kIdsSchema =
    R"("type":"array","items":{"type":"integer","minimum":0})";
inline constexpr Endpoints kOpenAi = kChat | kCompletions;

inline constexpr FieldSchema kFieldSchemas[] = {
    {"model", R"("type":"string")", kOpenAi, "one of /v1/models", true},
    {"model", kStringSchema, kTokenize | kDetokenize},
    {"messages", R"("type":["array","null"],"items":{"$ref":"#/components/schemas/Message"})",
     kChat},
    {"prompt",
     R"("anyOf":[{"type":"string"},{"type":"array","items":{"anyOf":[{"type":"string"},{"type":"integer"},{"type":"array","items":{"type":"integer"}}]}}])",
     kCompletions, "a text, token ids, or a list of either", true},
    {"prompt",
     R"("anyOf":[{"type":"string"},{"type":"array","items":{"$ref":"#/components/schemas/Message"}}])",
     kInteractive, "what is said in this turn", true},
    {"prompt", kStringSchema, kGenerate | kTokenize, "or the other form of input, not both"},
    {"input_ids", R"("type":["array","null"],"items":{"type":"integer","minimum":0})",
     kChat | kGenerate, "token ids in place of a text or of messages"},
    {"stream", kBooleanSchema},
    {"stream_options",
     R"("type":["object","null"],"properties":{"include_usage":{"type":["boolean","null"]}})",
     kOpenAi, "include_usage: a last chunk with the counts of tokens"},
    {"stop",
     R"("anyOf":[{"type":["string","null"],"maxLength":256},{"type":"array","maxItems":16,"items":{"type":"string","maxLength":256}}])",
     kSampled, "texts that end the answer; of up to 256 bytes each"},
    {"stop_token_ids",
     R"("type":["array","null"],"maxItems":32,"items":{"type":"integer","minimum":0})", kGenerate},
    {"ignore_eos", kBooleanSchema, kSampled, "the answer goes on behind the model's end"},
    {"skip_special_tokens", kBooleanSchema},
    {"spaces_between_special_tokens", kBooleanSchema, kOpenAi | kGenerate, "no effect"},
    {"include_stop_str_in_output", kBooleanSchema, kOpenAi | kGenerate},
    {"return_token_ids", kBooleanSchema, kOpenAi, "output_ids beside the text"},
    {"return_logprob", kBooleanSchema, kOpenAi | kGenerate, "output_token_logprobs"},
    {"logit_bias", R"("type":["object","null"],"additionalProperties":{"type":"number"})", kOpenAi,
     "added to the logits of tokens, by id; -100 to 100 each"},
    {"logprobs", kBooleanSchema, kChat},
    {"tools",
     R"("type":["array","null"],"maxItems":128,"items":{"$ref":"#/components/schemas/Tool"})",
     kChat},
    {"tool_choice",
     R"("anyOf":[{"enum":["none","auto","required",null]},{"type":"object","required":["function"],"properties":{"type":{"enum":["function"]},"function":{"type":"object","required":["name"],"properties":{"name":{"type":"string"}}}}}])",
     kChat, "required, or a function's name, is enforced"},
    {"parallel_tool_calls", kBooleanSchema, kChat, "false: the first call alone"},
    {"response_format",
     R"("type":["object","null"],"required":["type"],"properties":{"type":{"enum":["text","json_object","json_schema","regex_schema"]},"json_schema":{"type":"object"},"regex_schema":{"type":"string"}})",
     kChat, "enforced"},
    {"reasoning_effort", R"("enum":["none",null])", kChat},
    {"enable_thinking", R"("enum":[false,null])", kChat},
    {"chat_template_kwargs", kObjectSchema, kChat, "enable_thinking: false"},
    {"user", kStringSchema, kOpenAi, "no effect"},
    {"echo", kBooleanSchema, kCompletions, "the text begins with the prompt"},
    {"suffix", kStringSchema, kCompletions, "no effect, as in LMDeploy"},
    {"interactive_mode", kBooleanSchema, kInteractive, "the server remembers the turn"},
    {"cancel", kBooleanSchema, kInteractive, "stops the session's answer"},
    {"input",
     R"("anyOf":[{"type":"string"},{"type":"array","items":{"type":"string"}}])",
     kEncode,
     {},
     true},
    {"do_preprocess", kBooleanSchema, kEncode, "as a user's message of the chat template"},
    {"add_bos", kBooleanSchema, kEncode},
    {"messages", R"("type":["array","null"],"items":{"$ref":"#/components/schemas/Message"})",
     kTokenize},
    {"add_special_tokens", kBooleanSchema, kTokenize},
    {"tokens", kIdsSchema, kDetokenize, {}, true},
};
static_assert(std::ranges::all_of(kFieldSchemas,
                                  [](const FieldSchema& field) {
                                    return !field.schema.empty() && field.where != 0;
                                  }),
              "a field without a schema, or that is nowhere, cannot be described");

}  // namespace lmd::serve
