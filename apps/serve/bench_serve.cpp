/// \file  lmd bench serve: load for any OpenAI-compatible server.
// SPDX-License-Identifier: Apache-2.0
#include "bench_serve.hpp"

#include <lmd/json/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../flags.hpp"
#include "../interrupt.hpp"
#include "../progress.hpp"
#include "../standard_io.hpp"
#include "../terminal.hpp"
#include "api_connection.hpp"
#include "load_driver.hpp"
#include "load_report.hpp"

namespace lmd::apps {

namespace {

struct BenchServeFlags {
  std::string url;
  std::string key;
  std::string file;
  std::string json_path;
  std::vector<std::string> compared;
  LoadCase load;
  double timeout_s = 600.0;
  bool has_gen_len = false;
};

/// Tokens of each text, by LMDeploy's and lmd's /v1/encode; servers bound how many they take at once.
std::vector<int> count_tokens(ApiConnection& connection, const std::vector<std::string>& texts) {
  constexpr std::size_t kAtOnce = 64;
  const std::string path = "/v1/encode";
  std::vector<int> counts;
  for (std::size_t i = 0; i < texts.size(); i += kAtOnce) {
    const auto begin = texts.begin() + static_cast<std::ptrdiff_t>(i);
    const std::vector<std::string> some(
        begin, begin + static_cast<std::ptrdiff_t>(std::min(kAtOnce, texts.size() - i)));
    const json::Json reply =
        json::parse(connection.post(path, {{"input", some}, {"add_bos", false}}), path);
    const json::Object answer(reply, path);
    const json::Json& lengths = answer.array("length");
    LMD_REQUIRE(lengths.size() == some.size(), ErrorCode::kFormat, path + ": another number");
    for (const json::Json& length : lengths)
      counts.push_back(length.get<int>());
  }
  return counts;
}

/// Of the plain words those that are one token behind another word; none where the server does not
/// count.
std::vector<std::string> one_token_words(ApiConnection& connection) {
  const std::vector<std::string> words = plain_words();
  std::vector<std::string> texts = {"the"};
  for (const std::string& word : words)
    texts.push_back("the " + word);
  std::vector<std::string> kept;
  try {
    const std::vector<int> counts = count_tokens(connection, texts);
    for (std::size_t i = 0; i < words.size(); ++i)
      if (counts[i + 1] == counts[0] + 1) kept.push_back(words[i]);
  } catch (const serve::ClientError& e) {
    if (e.kind() != serve::ClientFailure::kStatus) throw;
  } catch (const Error&) {                  // it answers something else
  } catch (const json::Json::exception&) {  // its lengths are no numbers
  }
  constexpr std::size_t kFewest = 16;  // prompts of fewer words would be alike
  if (kept.size() < kFewest) kept.clear();
  return kept;
}

LoadPrompts make_prompts(BenchServeFlags& flags, ApiConnection& connection) {
  LoadCase& c = flags.load;
  if (c.dataset == "file") {
    constexpr std::int64_t kMaxBytes = std::int64_t{1} << 30;
    if (!flags.has_gen_len) c.gen_len = 0;
    return {c, prompts_of_json(json::parse_file(flags.file, kMaxBytes), flags.file)};
  }
  std::vector<std::string> words = one_token_words(connection);
  if (words.empty()) {
    words = plain_words();
    std::fputs("the server has no /v1/encode: lengths of prompts are counted in words\n", stderr);
  }
  return {c, std::move(words)};
}

void write_json(const std::string& path, const json::Json& report) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) throw WriteError(path + ": cannot be written");
  const std::string text = report.dump(2) + '\n';
  const bool is_written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (std::fclose(file) != 0 || !is_written) throw WriteError(path + ": cannot be written");
}

ExitCode compare(const BenchServeFlags& flags) {
  LMD_REQUIRE(flags.compared.size() == 2, ErrorCode::kConfig,
              "--compare " + flags.compared[0] + ": must be two files");
  const std::string& a = flags.compared[0];
  const std::string& b = flags.compared[1];
  write_standard_output(comparison_text(json::parse_file(a), a, json::parse_file(b), b));
  return ExitCode::kOk;
}

ExitCode run_bench_serve(BenchServeFlags& flags) {
  if (!flags.compared.empty()) return compare(flags);
  LMD_REQUIRE(!flags.url.empty(), ErrorCode::kConfig,
              "URL is required, as http://localhost:23333, or --compare A.json B.json");
  LoadCase& c = flags.load;
  LMD_REQUIRE((c.dataset == "file") == !flags.file.empty(), ErrorCode::kConfig,
              "--dataset file and --dataset-path FILE belong together");
  constexpr int kUsualConcurrency = 8;
  if (!c.is_open_loop() && c.concurrency == 0) c.concurrency = kUsualConcurrency;
  allow_connections(c.concurrency);
  LoadTarget target{api_base(flags.url), flags.key, flags.timeout_s};
  if (target.key.empty()) target.key = environment("OPENAI_API_KEY");
  catch_interrupts();
  ApiConnection connection(target.base, target.key, {}, [] {
    throw_if_interrupted();
    return false;
  });
  if (c.model.empty()) c.model = connection.first_model();
  const LoadPrompts prompts = make_prompts(flags, connection);
  if (c.warm_up > 0) warm_up_server(target, c, prompts);
  Progress progress("measuring", ProgressUnit::kRequests);
  const LoadRun run = run_load(target, c, prompts, [&](int n) { progress.update(n, c.requests); });
  progress.finish();
  const std::string server = target.base.origin();
  if (!flags.json_path.empty()) write_json(flags.json_path, load_json(server, c, run));
  write_standard_output(without_controls(report_text(server, c, run)));
  if (!run.first_error.empty())
    std::fprintf(stderr, "lmd: the first that failed: %s\n", run.first_error.c_str());
  return run.answered.empty() && !run.errors.empty() ? exit_code_of(run.first_failure)
                                                     : ExitCode::kOk;
}

