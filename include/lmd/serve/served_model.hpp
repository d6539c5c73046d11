/// \file  What the endpoints know of the model that the engine runs, and of how it is served.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/error_reply.hpp>
#include <lmd/serve/generation_defaults.hpp>
#include <lmd/text/chat_template.hpp>
#include <lmd/text/tokenizer.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace lmd::serve {

/// Set once, before the first request; afterwards read from many threads.
struct ServedModel {
  std::vector<std::string> names;  ///< at least one; the first is the one that answers carry
  const text::Tokenizer* tokenizer = nullptr;  ///< outlives the object
  text::ChatTemplate chat_template;
  std::vector<int> stop_ids;  ///< of the model and the template
  int vocab_size = 0;         ///< rows of the model's output
  int session_len = 0;        ///< tokens of a prompt with its answer
  RecommendedSampling recommended = {};
  ApiCompat compat = ApiCompat::k018;
  int max_n = 16;                                       ///< --max-n
  std::vector<std::string> allowed_media_domains = {};  ///< --allowed-media-domains

  [[nodiscard]] bool has_name(std::string_view name) const {
    return std::ranges::find(names, name) != names.end();
  }
  /// More bytes than these are not tokenised: such a prompt is too long.
  [[nodiscard]] std::size_t max_prompt_bytes() const {
    return kMaxPromptBytesPerToken * static_cast<std::size_t>(session_len);
  }
};

}  // namespace lmd::serve
