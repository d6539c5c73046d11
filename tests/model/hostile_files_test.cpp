/// \file  Damaged and hostile files: each ends in one line that names the file, or loads.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/error.hpp>
#include <lmd/model/convert.hpp>
#include <lmd/model/hf_config.hpp>
#include <lmd/model/load_weights.hpp>

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "test_files.hpp"
#include "tiny_checkpoint.hpp"
#include "tiny_gguf.hpp"
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace {

using namespace lmd;
using namespace lmd::model;
using namespace lmd::test;

/// While it lives, the process may take 64 MB more address space than it has: a number out of a
/// file that became a size would hit the limit. Sanitizers need the address space themselves.
class MemoryLimit {
 public:
  MemoryLimit() {
    ::getrlimit(RLIMIT_AS, &before_);
#if !defined(LMD_SANITIZED) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    long pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    rlimit limit = before_;
    limit.rlim_cur = static_cast<rlim_t>(pages * ::sysconf(_SC_PAGESIZE) + (64 << 20));
    ::setrlimit(RLIMIT_AS, &limit);
#endif
  }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;
  ~MemoryLimit() {
    ::setrlimit(RLIMIT_AS, &before_);
  }

 private:
  rlimit before_{};
};

/// A file in a folder, what it should hold, and how it is read.
struct Subject {
  std::string path;
  std::string bytes;
  std::size_t interesting = 0;  ///< bytes from the start that are worth every mutation
  std::function<void()> read;
};

struct Outcome {
  int loaded = 0;
  int refused = 0;
};

/// Overwrites a file in place. Some file systems flush to disk whenever a file is emptied and
/// rewritten, which over thousands of rounds takes minutes.
void overwrite(const std::string& path, const std::string& bytes) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) FAIL(path);
  const bool written =
      ::pwrite(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()) &&
      ::ftruncate(fd, static_cast<off_t>(bytes.size())) == 0;
  ::close(fd);
  if (!written) FAIL(path);
}

/// Writes the mutated bytes, reads, and checks how that ends.
void attempt(const Subject& subject, const std::string& bytes, Outcome& outcome) {
  overwrite(subject.path, bytes);
  const std::string folder = subject.path.substr(0, subject.path.rfind('/'));
  try {
    subject.read();
    ++outcome.loaded;
  } catch (const Error& e) {
    const std::string what = e.what();
    ++outcome.refused;
    const bool is_good = contains(what, folder) && !contains(what, "\n") && what.size() < 1000 &&
                         (e.code() == ErrorCode::kFormat || e.code() == ErrorCode::kConfig ||
                          e.code() == ErrorCode::kIo);
    if (!is_good) FAIL_CHECK(what);  // CHECK would print a line for each of thousands
  }
}

/// Every truncation, every byte overwritten by telling values, every 8 bytes by telling sizes.
Outcome mutate_everywhere(const Subject& subject) {
  const MemoryLimit limit;
  Outcome outcome;
  for (std::size_t n = 0; n < subject.interesting; ++n)
    attempt(subject, subject.bytes.substr(0, n), outcome);
  for (std::size_t at = 0; at < subject.interesting; ++at) {
    for (const char byte : {'\0', '\xff', '"', '}', '9', '\n'}) {
      std::string bytes = subject.bytes;
      bytes[at] = byte;
      attempt(subject, bytes, outcome);
    }
    for (const std::uint64_t size :
         {UINT64_MAX, UINT64_MAX / 2, UINT64_C(1) << 40, UINT64_C(1) << 31, UINT64_C(0xffffff)}) {
      std::string bytes = subject.bytes;
      bytes.replace(at, 8, bytes_of(size));
      attempt(subject, bytes.substr(0, subject.bytes.size()), outcome);
    }
  }
  return outcome;
}

/// One to eight flipped bits at random places, the same on every run.
Outcome flip_bits(const Subject& subject, int rounds) {
  const MemoryLimit limit;
  std::mt19937 random(20240813);
  Outcome outcome;
  for (int i = 0; i < rounds; ++i) {
    std::string bytes = subject.bytes;
    const std::uint32_t flips = 1 + random() % 8;
    for (std::uint32_t f = 0; f < flips; ++f) {
      const std::size_t at = random() % subject.interesting;
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
    }
    attempt(subject, bytes, outcome);
  }
  return outcome;
}

