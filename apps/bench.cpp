/// \file  lmd bench: how fast a model runs here, and how near memory's limit that is.
// SPDX-License-Identifier: Apache-2.0
#include "bench_latency.hpp"
#include "bench_throughput.hpp"
#include "commands.hpp"
#ifdef LMD_WITH_SERVE
#  include "serve/bench_serve.hpp"
#endif

namespace lmd::apps {

void add_bench(CLI::App& root, Action& action) {
  CLI::App& app = *root.add_subcommand("bench", "Measure speed");
  app.footer(
      "Examples:\n"
      "  lmd bench latency SmolLM2-135M-Instruct --json\n"
      "  lmd bench throughput SmolLM2-135M-Instruct --requests 32 --concurrency 8\n"
      "  lmd bench serve http://localhost:23333 --requests 200 --concurrency 64\n");
  add_latency(app, action);
  add_throughput(app, action);
#ifdef LMD_WITH_SERVE
  add_bench_serve(app, action);
#endif
}

}  // namespace lmd::apps
