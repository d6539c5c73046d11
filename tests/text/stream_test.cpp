/// \file  Streams: characters are never cut, stop strings are found across pieces.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/text/load_tokenizer.hpp>
#include <lmd/text/stop.hpp>
#include <lmd/text/utf8_stream.hpp>

#include <algorithm>
#include <random>

#include "text_support.hpp"

using namespace lmd::text;
using namespace text_support;

namespace {

/// The text and its pieces of random length through `stream`.
template <class Stream>
std::string in_pieces(Stream&& stream, std::string_view text, std::mt19937& random) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t n = 1 + random() % 4;
    out += stream.feed(text.substr(at, n));
    at += n;
  }
  return out + stream.flush();
}

/// Where the first stop string ends, found the slow way; npos when there is none.
std::size_t first_end(std::string_view text,
                      const std::vector<std::string>& stops,
                      std::size_t& begin) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    begin = std::string::npos;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) begin = std::min(begin, end - stop.size());
    }
    if (begin != std::string::npos) return end;
  }
  return std::string::npos;
}

}  // namespace

TEST_CASE("a character comes out when its last byte does") {
  Utf8Stream stream;
  CHECK(stream.feed("a\xF0") == "a");
  CHECK(stream.feed("\x9F") == "");
  CHECK(stream.feed("\x90") == "");
  CHECK(stream.feed("\x89"
                    "b") == "🐉b");
  CHECK(stream.flush() == "");
  CHECK(stream.feed("\xE4\xBD") == "");
  CHECK(stream.flush() == "\uFFFD");
  CHECK(stream.flush() == "");
}

TEST_CASE("ill-formed bytes become U+FFFD per maximal subpart, however they are cut") {
  // Unicode 15, table 3-8: the last line of "U+FFFD for truncated sequences" and others.
  const std::pair<std::string, std::string> cases[] = {
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"
       "A",
       "\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82"
       "A",
       "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},
      {"\xF4\x91\x92\x93\xFF"
       "A",
       "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"\x80", "\uFFFD"},
      {"", ""},
  };
  std::mt19937 random(2);
  for (const auto& [bytes, text] : cases) {
    CHECK(detail::replace_invalid(bytes) == text);
    for (int i = 0; i < 10; ++i)
      CHECK(in_pieces(Utf8Stream(), bytes, random) == text);
  }
  for (int i = 0; i < 2000; ++i) {
    std::string bytes;
    const char kinds[] = "\x80\xBF\xC3\xE2\x82\xAC\xF0\x9F\x98\x80\xED\xA0\xF4\x90 a";
    for (int k = 0; k < 12; ++k)
      bytes += kinds[random() % (sizeof kinds - 1)];
    CHECK(in_pieces(Utf8Stream(), bytes, random) == detail::replace_invalid(bytes));
  }
}

TEST_CASE("a token stream gives the decoded text") {
  for (const char* name : {"internlm", "prefix", "llama", "gpt2", "qwen2"}) {
    const auto tokenizer = load_tokenizer(kGolden + "/" + name);
    std::mt19937 random(3);
    for (int i = 0; i < 300; ++i) {
      std::vector<int> ids(random() % 12);
      for (int& id : ids)
        id = static_cast<int>(random() % (tokenizer->vocab_size() + 1));
      for (const bool skip_special : {true, false}) {
        TokenStream stream(*tokenizer, skip_special);
        std::string text;
        for (const int id : ids) {
          const std::string part = stream.feed(id);
          CHECK(detail::is_utf8(part));
          text += part;
        }
        CHECK(text + stream.flush() == tokenizer->decode(ids, skip_special));
      }
    }
  }
}

TEST_CASE("InternLM2: four byte tokens are one emission") {
  if (!has_shared("internlm2-chat-7b")) return;
  const auto tokenizer = load_tokenizer(kShared + "/internlm2-chat-7b");
  TokenStream stream(*tokenizer, true);
  CHECK(stream.feed(243) == "");
  CHECK(stream.feed(162) == "");
  CHECK(stream.feed(147) == "");
  CHECK(stream.feed(140) == "🐉");
  CHECK(stream.feed(243) == "");
  CHECK(stream.flush() == "\uFFFD");
}

TEST_CASE("only what may still become a stop string is held back") {
  const StopStrings stops({"<|im_end|>", "\n\n"});
  StopMatcher matcher(stops);
  CHECK(matcher.feed("Hello <") == "Hello ");
  CHECK(matcher.feed("b\n") == "<b");
  CHECK(matcher.feed("<|im_") == "\n");
  CHECK_FALSE(matcher.is_stopped());
  CHECK(matcher.feed("end|> and more") == "");
  CHECK(matcher.is_stopped());
  CHECK(matcher.matched() == 0);
  CHECK(matcher.feed("again") == "");
  CHECK(matcher.flush() == "");
}

TEST_CASE("without a match everything comes out in the end") {
  const StopStrings stops({"stop"});
  StopMatcher matcher(stops);
  CHECK(matcher.feed("sto") == "");
  CHECK(matcher.flush() == "sto");
  CHECK_FALSE(matcher.is_stopped());
  const StopStrings none({});
  CHECK(none.empty());
  CHECK_FALSE(stops.empty());
  StopMatcher open(none);
  CHECK(open.feed("anything") == "anything");
}

TEST_CASE("the string complete first wins, of those that end together the longest") {
  const StopStrings stops({"bc", "abcd", "abc"});
  StopMatcher matcher(stops);
  CHECK(matcher.feed("xabcd") == "x");
  CHECK(matcher.matched() == 2);
  CHECK(failure_of([] { StopStrings({"a", ""}); }).code == lmd::ErrorCode::kConfig);
}

TEST_CASE("stop strings agree with a search in the whole text") {
  std::mt19937 random(4);
  const auto word = [&](std::size_t n) {
    std::string text;
    while (text.size() < n)
      text += static_cast<char>('a' + random() % 3);
    return text;
  };
  int n_stopped = 0;
  for (int i = 0; i < 5000; ++i) {
    std::vector<std::string> strings(1 + random() % 4);
    for (std::string& s : strings)
      s = word(1 + random() % 5);
    const std::string text = word(random() % 30);
    std::size_t begin = 0;
    const bool is_found = first_end(text, strings, begin) != std::string::npos;
    const StopStrings stops(strings);
    StopMatcher matcher(stops);
    CHECK(in_pieces(matcher, text, random) == (is_found ? text.substr(0, begin) : text));
    CHECK(matcher.is_stopped() == is_found);
    if (is_found) CHECK(text.substr(begin).starts_with(strings[std::size_t(matcher.matched())]));
    n_stopped += is_found ? 1 : 0;
  }
  CHECK(n_stopped > 500);
  CHECK(n_stopped < 4900);
}

TEST_CASE("many stop strings and a text that nearly matches them take linear time") {
  std::vector<std::string> strings;
  for (int i = 1; i <= 300; ++i)
    strings.push_back(std::string(std::size_t(i) * 3, 'a') + "b");
  const StopStrings stops(strings);
  StopMatcher matcher(stops);
  const double before = cpu_seconds();
  std::size_t n = 0;
  for (int i = 0; i < 1000000; ++i)
    n += matcher.feed("a").size();
  CHECK(n == 1000000 - 900);
  CHECK(cpu_seconds() - before < kMaxSecondsOfMillion);
}
