/// \file  A tokenizer of one token a byte, and the markers of InternLM2's chats.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/bpe.hpp>

#include <memory>
#include <string>
#include <utility>

namespace lmd::serve_test {

inline constexpr int kFirstMarker = 256;  ///< ids from here on are markers
inline constexpr const char* kMarkers[] = {"</s>",
                                           "<s>",
                                           "<|im_start|>",
                                           "<|im_end|>",
                                           "<|action_start|>",
                                           "<|action_end|>",
                                           "<|interpreter|>",
                                           "<|plugin|>"};
inline constexpr int kVocabulary = kFirstMarker + static_cast<int>(std::size(kMarkers));
inline constexpr int kEos = kFirstMarker;

/// Id b is byte b; the markers follow. A character of three bytes is three tokens.
inline std::unique_ptr<text::Tokenizer> make_byte_tokenizer() {
  text::BpeModel model;
  model.where = "byte tokenizer";
  for (std::size_t byte = 0; byte < 256; ++byte) {
    std::string spelled;
    text::detail::append_utf8(text::detail::kByteAlphabet[byte], spelled);
    model.tokens.add(spelled);
    model.tokens.index(static_cast<int>(byte));
  }
  text::TokenizerTraits traits;
  for (int i = 0; i < static_cast<int>(std::size(kMarkers)); ++i)
    traits.added.push_back({.id = kFirstMarker + i, .content = kMarkers[i]});
  traits.eos_id = kEos;
  return std::make_unique<text::BpeTokenizer>(std::move(model), std::move(traits));
}

}  // namespace lmd::serve_test
