/// \file  tokenizer.model files made by hand: every flag, every refusal, damage of any kind.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/text/chat_templates.hpp>
#include <lmd/text/sentencepiece.hpp>
#include <lmd/text/sentencepiece_model_writer.hpp>

#include <limits>
#include <random>
#include <utility>

#include "text_support.hpp"

using namespace lmd::text;
using namespace text_support;

namespace {

std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7)
    out.push_back(static_cast<char>(value | 0x80));
  return out + static_cast<char>(value);
}
std::string number(int field, std::uint64_t value) {
  return varint(std::uint64_t(field) * 8) + varint(value);
}
std::string bytes(int field, const std::string& content) {
  return varint(std::uint64_t(field) * 8 + 2) + varint(content.size()) + content;
}
std::string piece(const std::string& text, float score = 0, PieceType type = PieceType::kNormal) {
  std::string raw(4, '\0');
  std::memcpy(raw.data(), &score, 4);
  return bytes(
      1, bytes(1, text) + varint(2 * 8 + 5) + raw + number(3, static_cast<std::uint64_t>(type)));
}

/// A trainer_spec of a BPE model.
std::string trainer(bool byte_fallback = false) {
  return bytes(2, number(3, 2) + number(35, byte_fallback ? 1 : 0));
}
/// A normalizer_spec.
std::string normalizer(bool prefix, bool trims) {
  return bytes(3, bytes(1, "identity") + number(3, prefix ? 1 : 0) + number(4, trims ? 1 : 0));
}
const std::string kUnknown = piece("<unk>", 0, PieceType::kUnknown);

SentencePieceTokenizer make(const std::string& file, const TokenizerTraits& traits = {}) {
  return SentencePieceTokenizer(parse_sentencepiece_model(file, "m"), traits);
}
Failure parse_failure(const std::string& file) {
  return failure_of([&] { (void)make(file); });
}

}  // namespace

TEST_CASE("the pair with the highest score is merged first, then the leftmost") {
  const auto tokenizer =
      make(kUnknown + piece("a", -9) + piece("b", -9) + piece("c", -9) + piece("ab", -2) +
           piece("bc", -1) + piece("aa", -3) + trainer() + normalizer(false, false));
  CHECK(tokenizer.encode("abc") == std::vector{1, 5});
  CHECK(tokenizer.encode("aaa") == std::vector{6, 1});
  CHECK(tokenizer.encode("").empty());
}

TEST_CASE("unused pieces take part in merging and are split again") {
  const auto tokenizer =
      make(kUnknown + piece("a", -9) + piece("b", -9) + piece("ab", -1, PieceType::kUnused) +
           piece("abb", -2) + trainer() + normalizer(false, false));
  CHECK(tokenizer.encode("ab") == std::vector{1, 2});
  CHECK(tokenizer.encode("abb") == std::vector{4});
}

TEST_CASE("a run of unknown characters is one id without byte pieces, and its bytes with them") {
  const std::string plain = kUnknown + piece("a") + normalizer(false, false);
  CHECK(make(plain + trainer()).encode("xyazx") == std::vector{0, 1, 0});
  std::string all = plain;
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    all += piece(name, 0, PieceType::kByte);
  }
  const auto tokenizer = make(all + trainer(true));
  CHECK(tokenizer.encode("é") == std::vector{2 + 0xC3, 2 + 0xA9});
  // Each ill-formed byte becomes U+FFFD, whose bytes are EF BF BD.
  CHECK(tokenizer.encode("\xE4\xBD") ==
        std::vector{2 + 0xEF, 2 + 0xBF, 2 + 0xBD, 2 + 0xEF, 2 + 0xBF, 2 + 0xBD});
  CHECK(tokenizer.decode(std::vector{2 + 0xC3, 2 + 0xA9, 1}) == "éa");
}

TEST_CASE("the file's flags decide about the first space and repeated spaces") {
  const std::string pieces =
      kUnknown + piece("\u2581", -1) + piece("a", -1) + piece("\u2581a", -2) + trainer();
  CHECK(make(pieces + normalizer(false, false)).encode(" a  a ") == std::vector{3, 1, 3, 1});
  CHECK(make(pieces + normalizer(true, false)).encode("a a") == std::vector{3, 3});
  CHECK(make(pieces + normalizer(true, true)).encode("  a   a  ") == std::vector{3, 3});
  CHECK(make(pieces + normalizer(true, true)).encode("   ").empty());
  const auto prefixed = make(pieces + normalizer(true, false));
  CHECK(prefixed.drops_first_space());
  CHECK(prefixed.decode(std::vector{3, 3}) == "a a");
  CHECK(make(pieces + normalizer(false, false)).decode(std::vector{3, 3}) == " a a");
}

