/// \file  Normal form C equals the reference package's, character classes equal the regular expressions'.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/text/nfc.hpp>
#include <lmd/text/unicode.hpp>

#include "text_support.hpp"

using namespace lmd::text;
using namespace text_support;

TEST_CASE("texts of the golden file") {
  const auto cases = lmd::json::parse_file(kGolden + "/nfc.json");
  REQUIRE(cases.size() == 200);
  int n_changed = 0;
  for (const auto& entry : cases) {
    const std::string text = from_hex(entry[0].get<std::string>());
    const std::string expected = from_hex(entry[1].get<std::string>());
    CAPTURE(text);
    CHECK(nfc(text) == expected);
    CHECK(nfc(expected) == expected);
    n_changed += text != expected ? 1 : 0;
  }
  CHECK(n_changed > 50);
}

TEST_CASE("composition, order of marks, exclusions and Hangul") {
  CHECK(nfc("plain") == "plain");
  CHECK(nfc("e\u0301") == "é");
  CHECK(nfc("e\u0323\u0302") == "ệ");
  CHECK(nfc("e\u0302\u0323") == "ệ");
  CHECK(nfc("a\u0328\u0301") == "ą\u0301");
  CHECK(nfc("\u0915\u093C") == "\u0915\u093C");  // excluded from composition
  CHECK(nfc("\u0958") == "\u0915\u093C");
  CHECK(nfc("\u212B") == "Å");
  CHECK(nfc("\u1100\u1161\u11A8") == "각");
  CHECK(nfc("\uAC00\u11A7") == "\uAC00\u11A7");  // no tail
  CHECK(nfc("e\xCC") == "e\uFFFD");
  CHECK(nfc("e\u0345\u0323") == "ẹ\u0345");
  CHECK(nfc("e\u0345\u0D3C") == "e\u0345\u0D3C");  // a mark since Unicode 10
}

TEST_CASE("every syllable survives decomposition and composition") {
  for (std::uint32_t c = 0xAC00; c < 0xAC00 + 11172; ++c) {
    std::vector<detail::Mark> marks;
    detail::append_decomposed(c, marks);
    std::string parts;
    std::string whole;
    for (const detail::Mark& mark : marks)
      detail::append_utf8(mark.value, parts);
    detail::append_utf8(c, whole);
    CHECK(nfc(parts) == whole);
  }
}

TEST_CASE("a million marks take n log n time") {
  std::string text = "e";
  for (int i = 0; i < 500000; ++i)
    text += i % 2 == 0 ? "\u0323" : "\u0301";
  const double before = cpu_seconds();
  const std::string normal = nfc(text);
  CHECK(normal.size() == text.size());
  CHECK(normal.starts_with("ẹ\u0323"));
  CHECK(normal.ends_with("\u0301\u0301"));
  CHECK(cpu_seconds() - before < kMaxSecondsOfMillion);
}

TEST_CASE("tables ascend, and classes are where they should be") {
  using namespace lmd::text::detail;
  for (std::size_t i = 1; i < kClassRanges.size(); ++i) {
    CHECK(kClassRanges[i - 1].last < kClassRanges[i].first);
  }
  for (std::size_t i = 1; i < kMarkRanges.size(); ++i) {
    CHECK(kMarkRanges[i - 1].last < kMarkRanges[i].first);
  }
  for (std::size_t i = 1; i < kPairs.size(); ++i)
    CHECK(kPairs[i - 1].from < kPairs[i].from);
  CHECK(class_of(0x85) == CharClass::kSpace);
  CHECK(class_of(0x3000) == CharClass::kSpace);
  CHECK(class_of(0x200B) == CharClass::kOther);
  CHECK(class_of(0x4E2D) == CharClass::kLetter);
  CHECK(class_of(0x2167) == CharClass::kNumber);
  CHECK(class_of(0x1F600) == CharClass::kOther);
  CHECK(class_of(0x10FFFF) == CharClass::kOther);
  CHECK(class_of(0) == CharClass::kOther);
}
