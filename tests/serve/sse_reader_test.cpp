/// \file  Tests of the readers of lines and of server-sent events.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/sse_reader.hpp>

#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::serve;

namespace {

/// "name|data" of each event; the bytes come in pieces that end at `cuts`.
std::vector<std::string> events_of(std::string_view bytes,
                                   const std::vector<std::size_t>& cuts = {}) {
  SseReader reader;
  std::vector<std::string> events;
  const auto add = [&](const SseEvent& e) { events.push_back(e.name + '|' + e.data); };
  std::size_t begin = 0;
  for (const std::size_t cut : cuts) {
    reader.feed(bytes.substr(begin, cut - begin), add);
    begin = cut;
  }
  reader.feed(bytes.substr(begin), add);
  reader.finish(add);
  return events;
}

std::vector<std::string> lines_of(std::string_view bytes, std::size_t step) {
  LineReader reader;
  std::vector<std::string> lines;
  const auto add = [&](std::string_view line) { lines.emplace_back(line); };
  for (std::size_t i = 0; i < bytes.size(); i += step)
    reader.feed(bytes.substr(i, step), add);
  reader.finish(add);
  return lines;
}

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("lines end with LF, CR LF or CR, wherever the pieces end") {
  for (std::size_t step = 1; step < 30; ++step) {
    CAPTURE(step);
    CHECK(lines_of("a\nbc\r\n\r\nd\re\n\nf", step) == Texts{"a", "bc", "", "d", "e", "", "f"});
    CHECK(lines_of("\r\r\n\n", step) == Texts{"", "", ""});
    CHECK(lines_of("{\"a\":1}\n{\"b\":2}\n", step) == Texts{"{\"a\":1}", "{\"b\":2}"});
  }
}

TEST_CASE("a line has a bound, and one of just that length is read") {
  LineReader reader(8);
  std::vector<std::string> lines;
  const auto add = [&](std::string_view line) { lines.emplace_back(line); };
  reader.feed("12345678\n1234", add);
  reader.feed("5678\n", add);
  CHECK(lines == Texts{"12345678", "12345678"});
  CHECK_THROWS_AS(reader.feed("123456789", add), ClientError);
  LineReader second(8);
  second.feed("1234567", add);
  CHECK_THROWS_AS(second.feed("89\n", add), ClientError);
}

TEST_CASE("the standard's own examples") {
  CHECK(events_of("data: This is the first message.\n\ndata: This is the second message, it\n"
                  "data: has two lines.\n\ndata: This is the third message.\n\n") ==
        Texts{"|This is the first message.", "|This is the second message, it\nhas two lines.",
              "|This is the third message."});
  CHECK(events_of("event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n") ==
        Texts{"add|73857293", "remove|2153"});
  CHECK(events_of(
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third "
            "event\n\n") == Texts{"|first event", "|second event", "| third event"});
  CHECK(events_of("data\n\ndata\ndata\n\n") == Texts{"|", "|\n"});
  CHECK(events_of("data:test\n\ndata: test\n\n") == Texts{"|test", "|test"});
}

TEST_CASE("what is no event") {
  CHECK(events_of("").empty());
  CHECK(events_of("\n\n\n").empty());
  CHECK(events_of("event: x\n\n").empty());
  CHECK(events_of(": ping\n\n: ping\n\n").empty());
  CHECK(events_of("id: 1\nretry: 10\nfoo: bar\nDATA: x\n data: x\n\n").empty());
  CHECK(events_of("event: x\n\ndata: y\n\n") == Texts{"|y"});  // a name does not outlive its block
}

TEST_CASE("a mark of the byte order is read past at the beginning alone") {
  CHECK(events_of("\xEF\xBB\xBF"
                  "data: x\n\n\xEF\xBB\xBF"
                  "data: y\n\n") == Texts{"|x"});
}

TEST_CASE("an event without its blank line at the end; a line that was begun is dropped") {
  CHECK(events_of("data: x\n\ndata: [DONE]\n") == Texts{"|x", "|[DONE]"});
  CHECK(events_of("data: x\n\ndata: {\"half") == Texts{"|x"});
}

TEST_CASE("a transcript cut at every place, and at every two places") {
  const std::string transcript =
      "data: {\"a\":\"\xE4\xBD\xA0\"}\r\n\r\n: ping\n\nevent: e\ndata: 1\ndata: "
      "2\n\ndata:\rdata:x\r\r"
      "data: [DONE]\n\n";
  const Texts expected = {"|{\"a\":\"\xE4\xBD\xA0\"}", "e|1\n2", "|\nx", "|[DONE]"};
  CHECK(events_of(transcript) == expected);
  for (std::size_t i = 0; i <= transcript.size(); ++i) {
    for (std::size_t j = i; j <= transcript.size(); ++j) {
      CAPTURE(i);
      CAPTURE(j);
      CHECK(events_of(transcript, {i, j}) == expected);
    }
  }
  std::vector<std::size_t> all;
  for (std::size_t i = 0; i < transcript.size(); ++i)
    all.push_back(i);
  CHECK(events_of(transcript, all) == expected);
}

TEST_CASE("an event's data has a bound") {
  SseReader reader(16);
  const auto ignore = [](const SseEvent&) {};
  reader.feed("data: 0123456789\n\n", ignore);
  reader.feed("data: 0123456789\n", ignore);
  CHECK_THROWS_AS(reader.feed("data: 0123456789\n", ignore), ClientError);
}
