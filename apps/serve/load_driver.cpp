/// \file  The load of `lmd bench serve`: thousands of streams on one thread, timed as their bytes come.
// SPDX-License-Identifier: Apache-2.0
#include "load_driver.hpp"

#include <lmd/serve/http/http_client.hpp>
#include <lmd/serve/sse_reader.hpp>

#include <algorithm>
#include <chrono>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "answer_chunk.hpp"
#include "api_connection.hpp"
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <sys/resource.h>

namespace lmd::apps {

namespace asio = boost::asio;
using serve::ClientConnection;
using serve::ClientError;
using serve::ClientFailure;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);

/// What errors are counted under.
std::string kind_of(const ClientError& error) {
  switch (error.kind()) {
    case ClientFailure::kResolve:
      return "unknown host";
    case ClientFailure::kConnect:
      return "no connection";
    case ClientFailure::kTls:
      return "TLS";
    case ClientFailure::kTimeout:
      return "timeout";
    case ClientFailure::kCut:
      return "cut off";
    case ClientFailure::kTooLarge:
      return "too large";
    case ClientFailure::kProtocol:
      return "not an answer";
    case ClientFailure::kCancelled:
      return "ended";
    case ClientFailure::kStatus:
    case ClientFailure::kKey:
      break;
  }
  return error.status() == 0 ? "error in the stream" : "status " + std::to_string(error.status());
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

/// One answer as it comes.
struct AnswerTimes {
  RequestTimes times = {};
  std::vector<double> gap_s = {};
  std::int64_t n_events = 0;
  bool is_over = false;

  /// \throws ClientError.
  void take(std::string_view data, double now_s, const std::string& where) {
    if (data == "[DONE]") {
      is_over = true;
      return;
    }
    const AnswerChunk chunk = parse_answer_chunk(data, where);
    is_over |= !chunk.finish.empty();
    if (chunk.usage) {
      times.n_prompt = chunk.usage->prompt;
      times.n_cached = chunk.usage->cached;
      times.n_output = chunk.usage->completion;
      times.is_counted_by_server = true;
    }
    if (!chunk.has_tokens) return;
    if (n_events == 0) {
      times.first_s = now_s;
    } else {
      gap_s.push_back(now_s - times.last_s);
    }
    times.last_s = now_s;
    ++n_events;
  }

  /// \throws ClientError when it was no whole answer.
  void finish(const std::string& where) {
    if (!is_over)
      throw ClientError(ClientFailure::kCut, where + ": a stream ended before its answer did");
    if (n_events == 0)
      throw ClientError(ClientFailure::kProtocol, where + ": an answer has no tokens");
    if (!times.is_counted_by_server) times.n_output = n_events;
  }
};

class LoadDriver {
 public:
  LoadDriver(const LoadTarget& target, const LoadCase& c, const LoadPrompts& prompts)
      : target_(target), case_(c), prompts_(&prompts) {
    const auto timeout =
        std::chrono::milliseconds(static_cast<std::int64_t>(1e3 * target.timeout_s));
    limits_.head = limits_.idle = timeout;
    limits_.connect = std::min(std::chrono::milliseconds(30'000), timeout);
    headers_ = {{"Content-Type", "application/json"}};
    if (!target.key.empty()) headers_.emplace_back("Authorization", "Bearer " + target.key);
    path_ = target.base.path +
            (c.endpoint == "completions" ? "/v1/completions" : "/v1/chat/completions");
  }

  /// `is_warm_up`: the requests are those below 0, and the first that fails is thrown.
  [[nodiscard]] LoadRun run(const OnLoadProgress& on_progress, bool is_warm_up) {
    is_warm_up_ = is_warm_up;
    const double cpu_before = cpu_seconds();
    spawn(begin());
    spawn_clock();
    try {
      while (n_running_ > 0) {
        context_.run_for(std::chrono::milliseconds(100));
        if (failure_) std::rethrow_exception(failure_);
        if (on_progress) on_progress(n_ended_);
      }
    } catch (...) {
      stop();
      throw;
    }
    run_.seconds = last_end_s_;
    run_.cpu_share = (cpu_seconds() - cpu_before) / std::max(now_s(), 1e-9);
    stop();
    return std::move(run_);
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Connection = std::unique_ptr<ClientConnection>;

  struct Due {
    int index = 0;
    double scheduled_s = 0.0;
  };

  /// Keeps a connection among those that stop() ends.
  struct Active {
    Active(std::set<ClientConnection*>& all, ClientConnection& one) : all(all), one(one) {
      all.insert(&one);
    }
    Active(const Active&) = delete;
    Active& operator=(const Active&) = delete;
    ~Active() { all.erase(&one); }
    std::set<ClientConnection*>& all;
    ClientConnection& one;
  };

  [[nodiscard]] double now_s() const {
    return std::chrono::duration<double>(Clock::now() - start_).count();
  }

  void spawn(asio::awaitable<void> work) {
    ++n_running_;
    asio::co_spawn(context_, std::move(work), [this](const std::exception_ptr& failure) {
      --n_running_;
      if (failure && !failure_) failure_ = failure;
    });
  }

  /// Ends everything that is under way.
  void stop() {
    is_stopped_ = true;
    timer_.cancel();
    clock_.cancel();
    const std::set<ClientConnection*> active = active_;
    for (ClientConnection* connection : active)
      connection->close();
    context_.restart();
    context_.run();
    idle_.clear();
  }

  asio::awaitable<void> begin() {
    origin_ = co_await serve::resolve(target_.base);
    start_ = Clock::now();
    if (case_.is_open_loop()) {
      co_await schedule();
    } else {
      const int n_workers = std::min(case_.concurrency, case_.requests);
      for (int i = 0; i < n_workers; ++i)
        spawn(work());
    }
  }

  /// Open loop: lets requests come when they are due.
  asio::awaitable<void> schedule() {
    const std::vector<double> times = arrival_times(case_.requests, case_.request_rate, case_.seed);
    for (int i = 0; i < case_.requests && !is_stopped_; ++i) {
      const double due_s = times[static_cast<std::size_t>(i)];
      if (case_.seconds > 0.0 && due_s > case_.seconds) co_return;
      timer_.expires_at(start_ + std::chrono::duration_cast<Clock::duration>(
                                     std::chrono::duration<double>(due_s)));
      (void)co_await timer_.async_wait(kToken);
      due_.push_back({i, due_s});
      if (case_.concurrency == 0 || n_workers_ < case_.concurrency) spawn(work());
    }
  }

  /// The next request of this worker, or nothing for good.
  [[nodiscard]] std::optional<Due> next() {
    if (is_stopped_) return std::nullopt;
    if (case_.is_open_loop()) {
      if (due_.empty()) return std::nullopt;
      const Due due = due_.front();
      due_.pop_front();
      return due;
    }
    const double now = now_s();
    if (n_begun_ == case_.requests || (case_.seconds > 0.0 && now > case_.seconds))
      return std::nullopt;
    return Due{n_begun_++, now};
  }

  asio::awaitable<void> work() {
    ++n_workers_;
    Connection connection;
    if (idle_.empty()) {
      connection = std::make_unique<ClientConnection>(context_.get_executor(), origin_, limits_);
    } else {
      connection = std::move(idle_.back());
      idle_.pop_back();
    }
    while (const std::optional<Due> due = next()) {
      co_await ask(*connection, *due);
      ++n_ended_;
      last_end_s_ = now_s();
    }
    idle_.push_back(std::move(connection));
    --n_workers_;
  }

  /// One request: its times, or what became of it.
  asio::awaitable<void> ask(ClientConnection& connection, Due due) {
    const LoadPrompt prompt = prompts_->at(is_warm_up_ ? -1 - due.index : due.index);
    const serve::ClientRequest request{"POST", path_, headers_, load_body(case_, prompt)};
    const Active active(active_, connection);
    AnswerTimes answer;
    answer.times.scheduled_s = due.scheduled_s;
    answer.times.sent_s = now_s();
    try {
      co_await read_answer(connection, request, answer);
      answer.times.end_s = now_s();
      run_.answered.push_back(answer.times);
      run_.gap_s.insert(run_.gap_s.end(), answer.gap_s.begin(), answer.gap_s.end());
    } catch (const ClientError& error) {
      if (is_stopped_) co_return;
      connection.close();
      if (run_.errors.empty()) {
        run_.first_error = error.what();
        run_.first_failure = error.kind();
      }
      ++run_.errors[kind_of(error)];
      if (is_warm_up_) throw;
    }
  }

  asio::awaitable<void> read_answer(ClientConnection& connection,
                                    const serve::ClientRequest& request,
                                    AnswerTimes& answer) {
    const std::string where = target_.base.origin();
    const serve::ResponseHead head = co_await connection.send(request);
    if (head.status / 100 != 2) {
      const std::string body = co_await connection.read_body();
      throw status_error(where, head, body, !target_.key.empty());
    }
    if (head.header("content-type").find("json") != std::string_view::npos) {  // streams nothing
      const std::string body = co_await connection.read_body();
      answer.take(body, now_s(), where);
      answer.is_over = true;
      co_return answer.finish(where);
    }
    serve::SseReader reader;
    double came_s = 0.0;
    const auto on_event = [&](const serve::SseEvent& event) {
      answer.take(event.data, came_s, where);
    };
    for (;;) {
      const std::string_view piece = co_await connection.read_some();
      came_s = now_s();
      if (piece.empty()) break;
      reader.feed(piece, on_event);
    }
    reader.finish(on_event);
    answer.finish(where);
  }

  /// A clock of 10 ms on the same thread: how late it rings is how late events may have been seen.
  void spawn_clock() {
    constexpr std::chrono::milliseconds kPeriod{10};
    clock_.expires_after(kPeriod);
    clock_.async_wait([this](const boost::system::error_code& error) {
      if (error || is_stopped_) return;
      const auto late = Clock::now() - clock_.expiry();
      run_.lag_s.push_back(std::chrono::duration<double>(late).count());
      spawn_clock();
    });
  }

  LoadTarget target_;
  LoadCase case_;
  const LoadPrompts* prompts_;
  serve::ClientLimits limits_;
  std::vector<std::pair<std::string, std::string>> headers_;
  std::string path_;
  asio::io_context context_{1};
  asio::steady_timer timer_{context_};
  asio::steady_timer clock_{context_};
  serve::Origin origin_;
  std::vector<Connection> idle_;
  std::set<ClientConnection*> active_;
  std::deque<Due> due_;
  Clock::time_point start_ = Clock::now();
  LoadRun run_;
  std::exception_ptr failure_;
  double last_end_s_ = 0.0;
  int n_running_ = 0;  // coroutines
  int n_workers_ = 0;
  int n_begun_ = 0;
  int n_ended_ = 0;
  bool is_warm_up_ = false;
  bool is_stopped_ = false;
};

}  // namespace

LoadRun run_load(const LoadTarget& target,
                 const LoadCase& c,
                 const LoadPrompts& prompts,
                 const OnLoadProgress& on_progress) {
  return LoadDriver(target, c, prompts).run(on_progress, false);
}

void warm_up_server(const LoadTarget& target, const LoadCase& c, const LoadPrompts& prompts) {
  constexpr int kAtOnce = 8;
  LoadCase warm = c;
  warm.requests = c.warm_up;
  warm.concurrency = kAtOnce;
  warm.request_rate = 0.0;
  warm.seconds = 0.0;
  (void)LoadDriver(target, warm, prompts).run({}, true);
}

void allow_connections(int n) {
  constexpr rlim_t kOthers = 64;  // files that the process has open beside
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
  ::getrlimit(RLIMIT_NOFILE, &limit);
  LMD_REQUIRE(limit.rlim_cur >= static_cast<rlim_t>(n) + kOthers, ErrorCode::kConfig,
              std::to_string(n) + " connections: the system lets a process open " +
                  std::to_string(limit.rlim_cur) + " files; see `ulimit -n`");
}

}  // namespace lmd::apps
