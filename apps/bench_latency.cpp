/// \file  lmd bench latency: tokens per second of one engine, and how near memory's limit that is.
// SPDX-License-Identifier: Apache-2.0
#include "bench_latency.hpp"

#include <lmd/json/json.hpp>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench_model.hpp"
#include "integer_list.hpp"
#include "latency_cases.hpp"
#include "latency_report.hpp"
#include "standard_io.hpp"

namespace lmd::apps {

namespace {

struct LatencyFlags {
  BenchFlags common;
  std::vector<int> prompt_lens = {512};
  std::vector<int> batches = {1};
  int gen_len = 256;
  int repeat = 3;

  [[nodiscard]] bool is_list() const { return prompt_lens.size() > 1 || batches.size() > 1; }
};

std::vector<LatencyCase> cases_of(const LatencyFlags& flags) {
  std::vector<LatencyCase> cases;
  for (const int prompt_len : flags.prompt_lens) {
    for (const int batch : flags.batches)
      cases.push_back({prompt_len, flags.gen_len, batch});
  }
  return cases;
}

BenchRoom room_for(const LatencyFlags& flags, const std::vector<LatencyCase>& cases) {
  constexpr int kFewestPrefillTokens = 512;  // of a step, where no flag says otherwise
  const int given = flags.common.runtime.engine.max_prefill_tokens;
  BenchRoom room;
  for (const LatencyCase& c : cases) {
    const int longest = longest_sequence(c, given > 0 ? given : kFewestPrefillTokens);
    room.batch = std::max(room.batch, c.batch);
    room.session_len = std::max(room.session_len, c.prompt_len + c.gen_len);
    room.usual_session_len = std::max(room.usual_session_len, longest);
  }
  return room;
}

/// Every case that fits; a prompt's own times are taken once for all batches.
std::vector<LatencyRow> measure_all(const BenchModel& model,
                                    const LatencyFlags& flags,
                                    const std::function<void(const LatencyRow&)>& after_each) {
  std::map<int, PrefillTimes> prefill;
  std::vector<LatencyRow> rows;
  for (const LatencyCase& c : cases_of(flags)) {
    const std::string problem = why_not(c, model.runtime.engine->plan());
    LMD_REQUIRE(problem.empty() || flags.is_list(), ErrorCode::kCapacity, problem);
    if (!problem.empty()) {
      rows.push_back({.size = c, .problem = problem});
    } else {
      if (!prefill.contains(c.prompt_len)) {
        prefill[c.prompt_len] = measure_prefill(*model.runtime.engine, c.prompt_len, flags.repeat);
      }
      rows.push_back(measure(model, c, prefill[c.prompt_len], flags.repeat));
    }
    after_each(rows.back());
  }
  return rows;
}

/// Rows of a table as they come: on standard output, or beside the JSON on standard error.
void show(const LatencyFlags& flags, const std::string& text) {
  if (!flags.common.is_json) {
    write_standard_output(text);
  } else {
    std::fputs(text.c_str(), stderr);
  }
}

ExitCode run_latency(LatencyFlags& flags) {
  prepare(flags.common, room_for(flags, cases_of(flags)));
  const BenchModel model = load_bench_model(flags.common);
  if (flags.is_list()) show(flags, table_head(model, flags.gen_len));
  const std::vector<LatencyRow> rows = measure_all(model, flags, [&](const LatencyRow& row) {
    if (flags.is_list()) show(flags, table_row(row));
  });
  if (flags.common.is_json) {
    json::Json report = model_json(model);
    report["repeat"] = flags.repeat;
    for (const LatencyRow& row : rows) {
      if (flags.is_list()) {
        report["rows"].push_back(row_json(row));
      } else {
        report.update(row_json(row));
      }
    }
    write_standard_output(report.dump(2) + '\n');
  } else if (!flags.is_list()) {
    write_standard_output(row_text(model, rows.front()));
  }
  return ExitCode::kOk;
}

constexpr const char* kFooter =
    "Examples:\n"
    "  lmd bench latency SmolLM2-135M-Instruct --quant-policy 8\n"
    "  lmd bench latency --random-weights internlm2_5-7b --prompt-len 1024,8192 --batch 1,16 "
    "--json\n"
    "  lmd bench latency --random-weights internlm2_5-1_8b --save ./random-1_8b\n"
    "\n"
    "Answers are greedy and go on after the end token. No two prompts are alike, and the\n"
    "prefix cache is off unless --enable-prefix-caching is given. Decoding is measured from\n"
    "the last first token of the batch to the first last token. Prefill is the time to the\n"
    "first token of one prompt, after half a second of idleness (single shot) and back to\n"
    "back (sustained). The start of the process counts to the first token of 32 random ids.\n"
    "Figures are medians of --repeat.\n"
    "\n"
    "Lists are measured in every combination, with one engine; --json then has `rows`, and\n"
    "the table goes to standard error. Where the same model gives the same answers,\n"
    "answer_hash is equal.\n";

}  // namespace

void add_latency(CLI::App& bench, Action& action) {
  const auto flags = std::make_shared<LatencyFlags>();
  CLI::App& app =
      *bench.add_subcommand("latency", "Time to the first token, and tokens per second");
  add_integers(app, "--prompt-len", flags->prompt_lens, 1, 1 << 20, "tokens of each prompt");
  add_integer(app, "--gen-len", flags->gen_len, 2, 1 << 20, "tokens of each answer");
  add_integers(app, "--batch", flags->batches, 1, 4096, "sequences at the same time");
  add_integer(app, "--repeat", flags->repeat, 1, 1000, "runs, after one to warm up");
  add_bench_flags(app, flags->common);
  app.footer(kFooter);
  app.callback([&app, &action, flags] {
    flags->common.has_batch_size = app.count("--max-batch-size") > 0;
    action = [flags] { return run_latency(*flags); };
  });
}

}  // namespace lmd::apps
