/// \file  lmd bench throughput: requests and tokens per second with continuous batching.
// SPDX-License-Identifier: Apache-2.0
#include "bench_throughput.hpp"

#include <lmd/json/json.hpp>

#include <memory>
#include <string>

#include "bench_model.hpp"
#include "standard_io.hpp"
#include "throughput.hpp"
#include "units.hpp"

namespace lmd::apps {

namespace {

struct ThroughputFlags {
  BenchFlags common;
  ThroughputCase size;
};

json::Json as_json(const BenchModel& model, const ThroughputCase& c, const ThroughputRun& r) {
  json::Json report = model_json(model);
  const auto ms = [](const std::vector<double>& seconds, double share) {
    return 1e3 * percentile(seconds, share);
  };
  report.update({{"requests", c.requests},
                 {"concurrency", c.concurrency},
                 {"prompt_len", c.prompt_len},
                 {"gen_len", c.gen_len},
                 {"seconds", r.seconds},
                 {"output_tokens_per_s", r.output_tokens_per_s()},
                 {"total_tokens_per_s", r.total_tokens_per_s(c)},
                 {"requests_per_s", r.requests_per_s(c)},
                 {"ttft_p50_ms", ms(r.first_token_s, 0.5)},
                 {"ttft_p99_ms", ms(r.first_token_s, 0.99)},
                 {"itl_p50_ms", ms(r.gap_s, 0.5)},
                 {"itl_p99_ms", ms(r.gap_s, 0.99)}});
  return report;
}

/// "p50 1.2 ms, p99 3.4 ms"
std::string percentiles_text(const std::vector<double>& seconds) {
  return "p50 " + number_text(1e3 * percentile(seconds, 0.5), 1) + " ms, p99 " +
         number_text(1e3 * percentile(seconds, 0.99), 1) + " ms";
}

std::string as_text(const BenchModel& model, const ThroughputCase& c, const ThroughputRun& r) {
  const std::string loading = loading_text(model);
  return model.name + ": " + model.runtime.backend + ", KV scheme " + model.kv + ", " +
         std::to_string(c.requests) + " requests of " + std::to_string(c.prompt_len) + " + " +
         std::to_string(c.gen_len) + " tokens, " + std::to_string(c.concurrency) + " at a time\n" +
         (loading.empty() ? "" : "  start        " + loading + '\n') + "  throughput   " +
         number_text(r.output_tokens_per_s(), 1) + " output tokens/s, " +
         number_text(r.total_tokens_per_s(c), 1) + " with the prompts', " +
         number_text(r.requests_per_s(c), 2) + " requests/s, " + seconds_text(r.seconds) + '\n' +
         "  first token  " + percentiles_text(r.first_token_s) + '\n' + "  next tokens  " +
         percentiles_text(r.gap_s) + '\n';
}

ExitCode run_bench(ThroughputFlags& flags) {
  const ThroughputCase& c = flags.size;
  const int tokens = c.prompt_len + c.gen_len;
  // While warming up, the last sequence says as many tokens as there are sequences.
  prepare(flags.common, {.batch = c.concurrency,
                         .session_len = tokens,
                         .usual_session_len = std::max(tokens, longest_warm_up(c))});
  const BenchModel model = load_bench_model(flags.common);
  warm_up(*model.runtime.engine, c);
  const ThroughputRun run = ClosedLoop(*model.runtime.engine, c).run();
  write_standard_output(flags.common.is_json ? as_json(model, c, run).dump(2) + '\n'
                                             : as_text(model, c, run));
  return ExitCode::kOk;
}

}  // namespace

void add_throughput(CLI::App& bench, Action& action) {
  const auto flags = std::make_shared<ThroughputFlags>();
  CLI::App& app = *bench.add_subcommand(
      "throughput", "Tokens and requests per second with many requests under way");
  add_integer(app, "--requests", flags->size.requests, 1, 1'000'000, "requests in all");
  add_integer(app, "--concurrency", flags->size.concurrency, 1, 4096,
              "requests under way at the same time; a new one comes when one ends");
  add_integer(app, "--batch", flags->size.concurrency, 1, 4096, "the same as --concurrency");
  add_integer(app, "--prompt-len", flags->size.prompt_len, 1, 1 << 20, "tokens of each prompt");
  add_integer(app, "--gen-len", flags->size.gen_len, 2, 1 << 20, "tokens of each answer");
  add_bench_flags(app, flags->common);
  app.footer(
      "Examples:\n"
      "  lmd bench throughput SmolLM2-135M-Instruct --requests 32 --concurrency 8\n"
      "  lmd bench throughput --random-weights internlm2_5-7b --requests 256 --concurrency 64 \\\n"
      "      --prompt-len 1024 --gen-len 256 --quant-policy 8 --json\n"
      "\n"
      "Prompts are random and all different; answers are greedy and go on after the end token. "
      "The\n"
      "time runs from the first request to the last token. ttft: from handing a request in to its\n"
      "first token; itl: between two tokens of a request. Requests beyond --max-batch-size "
      "wait.\n");
  app.callback([&app, &action, flags] {
    flags->common.has_batch_size = app.count("--max-batch-size") > 0;
    action = [flags] { return run_bench(*flags); };
  });
}

}  // namespace lmd::apps
