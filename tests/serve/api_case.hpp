/// \file  What the tests of endpoints share: a tokenizer of a few words, a served model, a scripted engine.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/api_context.hpp>
#include <lmd/text/chat_templates.hpp>
#include <lmd/text/tokenizer.hpp>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

namespace lmd::test {

/// Ids 0..255 are bytes, then words, which win where they match longest, then special tokens.
class WordTokenizer final : public text::Tokenizer {
 public:
  explicit WordTokenizer(std::vector<std::string> words,
                         const std::vector<std::string>& specials = {"<|im_start|>", "<|im_end|>"})
      : Tokenizer(traits_of(256 + static_cast<int>(words.size()), specials),
                  256 + static_cast<int>(words.size()),
                  "test"),
        words_(std::move(words)) {}

 private:
  static text::TokenizerTraits traits_of(int first, const std::vector<std::string>& specials) {
    text::TokenizerTraits traits;
    for (const std::string& name : specials)
      traits.added.push_back({.id = first++, .content = name});
    return traits;
  }

  void encode_plain(std::string_view text, std::vector<int>& ids) const override {
    while (!text.empty()) {
      std::size_t n = 1;
      int id = static_cast<unsigned char>(text[0]);
      for (std::size_t i = 0; i < words_.size(); ++i) {
        if (words_[i].size() <= n || !text.starts_with(words_[i])) continue;
        n = words_[i].size();
        id = 256 + static_cast<int>(i);
      }
      ids.push_back(id);
      text.remove_prefix(n);
    }
  }
  void append_vocabulary_piece(int id, std::string& bytes) const override {
    bytes += id < 256 ? std::string(1, static_cast<char>(id)) : words_[std::size_t(id) - 256];
  }
  /// Bytes that are no character are spelled `<0xE4>`.
  [[nodiscard]] std::string vocabulary_piece(int id) const override {
    if (id >= 256) return words_[static_cast<std::size_t>(id) - 256];
    if (id < 128) return std::string(1, static_cast<char>(id));
    constexpr const char* kHex = "0123456789ABCDEF";
    return std::string("<0x") + kHex[id / 16] + kHex[id % 16] + ">";
  }

  std::vector<std::string> words_;
};

[[nodiscard]] inline const text::Tokenizer& test_tokenizer() {
  static const WordTokenizer tokenizer(
      {"Hello", " world", " is", "th", "thing"},
      {"<|im_start|>", "<|im_end|>", "<|plugin|>", "<|action_start|>", "<|action_end|>"});
  return tokenizer;
}

/// A context whose ids count from 1 and whose clock stands still.
[[nodiscard]] inline std::unique_ptr<serve::ApiContext> make_context(
    const std::string& chat_template = "chatml",
    serve::ApiCompat compat = serve::ApiCompat::k018,
    int session_len = 512) {
  serve::ServedModel model;
  model.names = {"tiny"};
  model.tokenizer = &test_tokenizer();
  model.chat_template = text::builtin_template(chat_template);
  model.vocab_size = test_tokenizer().vocab_size();
  for (const std::string& word : model.chat_template.stop_words)
    if (const auto id = test_tokenizer().id_of(word)) model.stop_ids.push_back(*id);
  model.session_len = session_len;
  model.compat = compat;
  auto context = std::make_unique<serve::ApiContext>(std::move(model));
  context->origin.random = [n = std::uint64_t{0}]() mutable { return ++n; };
  context->origin.seconds = [] { return std::int64_t{1'700'000'000}; };
  return context;
}

[[nodiscard]] inline serve::ApiRequest post(std::string_view path, std::string_view body) {
  return {.method = "POST",
          .path = path,
          .query = {},
          .content_type = "application/json",
          .body = body,
          .client = 0,
          .request_id = "test"};
}

/// What an answer of a scripted engine is.
struct Script {
  std::string text;
  engine::FinishReason finish = engine::FinishReason::kStop;
  bool has_logprobs = false;
};

/// Plays a script's tokens to one answer until it has ended, or was finished early. A stop token ends those that stop.
inline void play(serve::ApiCall& call, int answer, const Script& script, std::string& out) {
  const auto tokenizer = [] { return &test_tokenizer(); };
  const std::vector<int> ids = tokenizer()->encode(script.text);
  const int stop = *tokenizer()->id_of("<|im_end|>");
  const bool ends_with_stop = script.finish == engine::FinishReason::kStop;
  for (std::size_t i = 0; i < ids.size() + (ends_with_stop ? 1 : 0); ++i) {
    const bool is_last = ends_with_stop ? i == ids.size() : i + 1 == ids.size();
    serve::AnswerEvent event;
    event.answer = answer;
    event.token = i < ids.size() ? ids[i] : stop;
    if (is_last) event.finish = script.finish;
    if (script.has_logprobs) {
      event.logprobs = kernels::TokenLogprobs{
          .chosen = -0.5f, .top = {{event.token, -0.5f}, {static_cast<int>('!'), -1.0f}}};
    }
    call.on_event(event, out);
    if (!call.take_finished_early().empty()) return;
  }
}

/// The whole stream of a call whose only answer follows a script.
[[nodiscard]] inline std::string streamed(serve::ApiResult result, const Script& script) {
  auto& call = std::get<std::unique_ptr<serve::ApiCall>>(result);
  REQUIRE(call->is_stream());
  std::string out;
  play(*call, 0, script, out);
  CHECK(call->has_ended());
  return out;
}

/// The reply of a call whose answers follow scripts, in order.
[[nodiscard]] inline serve::HttpReply replied(serve::ApiResult result,
                                              const std::vector<Script>& scripts) {
  auto& call = std::get<std::unique_ptr<serve::ApiCall>>(result);
  REQUIRE_FALSE(call->is_stream());
  std::string out;
  for (std::size_t i = 0; i < scripts.size(); ++i)
    play(*call, static_cast<int>(i), scripts[i], out);
  CHECK(out.empty());
  REQUIRE(call->has_ended());
  return call->reply();
}

/// The reply to what `f` throws as ApiFailure.
template <class F>
[[nodiscard]] serve::HttpReply refusal(const serve::ApiContext& context, F&& f) {
  try {
    (void)f();
  } catch (const serve::ApiFailure& e) {
    return serve::error_reply(e.error(), context.model.compat);
  }
  FAIL("nothing was refused");
  return {};
}

}  // namespace lmd::test
