/// \file  Compiles grammars from standard input, and prints texts that random walks over their masks make.
///
///   grammar_driver FOLDER     FOLDER: a tokenizer
///
/// One JSON object a line: {"kind": "schema"|"regex"|"object", "text": ..., "seeds": N, "accept": [TEXT...]}. Out, a line
/// each: {"error": MESSAGE} or {"texts": [N texts], "accepted": [a boolean for each of accept]}.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/json/json.hpp>
#include <lmd/text/grammar_matcher.hpp>
#include <lmd/text/json_schema_grammar.hpp>
#include <lmd/text/load_tokenizer.hpp>
#include <lmd/text/regex_grammar.hpp>
#include <lmd/text/token_mask.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

using lmd::json::Json;

namespace {

using Grammar = std::shared_ptr<const lmd::text::Grammar>;

Grammar compile(const std::string& kind, const std::string& text) {
  if (kind == "regex") return lmd::text::compile_regex(text);
  if (kind == "object") return lmd::text::compile_json_object();
  return lmd::text::compile_json_schema(text);
}

/// One answer: any allowed token with equal probability, but what ends strings, arrays and objects more often, the
/// more so in a long answer, where tokens of one byte are more frequent, too: one of them leads on where words do
/// not. Ends where it can with probability 1/4.
class Walk {
 public:
  Walk(lmd::text::TokenMasks& masks, std::uint32_t seed)
      : masks_(&masks), matcher_(masks.grammar()), random_(seed) {
    words_.resize((static_cast<std::size_t>(masks.trie()->n_tokens()) + 31) / 32);
  }

  std::string run() {
    std::string text;
    for (int n = 0; n < kMaxTokens; ++n) {
      masks_->fill(matcher_, words_);
      const bool is_late = n > kLate;
      if (matcher_.can_end() && (is_late || random_() % 4 == 0)) return text;
      const int token = draw(random_() % 4 < (is_late ? 3 : 1), is_late && random_() % 2 == 0);
      if (token < 0) break;
      const std::string_view bytes = masks_->trie()->bytes(token);
      if (!matcher_.advance(bytes)) return text + "<an allowed token was refused>";
      text += bytes;
      follow(bytes);
    }
    return matcher_.can_end() ? text : text + "<no end>";
  }

 private:
  static constexpr int kLate = 60;
  static constexpr int kMaxTokens = 6000;

  void follow(std::string_view bytes) {
    for (const char c : bytes) {
      if (c == '"' && !is_escaped_) in_string_ = !in_string_;
      is_escaped_ = in_string_ && c == '\\' && !is_escaped_;
    }
  }

  int draw(bool wants_end, bool wants_short) {
    std::vector<int> allowed;
    std::vector<int> ending;
    std::vector<int> single;  // bytes
    for (int token = 0; token < masks_->trie()->n_tokens(); ++token) {
      if ((words_[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1) == 0) continue;
      allowed.push_back(token);
      const std::string_view bytes = masks_->trie()->bytes(token);
      if (in_string_ ? bytes == "\"" : bytes == "}" || bytes == "]") ending.push_back(token);
      if (bytes.size() == 1) single.push_back(token);
    }
    const std::vector<int>& any = wants_short && !single.empty() ? single : allowed;
    const std::vector<int>& from = wants_end && !ending.empty() ? ending : any;
    return from.empty() ? -1 : from[random_() % from.size()];
  }

  lmd::text::TokenMasks* masks_;
  lmd::text::GrammarMatcher matcher_;
  std::mt19937 random_;
  std::vector<std::uint32_t> words_;
  bool in_string_ = false;
  bool is_escaped_ = false;  // the next byte
};

Json answer(const Json& request, const std::shared_ptr<const lmd::text::TokenTrie>& trie) {
  Json out;
  try {
    const Grammar grammar = compile(request["kind"], request["text"]);
    lmd::text::TokenMasks masks(grammar, trie);
    out["texts"] = Json::array();
    for (int seed = 0; seed < request["seeds"].get<int>(); ++seed)
      out["texts"].push_back(Walk(masks, static_cast<std::uint32_t>(seed)).run());
    out["accepted"] = Json::array();
    for (const Json& text : request["accept"]) {
      lmd::text::GrammarMatcher matcher(grammar);
      out["accepted"].push_back(matcher.advance(text.get_ref<const std::string&>()) &&
                                matcher.can_end());
    }
  } catch (const lmd::Error& e) {
    out = {{"error", e.what()}};
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: grammar_driver FOLDER\n", stderr);
    return 2;
  }
  try {
    const auto trie =
        std::make_shared<const lmd::text::TokenTrie>(*lmd::text::load_tokenizer(argv[1]));
    std::string line;
    while (std::getline(std::cin, line)) {
      const Json out = answer(lmd::json::parse(line, "request"), trie);
      std::puts(out.dump(-1, ' ', true, Json::error_handler_t::replace).c_str());
    }
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "grammar_driver: %s\n", e.what());
    return 1;
  }
}
