/// \file  The built-in chat templates, and which of them belongs to a model.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/shown_name.hpp>
#include <lmd/text/chat_template.hpp>
#include <lmd/text/tokenizer.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::text {

/// Said by models of InternLM2 and 2.5 when there is no system message. The final newline is part of
/// what they are served with.
inline constexpr const char* kInternlm2System =
    "You are an AI assistant whose name is InternLM (书生·浦语).\n"
    "- InternLM (书生·浦语) is a conversational language model that is developed by Shanghai AI "
    "Laboratory (上海人工智能实验室). It is designed to be helpful, honest, and harmless.\n"
    "- InternLM (书生·浦语) can understand and communicate fluently in the language chosen by the "
    "user such as English and 中文.\n";
inline constexpr const char* kInternvl2System =
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
    "是一个有用无害的人工智能助手。";
inline constexpr const char* kInternvl25System =
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的"
    "多模态大语言模型。";
inline constexpr const char* kSmollm2System =
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

namespace detail {

/// `<|im_start|>role\n ... <|im_end|>` and then `after_end`.
[[nodiscard]] inline ChatTemplate im_template(std::string name, const std::string& after_end) {
  const std::string end = "<|im_end|>";
  ChatTemplate tmpl;
  tmpl.name = std::move(name);
  tmpl.system = "<|im_start|>system\n";
  tmpl.user = "<|im_start|>user\n";
  tmpl.assistant = "<|im_start|>assistant\n";
  tmpl.environment = "<|im_start|>tool\n";
  tmpl.eosys = tmpl.eoh = tmpl.eoenv = end + after_end;
  tmpl.eoa = end;
  tmpl.separator = after_end;
  tmpl.stop_words = {end};
  return tmpl;
}

/// What InternLM2's vocabulary has tokens for beyond plain chat.
inline void add_internlm2_tools(ChatTemplate& tmpl) {
  tmpl.environment = "<|im_start|>environment\n";
  tmpl.plugin = "<|plugin|>";
  tmpl.interpreter = "<|interpreter|>";
  tmpl.call_begin = "<|action_start|>";
  tmpl.call_end = "<|action_end|>";
}

[[nodiscard]] inline ChatTemplate phi3_template(std::string name, const std::string& after_end) {
  ChatTemplate tmpl;
  tmpl.name = std::move(name);
  tmpl.system = "<|system|>\n";
  tmpl.user = "<|user|>\n";
  tmpl.assistant = "<|assistant|>\n";
  tmpl.eosys = tmpl.eoh = "<|end|>" + after_end;
  tmpl.eoa = "<|end|>";
  tmpl.separator = after_end;
  tmpl.stop_words = {"<|end|>", "<|endoftext|>"};
  return tmpl;
}

}  // namespace detail

/// All templates that can be named. The vision models have no newline after the end of a message, as
/// they were trained.
[[nodiscard]] inline std::vector<ChatTemplate> builtin_templates() {
  using namespace detail;
  ChatTemplate internlm2 = im_template("internlm2", "\n");
  add_internlm2_tools(internlm2);
  internlm2.meta_instruction = kInternlm2System;
  internlm2.stop_words = {"<|im_end|>", "<|action_end|>"};

  ChatTemplate internvl2 = im_template("internvl2-internlm2", "");
  add_internlm2_tools(internvl2);
  internvl2.meta_instruction = kInternvl2System;
  internvl2.stop_words = {"<|im_start|>", "<|im_end|>"};

  ChatTemplate internvl25 = im_template("internvl2_5", "\n");
  internvl25.meta_instruction = kInternvl25System;

  ChatTemplate hermes = im_template("hermes-2", "");
  hermes.meta_instruction = kInternvl2System;
  hermes.stop_words = {"<|im_start|>", "<|im_end|>", "<|endoftext|>"};

  ChatTemplate internvl2_phi3 = phi3_template("internvl2-phi3", "");
  internvl2_phi3.meta_instruction = kInternvl2System;

  ChatTemplate smollm2 = im_template("smollm2", "\n");
  smollm2.meta_instruction = kSmollm2System;

  ChatTemplate base;
  base.name = "base";
  base.meta_instruction = "";
  base.environment = "";

  return {std::move(internlm2), std::move(internvl2),        std::move(internvl25),
          std::move(hermes),    phi3_template("phi3", "\n"), std::move(internvl2_phi3),
          std::move(smollm2),   im_template("chatml", "\n"), std::move(base)};
}

/// `internlm2, internvl2-internlm2, ...`, for messages.
[[nodiscard]] inline std::string builtin_template_names() {
  std::string names;
  for (const ChatTemplate& tmpl : builtin_templates()) {
    names += (names.empty() ? "" : ", ") + tmpl.name;
  }
  return names;
}

/// \throws Error(kConfig) naming the known ones.
[[nodiscard]] inline ChatTemplate builtin_template(std::string_view name) {
  for (ChatTemplate& tmpl : builtin_templates()) {
    if (tmpl.name == name) return std::move(tmpl);
  }
  throw Error(ErrorCode::kConfig, "chat template " + std::string(name) +
                                      " is unknown; known: " + builtin_template_names());
}

/// What a model's files say about how it was trained to chat.
struct TemplateHints {
  std::string architecture;           ///< config.json: architectures[0] or model_type
  std::string internvl_template;      ///< config.json of a vision model: template
  std::string chat_template;          ///< TokenizerConfig::chat_template
  bool has_internlm2_tokens = false;  ///< see internlm2_tokens_in
};

/// Whether the vocabulary has the tokens of InternLM2's tool calls. It says what the architecture
/// does not where a checkpoint was rewritten as a Llama.
[[nodiscard]] inline bool internlm2_tokens_in(const Tokenizer& tokenizer) {
  return tokenizer.id_of("<|plugin|>") && tokenizer.id_of("<|action_start|>") &&
         tokenizer.id_of("<|im_start|>");
}

/// The template of a model, decided by its files' content, never by its folder's name. A model that
/// says nothing gets `base`, which the caller should log.
/// \throws Error(kConfig) when a vision model names a template that is not known.
[[nodiscard]] inline ChatTemplate select_template(const TemplateHints& hints) {
  constexpr std::pair<const char*, const char*> kVision[] = {
      {"internlm2-chat", "internvl2-internlm2"},
      {"Hermes-2", "hermes-2"},
      {"phi3-chat", "internvl2-phi3"},
      {"internvl2_5", "internvl2_5"},
  };
  if (!hints.internvl_template.empty()) {
    for (const auto& [value, name] : kVision) {
      if (hints.internvl_template == value) return builtin_template(name);
    }
    throw Error(ErrorCode::kConfig,
                "config.json: template is \"" + shown_name(hints.internvl_template) +
                    "\"; known: internlm2-chat, Hermes-2, phi3-chat, internvl2_5");
  }
  std::string architecture = hints.architecture;
  std::transform(architecture.begin(), architecture.end(), architecture.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  const auto says = [&](const char* word) {
    return hints.chat_template.find(word) != std::string::npos;
  };
  if (architecture.starts_with("internlm2")) return builtin_template("internlm2");
  if (architecture.starts_with("phi3")) return builtin_template("phi3");
  if (hints.has_internlm2_tokens) return builtin_template("internlm2");
  if (says("named SmolLM")) return builtin_template("smollm2");
  if (says("<|im_start|>")) return builtin_template("chatml");
  if (says("<|end|>") && says("<|user|>")) return builtin_template("phi3");
  return builtin_template("base");
}

}  // namespace lmd::text
