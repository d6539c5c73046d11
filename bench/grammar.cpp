/// \file  Benchmark of constrained decoding: the time to find which tokens may come next.
///
///   grammar_bench --vocabulary=FOLDER [--vocabulary=FOLDER...]     FOLDER: a tokenizer
///
/// A document is read token by token; before each token the mask is made. Rows:  first answer of a grammar, nothing
/// known; first answer after TokenMasks::prepare; later answers; every mask by a walk through the trie, nothing kept.
/// `mask_us` is the median of all masks, `p99_us` and `max_us` likewise; the row's time is that of all masks of a document.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/text/json_schema_grammar.hpp>
#include <lmd/text/load_tokenizer.hpp>
#include <lmd/text/regex_grammar.hpp>
#include <lmd/text/token_mask.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

namespace {

using Clock = std::chrono::steady_clock;
using lmd::text::Grammar;
using lmd::text::TokenMasks;
using lmd::text::TokenTrie;

/// What is measured, and a text of it.
struct Case {
  const char* name;
  std::function<std::shared_ptr<const Grammar>()> compile;
  std::string document;
};

constexpr const char* kPerson =
    R"({"type":"object","properties":{"name":{"type":"string","maxLength":80},"age":{"type":"integer","minimum":0,"maximum":150},
"tags":{"type":"array","items":{"type":"string"}},"address":{"type":"object","properties":{"street":{"type":"string"},
"city":{"type":"string"},"zip":{"type":"string","pattern":"^[0-9]{5}$"}},"required":["street","city"]},
"status":{"enum":["active","inactive","pending"]},"score":{"type":"number","minimum":0,"maximum":1}},"required":["name","age","address"]})";
constexpr const char* kPersonText =
    R"({"name": "Maria García-Löwe", "age": 42, "tags": ["engineer", "chess player", "likes long walks by the sea"], "address": {"street": "12 Harbour Street, second floor", "city": "Lisbon", "zip": "11000"}, "status": "pending", "score": 0.875})";
constexpr const char* kObjectText =
    R"({"title": "A story", "世界": ["one", 2, 3.5e-3, null, true], "nested": {"deep": {"deeper": [{"a": 1}, {"b": "two words"}]}}, "note": "He said \"stop\", and then nothing.\nThe end."})";

std::vector<Case> cases() {
  return {
      {"schema", [] { return lmd::text::compile_json_schema(kPerson); }, kPersonText},
      {"object", [] { return lmd::text::compile_json_object(); }, kObjectText},
      {"regex", [] { return lmd::text::compile_regex("(\\w+ ){3,300}\\w+\\."); },
       "the quick brown fox jumps over the lazy dog and then goes home to sleep for a very long "
       "time."},
  };
}

enum class Memory { kNothing, kPrepared, kAll, kNever };

/// Seconds that each mask of one answer took.
std::vector<double> answer(TokenMasks& masks, const std::vector<int>& tokens) {
  std::vector<double> seconds;
  std::vector<std::uint32_t> words((static_cast<std::size_t>(masks.trie()->n_tokens()) + 31) / 32);
  lmd::text::GrammarMatcher matcher(masks.grammar());
  for (const int token : tokens) {
    const auto start = Clock::now();
    masks.fill(matcher, words);
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    const bool is_allowed = (words[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1u) != 0;
    if (!is_allowed || !matcher.advance(masks.trie()->bytes(token))) {
      throw std::runtime_error("a token of the document is not allowed");
    }
  }
  return seconds;
}

void run(benchmark::State& state,
         const Case& c,
         const std::shared_ptr<const TokenTrie>& trie,
         const std::vector<int>& tokens,
         Memory memory) {
  const auto grammar = c.compile();
  constexpr std::size_t kBytes = std::size_t{8} << 20;
  std::vector<double> all;
  TokenMasks kept(grammar, trie, memory == Memory::kNever ? 0 : kBytes);
  if (memory == Memory::kAll) (void)answer(kept, tokens);
  for (auto _ : state) {
    TokenMasks fresh(grammar, trie, kBytes);
    if (memory == Memory::kPrepared) fresh.prepare();
    const bool is_first = memory == Memory::kNothing || memory == Memory::kPrepared;
    const std::vector<double> seconds = answer(is_first ? fresh : kept, tokens);
    double sum = 0.0;
    for (const double s : seconds)
      sum += s;
    state.SetIterationTime(sum);
    all.insert(all.end(), seconds.begin(), seconds.end());
  }
  std::sort(all.begin(), all.end());
  state.counters["mask_us"] = 1e6 * all[all.size() / 2];
  state.counters["p99_us"] = 1e6 * all[all.size() * 99 / 100];
  state.counters["max_us"] = 1e6 * all.back();
  state.counters["tokens"] = static_cast<double>(tokens.size());
}

void run_compile(benchmark::State& state,
                 const Case& c,
                 const std::shared_ptr<const TokenTrie>& trie,
                 bool prepares) {
  for (auto _ : state) {
    TokenMasks masks(c.compile(), trie);
    if (prepares) masks.prepare();
    state.counters["KiB"] = static_cast<double>(masks.n_bytes()) / 1024;
  }
}

void add_rows(const std::string& folder) {
  const auto tokenizer = lmd::text::load_tokenizer(folder);
  const auto trie = std::make_shared<const TokenTrie>(*tokenizer);
  const std::string size = std::to_string(trie->n_tokens() / 1000) + "k";
  constexpr std::pair<const char*, Memory> kMemories[] = {{"first", Memory::kNothing},
                                                          {"prepared", Memory::kPrepared},
                                                          {"later", Memory::kAll},
                                                          {"walk", Memory::kNever}};
  for (const Case& c : cases()) {
    const std::vector<int> tokens = tokenizer->encode(c.document, {.parse_special = false});
    const std::string name = std::string(c.name) + "/" + size + "/";
    for (const auto& [word, memory] : kMemories) {
      const Memory kind = memory;
      benchmark::RegisterBenchmark(
          (name + word).c_str(),
          [=](benchmark::State& state) { run(state, c, trie, tokens, kind); })
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
    }
    for (const bool prepares : {false, true}) {
      benchmark::RegisterBenchmark(
          (name + (prepares ? "compile_and_prepare" : "compile")).c_str(),
          [=](benchmark::State& state) { run_compile(state, c, trie, prepares); })
          ->Unit(benchmark::kMicrosecond);
    }
  }
}

}  // namespace

int main(int argc, char** argv) try {
  constexpr const char* kFlag = "--vocabulary=";
  int kept = 1;
  std::vector<std::string> folders;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], kFlag, std::strlen(kFlag)) == 0) {
      folders.emplace_back(argv[i] + std::strlen(kFlag));
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv) || folders.empty()) {
    std::fputs("usage: grammar_bench --vocabulary=FOLDER [--vocabulary=FOLDER...]\n", stderr);
    return 1;
  }
  for (const std::string& folder : folders)
    add_rows(folder);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