TEST_CASE("an added token takes the piece away") {
  const std::string file = kUnknown + piece("[U]", 0, PieceType::kUserDefined) + piece("[", -1) +
                           piece("U", -1) + piece("]", -1) + trainer() + normalizer(false, false);
  CHECK(make(file).encode("[U]") == std::vector{1});
  const auto tokenizer = make(file, {.added = {{.id = 1, .content = "<go>"}}});
  CHECK(tokenizer.encode("[U]<go>") == std::vector{2, 3, 4, 1});
  CHECK(tokenizer.encode("<go>", {.parse_special = false}) == std::vector{0});
  CHECK(tokenizer.piece(1) == "<go>");
}

TEST_CASE("a million equal characters take n log n time") {
  const auto tokenizer =
      make(kUnknown + piece("a", -9) + piece("aa", -1) + piece("aaaa", -2) + piece("\u2581", -9) +
           piece("\u2581\u2581", -1) + trainer() + normalizer(false, false));
  for (const char c : {'a', ' ', 'x'}) {
    const double before = cpu_seconds();
    const auto ids = tokenizer.encode(std::string(1000000, c));
    CHECK(cpu_seconds() - before < kMaxSecondsOfMillion);
    CHECK(ids.size() == (c == 'a' ? 250000u : c == ' ' ? 500000u : 1u));
  }
}

TEST_CASE("what is not supported is refused by name") {
  const std::string good = kUnknown + piece("a") + trainer();
  const auto refused = [&](const std::string& file, const char* part) {
    const Failure failure = parse_failure(file);
    CAPTURE(failure.message);
    CHECK(failure.has_failed);
    CHECK(failure.code == lmd::ErrorCode::kFormat);
    CHECK(contains(failure.message, part));
  };
  CHECK_FALSE(parse_failure(good).has_failed);
  refused(kUnknown + bytes(2, number(3, 1)), "unigram (1)");
  refused(kUnknown + bytes(2, number(3, 77)), "77");
  refused(good + bytes(3, bytes(1, "nmt_nfkc") + bytes(2, "table")), "normalizer nmt_nfkc");
  refused(good + bytes(3, number(5, 0)), "escape_whitespaces");
  refused(kUnknown + bytes(2, number(3, 2) + number(24, 1)), "treat_whitespace_as_suffix");
  refused(good + bytes(5, bytes(2, "table")), "denormalizer");
  refused(good + kUnknown, "pieces 0 and 2");
  refused(good + piece("x\n\x1b") + piece("x\n\x1b"), "both \"x??\"");
  refused(good + piece("x\n", 0, PieceType::kByte), "is \"x?\", expected");
  refused(good + bytes(3, bytes(1, "x\n") + bytes(2, "table")), "normalizer x?");
  refused(good + piece("<u>", 0, PieceType::kUnknown), "type unknown");
  refused(piece("a") + trainer(), "no piece of type unknown");
  refused(kUnknown + piece("x", 0, PieceType::kByte) + trainer(), "<0x0A>");
  refused(kUnknown + trainer(true), "byte 0 has no piece");
  refused(kUnknown, "no trainer_spec");
  refused("", "byte 0");
  refused(good + piece("nan", std::nanf("")), "finite");
  refused(good + bytes(1, number(3, 9)), "type is 9");
  refused(good + bytes(1, ""), "no text");
}

TEST_CASE("hostile lengths name file, field and byte") {
  const auto message = [&](const std::string& file) { return parse_failure(file).message; };
  CHECK(message(varint(10) + varint(1ull << 40)) ==
        "m: byte 7: model: field 1 wants 1099511627776 bytes, 0 are left");
  CHECK(contains(message(varint(10) + varint(~0ull) + "abc"), "18446744073709551615"));
  CHECK(message("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF") ==
        "m: byte 1: model: field 1 has a number that does not end");
  CHECK(contains(message(std::string("\x0A\x80", 2)), "does not end"));
  CHECK(contains(message("\x0B"), "wire type 3"));
  CHECK(contains(message(std::string(1, '\0')), "no field has the key 0"));
  CHECK(contains(message(number(1, 5)), "wire type 0, expected 2"));
  CHECK(contains(message(varint(2 * 8 + 1) + "1234567"), "wants 8 bytes"));
}

