/// \file  The engine's thread: calls get their events, leave, fail, and are refused.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/answer_metrics.hpp>
#include <lmd/serve/engine_thread.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "echo_executor.hpp"
#include "plain_api.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::serve_test;
using std::chrono::seconds;

namespace {

engine::EngineConfig config_of(int batch = 2, int queue = 4) {
  engine::EngineConfig config;
  config.session_len = 1024;
  config.max_batch_size = batch;
  config.max_queued_requests = queue;
  return config;
}

/// An engine with its thread; the test is the I/O thread.
struct Bench {
  explicit Bench(EchoOptions echo = {}, const engine::EngineConfig& config = config_of())
      : engine(std::make_unique<EchoExecutor>(echo_config(config.session_len),
                                              std::move(echo),
                                              hooks,
                                              echo_plan(config).max_rows),
               config,
               echo_plan(config)),
        thread(engine, [this] { has_mail = true; }) {}

  std::shared_ptr<serve::RunningCall> submit(const std::string& query, const char* prompt = "abc") {
    serve::ApiRequest request = {};
    request.query = query;
    request.body = prompt;
    return thread.submit(std::make_unique<PlainCall>(request, *tokenizer), 1, seconds(0));
  }

  /// Delivers until `is_done()`.
  template <class F>
  void pump(const F& is_done) {
    const auto end = serve::Clock::now() + seconds(20);
    while (!is_done()) {
      REQUIRE(serve::Clock::now() < end);
      if (has_mail.exchange(false)) {
        thread.deliver([this](serve::RunningCall& running, const serve::AnswerEvent& event,
                              serve::Clock::time_point started) {
          n_ended += event.finish != engine::FinishReason::kNone;
          metrics.on_event(running, event, started);
        });
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  EchoHooks hooks;
  std::unique_ptr<text::Tokenizer> tokenizer = make_byte_tokenizer();
  engine::Engine engine;
  serve::AnswerMetrics metrics;
  int n_ended = 0;  // answers
  std::atomic<bool> has_mail{false};
  serve::EngineThread thread;
};

std::string read(Bench& bench, serve::RunningCall& running) {
  std::string out;
  bench.pump([&] {
    for (const serve::AnswerEvent& event : running.take_events())
      running.call().on_event(event, out);
    return running.call().has_ended();
  });
  return running.call().is_stream() ? out : running.call().reply().body;
}

}  // namespace

TEST_CASE("a call gets the events of all its answers") {
  Bench bench;
  const auto running = bench.submit("n=2");
  CHECK(running->ids().size() == 2);
  CHECK(read(bench, *running) == "abcabc");
  CHECK(running->leave().empty());
}

TEST_CASE("the tokens of each step are known") {
  Bench bench;
  const auto running = bench.submit("max_tokens=3&ignore_eos=1");
  (void)read(bench, *running);
  bench.thread.stop();
  const serve::Histogram steps = bench.thread.step_tokens();
  CHECK(steps.total() == 3);  // the prompt, then a token each
  CHECK(steps.sum() == 3 + 1 + 1);
  CHECK(steps.total() == bench.engine.stats().steps);
}

TEST_CASE("a call that is left is cancelled, and lives until its last request has ended") {
  EchoOptions echo;
  echo.steps_per_s = 200;
  Bench bench(echo);
  const auto running = bench.submit("n=3&ignore_eos=1&max_tokens=1000");  // the third one waits
  bench.pump([&] { return running->n_unread() > 0; });
  const std::vector<engine::RequestId> open = running->leave();
  CHECK(open.size() == 3);
  CHECK(running->n_unread() == 0);
  bench.thread.cancel(open);
  bench.pump([&] {
    const engine::EngineStats stats = bench.engine.stats();
    return stats.running + stats.waiting == 0;
  });
  CHECK(bench.engine.stats().free_pages == bench.engine.stats().pages);
}

TEST_CASE("too much is refused as busy, and what was taken of it is cancelled") {
  EchoOptions echo;
  echo.steps_per_s = 100;
  Bench bench(echo, config_of(1, 2));
  try {
    (void)bench.submit("n=5&ignore_eos=1&max_tokens=1000");
    FAIL("five requests were taken");
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kBusy);
  }
  bench.pump([&] {
    const engine::EngineStats stats = bench.engine.stats();
    return stats.running + stats.waiting == 0 && bench.n_ended > 0;
  });
  CHECK(bench.metrics.waiting() == 0);
  CHECK(bench.metrics.running() == 0);
  CHECK(read(bench, *bench.submit("")) == "abc");
}

TEST_CASE("a failing step ends its requests; a lost device ends the thread") {
  EchoOptions echo;
  const auto tokenizer = make_byte_tokenizer();
  echo.failing_prompt = tokenizer->encode("poison");
  echo.fatal_prompt = tokenizer->encode("fatal");
  set_log_sink(nullptr);
  Bench bench(echo);
  CHECK_THROWS_AS((void)read(bench, *bench.submit("", "poison")), serve::ApiFailure);
  CHECK(bench.thread.state().failed_steps == 1);
  CHECK(bench.thread.state().fatal.empty());
  CHECK(read(bench, *bench.submit("")) == "abc");
  CHECK_THROWS_AS((void)read(bench, *bench.submit("", "fatal")), serve::ApiFailure);
  bench.pump([&] { return !bench.thread.state().fatal.empty(); });
  set_log_sink(&lmd::detail::log_to_stderr);
}

TEST_CASE("an idle engine gives signs of life, a hung one does not") {
  Bench bench;
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  CHECK(bench.thread.silence() < std::chrono::milliseconds(550));
  bench.hooks.hangs = true;
  const auto running = bench.submit("");
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  CHECK(bench.thread.silence() > std::chrono::milliseconds(300));
  bench.hooks.hangs = false;
  CHECK(read(bench, *running) == "abc");
}
