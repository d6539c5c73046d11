/// \file  Tests of what `lmd bench serve` is made of: prompts, arrivals, statistics, goodput, reports.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/error.hpp>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "../../apps/serve/load_prompts.hpp"
#include "../../apps/serve/load_report.hpp"
#include "model/test_files.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::apps;

namespace {

std::size_t n_words(const std::string& text) {
  return text.empty() ? 0 : 1 + static_cast<std::size_t>(std::count(text.begin(), text.end(), ' '));
}

/// An answer by hand: scheduled, sent, first and last token, tokens; it ends with the last one.
RequestTimes times(double scheduled, double sent, double first, double last, std::int64_t n) {
  return {.scheduled_s = scheduled,
          .sent_s = sent,
          .first_s = first,
          .last_s = last,
          .end_s = last,
          .n_output = n,
          .n_prompt = 10,
          .n_cached = 5,
          .is_counted_by_server = true};
}

}  // namespace

TEST_CASE("summaries by hand") {
  CHECK(summarize({}).mean == 0.0);
  CHECK(summarize({}).p99 == 0.0);
  const Summary one = summarize({7.0});
  CHECK(one.mean == 7.0);
  CHECK(one.p50 == 7.0);
  CHECK(one.p99 == 7.0);
  const Summary four = summarize({4.0, 1.0, 3.0, 2.0});
  CHECK(four.mean == 2.5);
  CHECK(four.p50 == 2.5);
  CHECK(four.p99 == doctest::Approx(3.97));  // place 0.99 * 3 = 2.97, between 3 and 4
  std::vector<double> hundred_one;
  for (int i = 0; i <= 100; ++i)
    hundred_one.push_back(i);
  CHECK(summarize(hundred_one).p50 == 50.0);
  CHECK(summarize(hundred_one).p99 == 99.0);
}

TEST_CASE("times of one answer") {
  const RequestTimes r = times(1.0, 1.5, 2.0, 3.0, 5);
  CHECK(r.ttft_s() == 0.5);
  CHECK(r.scheduled_ttft_s() == 1.0);
  CHECK(r.tpot_s() == 0.25);
}

TEST_CASE("goodput counts answers within every bound that is set, at the bound too") {
  const std::vector<RequestTimes> answered = {
      times(0.0, 0.0, 0.5, 0.5, 1),     // one token: it has no further ones
      times(0.0, 0.0, 0.5, 1.5, 11),    // 100 ms each
      times(0.0, 0.75, 1.0, 1.0, 1),    // soon after sending, late after its time
      times(0.0, 0.0, 0.25, 2.75, 11),  // 250 ms each
  };
  LoadCase c;
  CHECK(count_good(c, answered) == 4);
  c.slo_ttft_ms = 500.0;
  CHECK(count_good(c, answered) == 3);
  c.slo_tpot_ms = 100.0;
  CHECK(count_good(c, answered) == 2);
  c.slo_ttft_ms = 0.0;
  CHECK(count_good(c, answered) == 3);
  c.slo_tpot_ms = 99.0;
  CHECK(count_good(c, answered) == 2);
  c.slo_ttft_ms = 499.0;
  CHECK(count_good(c, answered) == 0);
}

TEST_CASE("a run's rates by hand") {
  LoadCase c;
  c.slo_ttft_ms = 600.0;
  LoadRun run;
  run.seconds = 4.0;
  run.answered = {times(0.0, 0.0, 0.5, 1.5, 11), times(0.0, 0.0, 1.0, 4.0, 4)};
  run.errors = {{"status 429", 1}, {"cut off", 1}};
  run.gap_s = {0.1, 0.3};
  run.lag_s = {0.001};
  const LoadTotals totals(c, run);
  CHECK(totals.requests_per_s == 0.5);
  CHECK(totals.output_tokens_per_s == 3.75);
  CHECK(totals.total_tokens_per_s == 8.75);
  CHECK(totals.good_per_s == 0.25);
  CHECK(totals.good_share == 0.25);
  const json::Json report = load_json("http://h", c, run);
  CHECK(report["ttft_mean_ms"] == 750.0);
  CHECK(report["ttft_p50_ms"] == 750.0);
  CHECK(report["tpot_mean_ms"] == 550.0);  // 100 and 1000
  CHECK(report["itl_mean_ms"].get<double>() == doctest::Approx(200.0));
  CHECK(report["e2e_mean_ms"] == 2750.0);
  CHECK(report["cached_tokens"] == 10);
  CHECK(report["counted_by"] == "server");
  CHECK(report["errors"]["status 429"] == 1);
  CHECK(report["goodput_share"] == 0.25);
  CHECK_FALSE(report.contains("scheduled_ttft_mean_ms"));
  CHECK_FALSE(report.contains("prefix_len"));
  c.request_rate = 1.0;
  CHECK(load_json("http://h", c, run)["scheduled_ttft_p50_ms"] == 750.0);
  run.answered[0].is_counted_by_server = false;
  CHECK(load_json("http://h", c, run)["counted_by"] == "events");
}