void load_folder(const std::string& folder) {
  const HfConfig config = read_config(folder);
  (void)read_weight_shapes(folder, config.model, config.quantization);
  (void)load_weights(folder, config.model, config.quantization);
}

}  // namespace

TEST_CASE("hostile safetensors") {
  const TemporaryFolder folder;
  TinyCheckpoint::llama().write(folder.path);
  Subject s{folder / "model.safetensors", TinyCheckpoint::llama().safetensors_bytes(), 0,
            [&] { load_folder(folder.path); }};
  std::uint64_t header = 0;
  std::memcpy(&header, s.bytes.data(), sizeof header);
  s.interesting = 8 + static_cast<std::size_t>(header);
  const Outcome everywhere = mutate_everywhere(s);
  CHECK(everywhere.refused > 5000);
  const Outcome flipped = flip_bits(s, 5000);
  CHECK(flipped.refused > 4000);
  Outcome cut;
  for (std::size_t n = s.interesting; n < s.bytes.size(); n += 997)
    attempt(s, s.bytes.substr(0, n), cut);
  CHECK(cut.loaded == 0);
  CHECK(cut.refused > 10);
}

TEST_CASE("hostile shard index") {
  const TemporaryFolder folder;
  write_file(folder / "a.safetensors", SafetensorsBytes().add_constant("t", {2}, 1).bytes());
  write_file(folder / "b.safetensors", SafetensorsBytes().add_constant("u", {2}, 1).bytes());
  Subject s{
      folder / "model.safetensors.index.json",
      R"({"metadata":{"total_size":16},"weight_map":{"t":"a.safetensors","u":"b.safetensors"}})", 0,
      [&] { const SafetensorsModel model(folder.path); }};
  s.interesting = s.bytes.size();
  CHECK(mutate_everywhere(s).refused > 500);
  CHECK(flip_bits(s, 3000).refused > 2000);
}

TEST_CASE("hostile config.json") {
  const TemporaryFolder folder;
  TinyCheckpoint c = TinyCheckpoint::internlm2();
  c.config["rope_scaling"] = {{"type", "dynamic"}, {"factor", 2.0}};
  c.write(folder.path);
  Subject s{folder / "config.json", c.config.dump(), 0, [&] { load_folder(folder.path); }};
  s.interesting = s.bytes.size();
  CHECK(mutate_everywhere(s).refused > 3000);
  CHECK(flip_bits(s, 5000).refused > 3000);
  Outcome outcome;
  const MemoryLimit limit;
  for (const std::string& bytes :
       {std::string(1 << 20, '['), std::string(1 << 20, '{'), std::string("{\"a\":") + "1e99999}",
        std::string("\xef\xbb\xbf"), std::string("\xff\xfe{\0}\0", 6), std::string("null"),
        std::string("{\"architectures\":NaN}"), std::string(1 << 20, '\0')})
    attempt(s, bytes, outcome);
  CHECK(outcome.loaded == 0);
}

TEST_CASE("every key of config.json with every kind of value") {
  const TemporaryFolder folder;
  const TinyCheckpoint c = TinyCheckpoint::internlm2();
  c.write(folder.path);
  const Subject s{folder / "config.json", "", 0, [&] { load_folder(folder.path); }};
  Outcome outcome;
  for (const auto& [key, ignored] : c.config.items()) {
    for (const char* value : {"null", "true", "-1", "0", "1", "2147483648", "9223372036854775807",
                              "18446744073709551615", "1e300", "-0.0", "0.5", "\"\"", "\"x\\ny\"",
                              "[]", "{}", "[[[[1]]]]", "{\"type\":7}", "[1e300]"}) {
      json::Json changed = c.config;
      changed[key] = json::Json::parse(value);
      attempt(s, changed.dump(), outcome);
    }
  }
  CHECK(outcome.refused > 150);
}

