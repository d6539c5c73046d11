/// \file  Text of one answer: characters held back, stop strings, stop tokens.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/answer_text.hpp>

#include "api_case.hpp"

using namespace lmd;
using namespace lmd::test;

namespace {

/// The texts of a token each, and the end.
std::vector<std::string> pieces(const serve::AnswerRules& rules,
                                const std::vector<int>& ids,
                                engine::FinishReason finish) {
  const text::StopStrings stops(rules.stop);
  serve::AnswerText text(rules, stops);
  std::vector<std::string> out;
  for (std::size_t i = 0; i < ids.size() && !text.has_ended(); ++i) {
    const bool is_last = i + 1 == ids.size();
    out.push_back(text.feed({.answer = 0,
                             .token = ids[i],
                             .finish = is_last ? finish : engine::FinishReason::kNone,
                             .logprobs = {}})
                      .text);
  }
  return out;
}

serve::AnswerRules rules(std::vector<std::string> stop = {}) {
  serve::AnswerRules result;
  result.tokenizer = &test_tokenizer();
  result.stop = std::move(stop);
  return result;
}

using Pieces = std::vector<std::string>;
constexpr auto kLength = engine::FinishReason::kLength;
constexpr auto kStop = engine::FinishReason::kStop;

}  // namespace

TEST_CASE("a character comes when it is whole, one that is cut off at the end as U+FFFD") {
  CHECK(pieces(rules(), {0xE4, 0xBD, 0xA0, 'a'}, kLength) == Pieces{"", "", "\xE4\xBD\xA0", "a"});
  CHECK(pieces(rules(), {'a', 0xE4, 0xBD}, kLength) == Pieces{"a", "", "\xEF\xBF\xBD"});
}

TEST_CASE("what may become a stop string is held back, and shown when it does not") {
  CHECK(pieces(rules({"abc"}), {'x', 'a', 'b', 'd'}, kLength) == Pieces{"x", "", "", "abd"});
  CHECK(pieces(rules({"abc"}), {'x', 'a', 'b'}, kLength) == Pieces{"x", "", "ab"});
  CHECK(pieces(rules({"abc"}), {'x', 'a', 'b', 'c', 'y'}, kLength) == Pieces{"x", "", "", ""});
}

TEST_CASE("what ended the answer is shown only when that is asked for") {
  const int im_end = *test_tokenizer().id_of("<|im_end|>");
  serve::AnswerRules shown = rules({"bc"});
  shown.include_stop = true;
  CHECK(pieces(shown, {'a', 'b', 'c'}, kLength) == Pieces{"a", "", "bc"});
  CHECK(pieces(rules(), {'a', im_end}, kStop) == Pieces{"a", ""});
  CHECK(pieces(shown, {'a', im_end}, kStop) == Pieces{"a", ""});
  shown.skip_special_tokens = false;
  CHECK(pieces(shown, {'a', im_end}, kStop) == Pieces{"a", "<|im_end|>"});
}

TEST_CASE("stop strings count from min_new_tokens on") {
  serve::AnswerRules later = rules({"b"});
  later.min_new_tokens = 2;
  CHECK(pieces(later, {'a', 'b', 'c', 'b', 'd'}, kLength) == Pieces{"a", "b", "c", ""});
}

TEST_CASE("tokens are counted without the stop token, and nothing is after the end") {
  const serve::AnswerRules r = rules({"c"});
  const text::StopStrings stops(r.stop);
  serve::AnswerText text(r, stops);
  CHECK(text.feed({.answer = 0, .token = 'a', .logprobs = {}}).token->id == 'a');
  const auto last = text.feed({.answer = 0, .token = 'c', .logprobs = {}});
  CHECK(last.finish == kStop);
  CHECK(text.has_ended_early());
  CHECK(text.n_tokens() == 2);
  const auto late =
      text.feed({.answer = 0, .finish = engine::FinishReason::kCancelled, .logprobs = {}});
  CHECK(late.finish == engine::FinishReason::kNone);
  serve::AnswerText other(r, stops);
  CHECK_FALSE(other.feed({.answer = 0, .token = 300, .finish = kStop, .logprobs = {}}).token);
  CHECK(other.n_tokens() == 0);
}