TEST_CASE("a run without an answer has a report, too") {
  LoadCase c;
  c.slo_tpot_ms = 1.0;
  LoadRun run;
  run.errors = {{"no connection", 3}};
  const json::Json report = load_json("http://h", c, run);
  CHECK(report["requests_per_s"] == 0.0);
  CHECK(report["goodput_share"] == 0.0);
  CHECK_FALSE(report.contains("ttft_mean_ms"));
  CHECK(report_text("http://h", c, run).find("0 of 3") != std::string::npos);
}

TEST_CASE("two runs side by side") {
  LoadCase c;
  LoadRun run;
  run.seconds = 2.0;
  run.answered = {times(0.0, 0.0, 0.5, 1.5, 11)};
  const json::Json a = load_json("http://h", c, run);
  run.seconds = 1.0;
  run.answered[0].first_s = 1.0;
  c.concurrency = 16;
  const json::Json b = load_json("http://h", c, run);
  const std::string text = comparison_text(a, "a.json", b, "b.json");
  const auto has = [&](const char* words) { return text.find(words) != std::string::npos; };
  CHECK(has("A: a.json\nB: b.json\n"));
  CHECK(has("differs: concurrency 0, 16\n"));
  CHECK_FALSE(has("differs: requests"));
  CHECK(has("requests_per_s                  0.500        1.000   +100.0 % better\n"));
  CHECK(has("ttft_mean_ms                  500.000     1000.000   +100.0 % worse\n"));
  CHECK(has("tpot_mean_ms                  100.000       50.000    -50.0 % better\n"));
  CHECK(has("e2e_mean_ms                  1500.000     1500.000     +0.0 % \n"));
  CHECK_FALSE(has("itl"));
  for (const char* other : {"[]", "{}", "7"}) {
    const std::string error =
        test::error_of([&] { (void)comparison_text(a, "a", json::Json::parse(other), "b.json"); });
    CHECK(test::contains(error, "b.json: is no file of `lmd bench serve --json`"));
  }
}

