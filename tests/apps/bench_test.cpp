/// \file  Tests of what `lmd bench` is made of: sizes and lists as typed, statistics, the steady state
///        of a batch, the closed loop.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/error.hpp>

#include <string>
#include <vector>

#include "../../apps/byte_size.hpp"
#include "../../apps/integer_list.hpp"
#include "../../apps/latency.hpp"
#include "../../apps/process_age.hpp"
#include "../../apps/runtime.hpp"
#include "../../apps/statistics.hpp"
#include "../../apps/throughput.hpp"
#include "model/test_files.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::apps;

TEST_CASE("sizes need a unit: letters are powers of 1000, iB of 1024") {
  const auto bytes = [](const char* text) { return parse_byte_size("--x", text); };
  CHECK(bytes("1B") == 1);
  CHECK(bytes("1K") == 1000);
  CHECK(bytes("1KB") == 1000);
  CHECK(bytes("1KiB") == 1024);
  CHECK(bytes("24G") == 24'000'000'000);
  CHECK(bytes("24GB") == 24'000'000'000);
  CHECK(bytes("40GiB") == std::int64_t{40} << 30);
  CHECK(bytes("1.5MiB") == 3 << 19);
  CHECK(bytes("2T") == 2'000'000'000'000);
  CHECK(bytes("1TiB") == std::int64_t{1} << 40);
  for (const char* text : {"",     "24",     "G",     "24g",      "24Gb", "24gib",   "24 G", " 24G",
                           "24G ", "24GiBs", "24Gi",  "-1G",      "0G",   "0.0001B", "nanG", "infG",
                           "1e3G", "0x10G",  "24,5G", "9999999T", "1P",   "+1G"}) {
    const std::string error = test::error_of([&] { (void)bytes(text); });
    CHECK_MESSAGE(test::contains(error, "--x '" + std::string(text) + "'"), text);
    CHECK_MESSAGE(test::contains(error, "24GiB"), text);
  }
}

TEST_CASE("lists are integers with one comma between") {
  const auto list = [](const char* text) { return parse_integers("--x", text, 1, 4096); };
  CHECK(list("1") == std::vector<int>{1});
  CHECK(list("4096") == std::vector<int>{4096});
  CHECK(list("1,16,64") == std::vector<int>{1, 16, 64});
  CHECK(list("16,16") == std::vector<int>{16, 16});
  for (const char* text : {"", ",", "1,", ",1", "1,,2", "0", "4097", "1,4097", "1,0", "a", "1,a",
                           "1a", "1 ,2", "1, 2", "1;2", "-1", "1.5", "99999999999"}) {
    const std::string error = test::error_of([&] { (void)list(text); });
    CHECK_MESSAGE(test::contains(error, "--x '" + std::string(text) + "'"), text);
    CHECK_MESSAGE(test::contains(error, "from 1 to 4096"), text);
  }
}

TEST_CASE("percentiles lie between neighbours in proportion") {
  CHECK(percentile({}, 0.5) == 0.0);
  CHECK(percentile({7.0}, 0.99) == 7.0);
  CHECK(median({3.0, 1.0, 2.0}) == 2.0);
  CHECK(median({4.0, 1.0, 2.0, 3.0}) == 2.5);
  CHECK(percentile({1.0, 2.0, 3.0}, 0.0) == 1.0);
  CHECK(percentile({1.0, 2.0, 3.0}, 1.0) == 3.0);
  CHECK(percentile({0.0, 10.0}, 0.99) == doctest::Approx(9.9));
}

TEST_CASE("the process is older than this test and not older than a day") {
  const auto age = process_age_s();
  if (!age) return;
  CHECK(*age >= 0.0);
  CHECK(*age < 86400.0);
  CHECK(process_age_s().value() >= *age);
}

TEST_CASE("sequences of a batch start as their prompts are read, oldest first") {
  using Leads = std::vector<int>;
  CHECK(decode_leads({.prompt_len = 512, .gen_len = 8, .batch = 1}, 512) == Leads{0});
  CHECK(decode_leads({.prompt_len = 512, .gen_len = 8, .batch = 1}, 100) == Leads{0});
  CHECK(decode_leads({.prompt_len = 512, .gen_len = 8, .batch = 3}, 512) == Leads{3, 1, 0});
  CHECK(decode_leads({.prompt_len = 512, .gen_len = 8, .batch = 3}, 511) == Leads{2, 1, 0});
  CHECK(decode_leads({.prompt_len = 512, .gen_len = 8, .batch = 4}, 1024) == Leads{2, 2, 1, 0});
  CHECK(decode_leads({.prompt_len = 10, .gen_len = 8, .batch = 4}, 4096) == Leads{0, 0, 0, 0});
  CHECK(decode_leads({.prompt_len = 1, .gen_len = 8, .batch = 3}, 1) == Leads{0, 0, 0});
}

namespace {

Runtime tiny_model(int batch, int session_len, int prefill_tokens) {
  RuntimeOptions options;
  options.device = "cpu";
  options.threads = 1;
  options.engine.max_batch_size = batch;
  options.engine.session_len = session_len;
  options.engine.max_prefill_tokens = prefill_tokens;
  options.engine.has_prefix_cache = false;
  return make_random_model({.shape = "internlm2-tiny"}, options);
}

}  // namespace

TEST_CASE("the steady state has every sequence in every step, for any chunk of the prompts") {
  for (const int prefill_tokens : {7, 63, 64, 65, 130, 1000}) {
    for (const int batch : {1, 2, 5}) {
      const LatencyCase c{.prompt_len = 65, .gen_len = 4, .batch = batch};
      const int session_len = c.prompt_len + c.gen_len + decode_leads(c, prefill_tokens).front();
      const Runtime model = tiny_model(batch, session_len, prefill_tokens);
      const BatchRun run = run_batch(*model.engine, c, 1);
      CAPTURE(prefill_tokens);
      CAPTURE(batch);
      CHECK(run.decode_steps == c.gen_len - 1);
      CHECK(run.decode_tokens == batch * (c.gen_len - 1));
      CHECK(run.first_token_s > 0.0);
      CHECK(run.decode_s > 0.0);
      // The lead changes how many tokens are drawn, not which.
      const Runtime whole = tiny_model(batch, 1024, 65536);
      CHECK(run_batch(*whole.engine, c, 1).answer_hash == run.answer_hash);
      CHECK(run_batch(*whole.engine, c, 2).answer_hash != run.answer_hash);
    }
  }
}

TEST_CASE("a closed loop answers every request, more at a time than the engine takes included") {
  for (const int concurrency : {1, 3, 8}) {
    const ThroughputCase c{
        .requests = 7, .concurrency = concurrency, .prompt_len = 9, .gen_len = 5};
    const Runtime model = tiny_model(3, 64, 512);
    warm_up(*model.engine, c);
    const std::int64_t before = model.engine->stats().generated_tokens;
    const ThroughputRun run = ClosedLoop(*model.engine, c).run();
    CHECK(run.output_tokens == 7 * 5);
    CHECK(model.engine->stats().generated_tokens == before + 7 * 5);
    CHECK(run.gap_s.size() == 7 * 4);
    CHECK(run.first_token_s.size() == 7);
    for (const double s : run.first_token_s)
      CHECK((s > 0.0 && s <= run.seconds));
    CHECK(run.total_tokens_per_s(c) == doctest::Approx(run.output_tokens_per_s() * 14 / 5));
  }
}