TEST_CASE("truncated and bit-flipped files are read or refused, never more") {
  const std::string file = lmd::read_text_file(kGolden + "/internlm/tokenizer.model", 1 << 20);
  for (std::size_t n = 0; n < file.size(); n += 1 + n / 50) {
    const Failure failure = parse_failure(file.substr(0, n));
    if (n + 50 < file.size()) CHECK(failure.has_failed);
  }
  std::mt19937 random(1);
  int n_refused = 0;
  for (int i = 0; i < 400; ++i) {
    std::string damaged = file;
    for (int k = 0; k < 1 + i % 4; ++k) {
      char& byte = damaged[random() % damaged.size()];
      byte = static_cast<char>(byte ^ 1 << random() % 8);
    }
    const Failure failure = failure_of([&] {
      const auto tokenizer = make(damaged);
      (void)tokenizer.decode(tokenizer.encode("the language model 12 世界 ……"));
    });
    n_refused += failure.has_failed ? 1 : 0;
  }
  CHECK(n_refused > 50);
  CHECK(n_refused < 400);
}

namespace {

/// What the writer takes, owned.
struct Vocabulary {
  std::vector<std::string> tokens = {"<unk>", "<s>", "\u2581a", "a"};
  std::vector<float> scores = {0, 0, -1.5f, -300};
  std::vector<PieceType> types = {PieceType::kUnknown, PieceType::kControl, PieceType::kNormal,
                                  PieceType::kUserDefined};
  bool adds_dummy_prefix = false;

  void add(const std::string& token, float score, PieceType type) {
    tokens.push_back(token);
    scores.push_back(score);
    types.push_back(type);
  }
  [[nodiscard]] std::string format() const {
    return format_sentencepiece_model({.tokens = tokens,
                                       .scores = scores,
                                       .types = types,
                                       .adds_dummy_prefix = adds_dummy_prefix,
                                       .bos_id = 1});
  }
  [[nodiscard]] std::string failure() const {
    return failure_of([&] { (void)format(); }).message;
  }
};

}  // namespace

TEST_CASE("the writer's bytes, by hand") {
  const std::string minus_one(std::string(9, '\xff') + '\x01');
  const std::string trainer_spec = number(3, 2) + number(4, 4) + number(35, 0) + number(40, 0) +
                                   number(41, 1) + varint(std::uint64_t{42} * 8) + minus_one +
                                   varint(std::uint64_t{43} * 8) + minus_one + bytes(45, "<unk>") +
                                   bytes(46, "<s>") + bytes(47, "</s>") + bytes(48, "<pad>");
  const std::string pieces = piece("<unk>", 0, PieceType::kUnknown) +
                             piece("<s>", 0, PieceType::kControl) + piece("\u2581a", -1.5f) +
                             piece("a", -300, PieceType::kUserDefined) + bytes(2, trainer_spec);
  const auto normalizer_spec = [](int prefix) {
    return bytes(3, bytes(1, "identity") + number(3, prefix) + number(4, 0) + number(5, 1));
  };
  Vocabulary v;
  CHECK(v.format() == pieces + normalizer_spec(0));
  v.adds_dummy_prefix = true;
  CHECK(v.format() == pieces + normalizer_spec(1));
  CHECK(make(v.format()).encode("a a") == std::vector{0, 3, 0, 3});
}

TEST_CASE("InternLM2's vocabulary is known by the tokens of its tool calls") {
  Vocabulary v;
  for (const char* name : {"<|im_start|>", "<|action_start|>", "<|plugin|>"}) {
    CHECK_FALSE(internlm2_tokens_in(make(v.format())));
    v.add(name, 0, PieceType::kControl);
  }
  CHECK(internlm2_tokens_in(make(v.format())));
}

TEST_CASE("the writer refuses what no tokenizer.model can hold") {
  Vocabulary v;
  v.add("", 0, PieceType::kNormal);
  CHECK(v.failure() == "tokenizer: token 4 has no text");
  v.tokens[4] = "\xff";
  CHECK(v.failure() == "tokenizer: token 4 is not UTF-8");
  v.tokens[4] = "a";
  CHECK(v.failure() == "tokenizer: pieces 3 and 4 are both \"a\"");
  v.tokens[4] = "b";
  v.scores[4] = std::numeric_limits<float>::quiet_NaN();
  CHECK(contains(v.failure(), "tokenizer: token 4: the score is"));
  v.scores.pop_back();
  CHECK(contains(v.failure(), "5 tokens, 4 scores and 5 types"));
  v = {};
  v.types[0] = PieceType::kNormal;
  CHECK(v.failure() == "tokenizer: no piece of type unknown (2)");
  v = {};
  v.add("<0x00>", 0, PieceType::kByte);
  CHECK(v.failure() == "tokenizer: byte_fallback is true but byte 1 has no piece");
  v.tokens[4] = "<0xzz>";
  CHECK(contains(v.failure(), "byte piece 4 is \"<0xzz>\""));
  CHECK(contains(failure_of([] { (void)format_sentencepiece_model({}); }).message, "0 pieces"));
}