TEST_CASE("arrivals are in order, the same for a seed, and as many a second as was asked for") {
  const std::vector<double> a = arrival_times(20'000, 50.0, 7);
  CHECK(a == arrival_times(20'000, 50.0, 7));
  CHECK(a != arrival_times(20'000, 50.0, 8));
  CHECK(a.front() == 0.0);
  CHECK(std::is_sorted(a.begin(), a.end()));
  // The mean of n exponential gaps has a deviation of 1 / sqrt(n) of itself: five of these.
  CHECK(a.back() / 19'999.0 == doctest::Approx(1.0 / 50.0).epsilon(5.0 / std::sqrt(19'999.0)));
  // Of such gaps 1 - 1/e are shorter than the mean: five deviations of a share.
  int n_short = 0;
  for (std::size_t i = 1; i < a.size(); ++i)
    n_short += a[i] - a[i - 1] < 1.0 / 50.0 ? 1 : 0;
  const double share = 1.0 - std::exp(-1.0);
  CHECK(std::abs(n_short / 19'999.0 - share) < 5.0 * std::sqrt(share * (1.0 - share) / 19'999.0));
}

TEST_CASE("random prompts have the length that was asked for, and no two are alike") {
  LoadCase c;
  c.prompt_len = 50;
  c.gen_len = 9;
  const LoadPrompts prompts(c, plain_words());
  std::set<std::string> seen;
  for (int i = -20; i < 200; ++i) {
    const LoadPrompt prompt = prompts.at(i);
    CHECK(prompt.prefix.empty());
    CHECK(n_words(prompt.text) == 50);
    CHECK(prompt.n_output == 9);
    CHECK(prompts.at(i).text == prompt.text);
    seen.insert(prompt.text);
  }
  CHECK(seen.size() == 220);
  c.seed = 1;
  CHECK(seen.count(LoadPrompts(c, plain_words()).at(0).text) == 0);
}

TEST_CASE("lengths spread around what was asked for") {
  LoadCase c;
  c.prompt_len = 100;
  c.gen_len = 10;
  c.spread = 0.5;
  const LoadPrompts prompts(c, plain_words());
  std::set<std::size_t> lengths;
  std::set<int> outputs;
  for (int i = 0; i < 500; ++i) {
    lengths.insert(n_words(prompts.at(i).text));
    outputs.insert(prompts.at(i).n_output);
  }
  CHECK(*lengths.begin() >= 50);
  CHECK(*lengths.rbegin() <= 150);
  CHECK(lengths.size() > 80);
  CHECK(*outputs.begin() == 5);
  CHECK(*outputs.rbegin() == 15);
  c.spread = 1.0;
  c.gen_len = 1;
  for (int i = 0; i < 50; ++i)
    CHECK(LoadPrompts(c, plain_words()).at(i).n_output >= 1);
}

TEST_CASE("shared beginnings: one a group, those of the warm-up are others") {
  LoadCase c;
  c.dataset = "shared-prefix";
  c.prefix_len = 30;
  c.prompt_len = 5;
  c.groups = 3;
  const LoadPrompts prompts(c, plain_words());
  std::set<std::string> prefixes;
  std::set<std::string> texts;
  for (int i = 0; i < 100; ++i) {
    const LoadPrompt prompt = prompts.at(i);
    CHECK(n_words(prompt.prefix) == 30);
    prefixes.insert(prompt.prefix);
    texts.insert(prompt.text);
  }
  CHECK(prefixes.size() == 3);
  CHECK(texts.size() == 100);
  for (int i = -20; i < 0; ++i)
    CHECK(prefixes.count(prompts.at(i).prefix) == 0);
}

TEST_CASE("files of conversations and of prompts") {
  const json::Json file = json::Json::parse(R"([
    {"conversations": [{"from": "human", "value": "q1"}, {"from": "gpt", "value": "0123456789ab"}]},
    {"conversations": [{"from": "human", "value": "alone"}]},
    {"conversations": 7}, {"prompt": 7}, 7, {},
    {"prompt": "q2", "output_len": 9}, {"prompt": "q3"}, {"prompt": "q4", "output_len": 99999999999},
    {"prompt": "q5", "output_len": -3}, {"prompt": "q6", "output_len": "x"}])");
  const std::vector<LoadPrompt> prompts = prompts_of_json(file, "f.json");
  REQUIRE(prompts.size() == 6);
  const std::vector<std::pair<std::string, int>> expected = {{"q1", 3},    {"q2", 9}, {"q3", 128},
                                                             {"q4", 4096}, {"q5", 1}, {"q6", 128}};
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK(prompts[i].text == expected[i].first);
    CHECK(prompts[i].n_output == expected[i].second);
  }
  LoadCase c;
  c.dataset = "file";
  c.gen_len = 0;
  const LoadPrompts source(c, prompts);
  CHECK(source.at(7).text == "q2");
  CHECK(source.at(7).n_output == 9);
  CHECK(source.at(-1).text == "q5");
  c.gen_len = 2;
  CHECK(LoadPrompts(c, prompts).at(0).n_output == 2);
  for (const char* text : {"{}", "[]", "[{}]", "7"}) {
    const std::string error =
        test::error_of([&] { (void)prompts_of_json(json::Json::parse(text), "f.json"); });
    CHECK(test::contains(error, "f.json: "));
  }
}

TEST_CASE("what is asked of either endpoint") {
  LoadCase c;
  c.model = "m";
  const LoadPrompt prompt{.prefix = "p", .text = "t", .n_output = 3};
  json::Json body = json::Json::parse(load_body(c, prompt));
  CHECK(body["messages"].dump() ==
        R"([{"content":"p","role":"system"},{"content":"t","role":"user"}])");
  CHECK(body["max_tokens"] == 3);
  CHECK(body["stream"] == true);
  CHECK_FALSE(body.contains("ignore_eos"));
  c.endpoint = "completions";
  c.ignores_eos = true;
  body = json::Json::parse(load_body(c, prompt));
  CHECK(body["prompt"] == "p t");
  CHECK(body["ignore_eos"] == true);
  CHECK_FALSE(body.contains("messages"));
}