TEST_CASE("hostile GGUF") {
  const TemporaryFolder folder;
  const TinyGguf gguf;
  GgufBytes all = gguf.values;
  for (const auto& [name, t] : gguf.tensors)
    all.tensor(name, t.ne, t.type, t.data);
  Subject s{folder / "in.gguf", all.bytes(), all.head().size(), [&] {
              const GgufFile file(folder / "in.gguf");
              const ModelConfig config = detail::read_gguf_config(file);
              (void)detail::plan_conversion(file, config, {});
              (void)detail::read_gguf_tokenizer(file, config.vocab_size);
            }};
  CHECK(mutate_everywhere(s).refused > 5000);
  CHECK(flip_bits(s, 5000).refused > 3000);
  Outcome cut;
  for (std::size_t n = s.interesting; n + 64 < s.bytes.size(); n += 997)
    attempt(s, s.bytes.substr(0, n), cut);
  CHECK(cut.loaded == 0);
}

TEST_CASE("a file with terabytes of nothing does not become memory") {
  const TemporaryFolder folder;
  const std::string path = folder / "in.gguf";
  constexpr std::uint64_t kBytes = UINT64_C(1) << 38;
  const auto claims = [&](const std::string& value) {
    write_file(path, "GGUF" + bytes_of(3u) + bytes_of(UINT64_C(0)) + bytes_of(UINT64_C(1)) +
                         GgufBytes::text("key") + value);
    std::error_code failed;
    std::filesystem::resize_file(path, kBytes, failed);  // sparse: it takes no disk
    if (failed) MESSAGE("skipped: this file system has no files of 256 GB");
    const MemoryLimit limit;
    return failed ? "the file has" : error_of([&] { const GgufFile file(path); });
  };
  const std::string n = bytes_of(kBytes / 2);
  CHECK(contains(claims(bytes_of(9u) + bytes_of(0u) + n), "the length of key key is"));
  CHECK(contains(claims(bytes_of(8u) + n), "the length of key key is"));
}

TEST_CASE("hostile GGUF data converts or is refused, and leaves nothing behind") {
  const TemporaryFolder folder;
  TinyGguf gguf;
  std::mt19937 random(7);
  // Every block type over random bytes: scales are NaN, infinite, denormal, huge.
  for (const GgufTypeFacts& facts : kGgufTypes) {
    if (facts.block_bytes == 0) continue;
    CAPTURE(facts.name);
    const std::uint64_t in = facts.block_elements == 256 ? 256 : 64;
    std::string data(in / static_cast<std::uint64_t>(facts.block_elements) * 32 *
                         static_cast<std::uint64_t>(facts.block_bytes),
                     '\0');
    for (char& byte : data)
      byte = static_cast<char>(random());
    gguf = TinyGguf();
    gguf.tensors["blk.0.ffn_down.weight"] = {{in, 32}, facts.id, data};
    if (in == 256) {
      gguf.values = GgufBytes();
      gguf.values.string("general.architecture", "llama").u32("llama.block_count", 1);
      gguf.values.u32("llama.context_length", 8).u32("llama.embedding_length", 32);
      gguf.values.u32("llama.feed_forward_length", 256).u32("llama.attention.head_count", 4);
      gguf.values.u32("llama.attention.head_count_kv", 2).u32("llama.attention.key_length", 4);
      gguf.values.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
      gguf.rows("blk.0.ffn_gate.weight", 32, 256, 0);
      gguf.rows("blk.0.ffn_up.weight", 32, 256, 0);
    }
    write_file(folder / "in.gguf", gguf.bytes());
    for (const char* dtype : {"keep", "float16", "bfloat16", "float32"}) {
      const std::string out = folder / (std::string(facts.name) + dtype);
      const std::string what =
          error_of([&] { convert_gguf(folder / "in.gguf", out, {convert_dtype_named(dtype)}); });
      if (what.empty()) {
        CHECK(error_of([&] { load_folder(out); }).empty());
      } else {
        CHECK(contains(what, "too large for"));
        CHECK_FALSE(std::filesystem::exists(out));
      }
    }
  }
}