void add_load_flags(CLI::App& app, LoadCase& c) {
  add_integer(app, "--requests", c.requests, 1, 10'000'000, "requests in all");
  add_integer(app, "--concurrency", c.concurrency, 0, 100'000,
              "requests under way at the same time; a new one comes when one ends. 0: 8, or with "
              "--request-rate as many as come");
  add_number(app, "--request-rate", c.request_rate, 0, 1e6,
             "requests a second, at random times (Poisson), whatever the server does; 0: by "
             "--concurrency alone");
  add_number(app, "--seconds", c.seconds, 0, 1e6, "no request begins later than this; 0: no bound");
  add_integer(app, "--warmup", c.warm_up, 0, 100'000, "requests before those that count");
  add_choice(app, "--endpoint", c.endpoint, {"chat", "completions"}, "which of /v1");
  add_choice(app, "--dataset", c.dataset, {"random", "shared-prefix", "file"},
             "random words; words behind one of a few long beginnings; prompts of --dataset-path");
  add_integer(app, "--prompt-len", c.prompt_len, 1, 1 << 20,
              "tokens of each prompt, in words where the server has no /v1/encode");
  add_integer(app, "--prefix-len", c.prefix_len, 1, 1 << 20, "of shared-prefix: tokens in front");
  add_integer(app, "--groups", c.groups, 1, 1 << 20, "of shared-prefix: how many beginnings");
  add_number(app, "--length-spread", c.spread, 0, 1,
             "lengths are drawn from (1 - X) to (1 + X) times those given");
  app.add_flag("--ignore-eos", c.ignores_eos, "answers go on after the end token");
  add_number(app, "--temperature", c.temperature, 0, 2, "0: always the most likely token");
  add_integer<std::int64_t>(app, "--seed", c.seed, 0, INT64_MAX,
                            "the same seed asks the same at the same times");
  add_number(app, "--slo-ttft-ms", c.slo_ttft_ms, 0, 1e9,
             "for goodput: the first token by then; 0: no bound");
  add_number(app, "--slo-tpot-ms", c.slo_tpot_ms, 0, 1e9,
             "for goodput: at most so long for each further token; 0: no bound");
}

}  // namespace

void add_bench_serve(CLI::App& bench, Action& action) {
  const auto flags = std::make_shared<BenchServeFlags>();
  CLI::App& app = *bench.add_subcommand("serve", "Load for any OpenAI-compatible server");
  app.add_option("URL", flags->url, "the server's address, as http://localhost:23333")
      ->type_name("");
  add_text(app, "--api-key", flags->key, "KEY", "the key; else that of OPENAI_API_KEY");
  add_text(app, "--model", flags->load.model, "NAME",
           "the model's name there; else the first of /v1/models");
  add_load_flags(app, flags->load);
  add_integer(app, "--gen-len", flags->load.gen_len, 1, 1 << 20,
              "tokens of each answer, at most; of a file the file's own");
  add_text(
      app, "--dataset-path", flags->file, "FILE",
      "JSON: conversations as ShareGPT has them, or [{\"prompt\": TEXT, \"output_len\": N}, ...]");
  add_number(app, "--timeout", flags->timeout_s, 0.1, 86400,
             "seconds to wait for an answer's beginning, and for each next piece");
  add_text(app, "--json", flags->json_path, "FILE", "writes the figures there, too");
  app.add_option("--compare", flags->compared, "compares two such files and asks no server")
      ->type_name("A.json B.json")
      ->expected(2);
  app.footer(
      "Examples:\n"
      "  lmd bench serve http://localhost:23333 --requests 200 --concurrency 64 --ignore-eos\n"
      "  lmd bench serve http://localhost:23333 --request-rate 4 --slo-ttft-ms 500 --slo-tpot-ms "
      "50\n"
      "  lmd bench serve http://localhost:23333 --dataset shared-prefix --prefix-len 2000 --groups "
      "8\n"
      "  lmd bench serve http://localhost:8000 --dataset file --dataset-path sharegpt.json --json "
      "a.json\n"
      "  lmd bench serve --compare a.json b.json\n"
      "\n"
      "TTFT: from sending a request to its first token. TPOT: the rest of the answer for each "
      "further\n"
      "token. ITL: between two events of an answer. E2E: the whole answer. \"scheduled\": from the "
      "time\n"
      "at which --request-rate wanted the request sent, which a request that had to wait does not\n"
      "hide. Times are taken when an event's bytes are read. Requests that fail are counted by "
      "kind;\n"
      "the exit status is 0 unless all fail.\n");
  app.callback([&app, &action, flags] {
    flags->has_gen_len = app.count("--gen-len") > 0;
    action = [flags] { return run_bench_serve(*flags); };
  });
}

}  // namespace lmd::apps
