/// \file  The server: listens, takes connections, watches the engine, drains, reloads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/http/connection.hpp>
#include <lmd/serve/http/listen.hpp>
#include <lmd/serve/http/operation_routes.hpp>
#include <lmd/serve/sd_notify.hpp>

#include <atomic>
#include <csignal>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/signal_set.hpp>
#include <unistd.h>

namespace lmd::serve {

/// Exit status of a server whose engine cannot go on: EX_SOFTWARE. Who watches it starts it again.
inline constexpr int kEngineFailedStatus = 70;

/// One thread does all I/O: the one that calls `run`. Everything else is called before it, but for `serve`.
class Server {
 public:
  /// Errors:  \throws Error for keys or certificates that cannot be used.
  Server(ServerOptions options, StaticFiles files, ServerLog& log)
      : core_(std::move(options), files, log),
        acceptor_(core_.io),
        hang_up_(core_.io, SIGHUP),
        stop_signals_(core_.io),
        tick_(core_.io) {
    core_.routes.add(operation_routes(core_));
  }

  [[nodiscard]] ServerCore& core() { return core_; }

  /// Takes the port, so that a second server is told before it loads a model.
  ///
  /// Errors:  \throws Error(kConfig) naming address and port.
  void listen() { listen_on(acceptor_, core_.options.host, core_.options.port); }

  [[nodiscard]] int port() const { return acceptor_.local_endpoint().port(); }

  /// From another thread: the model is there. `routes` are added to those of the server.
  void serve(engine::Engine& engine, const std::string& model, std::vector<Route> routes) {
    asio::post(core_.io, [this, &engine, model, routes = std::move(routes)]() mutable {
      core_.routes.add(std::move(routes));
      core_.metrics.set_model(model);
      core_.engine = std::make_unique<EngineThread>(
          engine, [this] { asio::post(core_.io, [this] { deliver(); }); });
      core_.phase = Phase::kServing;
      stop_signals_.add(SIGTERM);
      stop_signals_.add(SIGINT);
      wait_for_stop();
      sd_notify("READY=1");
    });
  }

  /// Also read again on SIGHUP, beside keys and certificate: what `f` reads.
  void on_reload(std::function<void()> f) { reload_more_ = std::move(f); }

  /// Until a signal ended it. Returns the process's exit status.
  int run() {
    wait_for_hang_up();
    watch();
    core_.io.run();
    core_.workers.join();
    core_.io.restart();
    core_.io.poll();  // what workers still had to say
    if (core_.engine != nullptr) leave_engine();
    return status_;
  }

  /// From another thread: ends `run` at once.
  void stop() {
    asio::post(core_.io, [this] { finish(); });
  }

 private:
  static constexpr std::chrono::milliseconds kTick{100};
  static constexpr std::chrono::seconds kStatsPeriod{10};
  /// An engine that has been silent so long when the process ends is not waited for.
  static constexpr std::chrono::seconds kJoinPatience{5};

  void deliver() {
    core_.engine->deliver(
        [this](RunningCall& running, const AnswerEvent& event, Clock::time_point started) {
          core_.metrics.answers().on_event(running, event, started);
        });
  }

  /// Also what failed for want of memory is tried again, with the next tick.
  void keep_accepting() {
    if (is_accepting_ || !acceptor_.is_open()) return;
    is_accepting_ = true;
    asio::co_spawn(core_.io, accept(),
                   [this](const std::exception_ptr&) { is_accepting_ = false; });
  }

  asio::awaitable<void> accept() {
    while (acceptor_.is_open()) {
      auto [error, socket] = co_await acceptor_.async_accept(asio::as_tuple(asio::use_awaitable));
      if (!error) {
        try_take(std::move(socket));
      } else if (acceptor_.is_open()) {  // no file descriptor is left, or the client is gone
        asio::steady_timer pause(core_.io, kTick);
        (void)co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
      }
    }
  }

  /// A connection for which there is no memory must not end the others.
  void try_take(tcp::socket socket) {
    try {
      take(std::move(socket));
    } catch (const std::exception& e) {
      core_.log.write(LogLevel::kError, "a connection could not be taken", {{"reason", e.what()}});
    }
  }

  void take(tcp::socket socket) {
    error_code error;
    const tcp::endpoint peer = socket.remote_endpoint(error);
    if (error) return;
    if (core_.n_connections >= core_.options.limits.connections)
      return turn_away(std::move(socket));
    (void)socket.set_option(tcp::no_delay(true), error);
    std::unique_ptr<ByteStream> stream;
    if (core_.tls != nullptr)
      stream = std::make_unique<TlsStream>(std::move(socket), core_.tls);
    else
      stream = std::make_unique<PlainStream>(std::move(socket));
    const auto connection =
        std::make_shared<Connection>(core_, std::move(stream), peer.address().to_string());
    connections_.emplace(connection.get(), connection);
    asio::co_spawn(
        core_.io, [connection] { return connection->run(); },
        [this, key = connection.get()](const std::exception_ptr& failure) {
          connections_.erase(key);
          if (failure) core_.log.write(LogLevel::kError, "a connection failed");
        });
  }

  /// One line, without a coroutine or memory of its own.
  void turn_away(tcp::socket socket) {
    core_.metrics.on_turned_away();
    if (core_.tls != nullptr) return;
    const HttpReply reply = core_.error(ErrorCase::kUnavailable);
    HttpHead head(reply.status);
    head.add("Content-Type", reply.content_type);
    head.add("Content-Length", std::to_string(reply.body.size()));
    head.add("Retry-After", std::to_string(kRetryAfterSeconds));
    head.add("X-Request-Id", core_.make_request_id());
    head.add("Connection", "close");
    const std::string text = std::move(head).finish() + reply.body;
    error_code ignored;
    (void)socket.non_blocking(true, ignored);
    (void)socket.send(asio::buffer(text), 0, ignored);
  }

  void wait_for_hang_up() {
    hang_up_.async_wait([this](error_code error, int) {
      if (error) return;
      reload();
      wait_for_hang_up();
    });
  }

  /// What cannot be read stays as it was.
  void reload() {
    try {
      const ServerOptions& o = core_.options;
      ApiKeys keys(o.api_keys, o.api_keys_file);
      std::shared_ptr<asio::ssl::context> tls;
      if (!o.tls_certificate_file.empty())
        tls = make_tls_context(o.tls_certificate_file, o.tls_key_file);
      if (reload_more_) reload_more_();
      core_.keys = std::move(keys);
      core_.tls = std::move(tls);
      core_.log.write(LogLevel::kInfo, "reloaded keys, certificate and log level");
    } catch (const std::exception& e) {
      core_.log.write(LogLevel::kError, "reload failed, everything stays as it was",
                      {{"reason", e.what()}});
    }
  }

  void wait_for_stop() {
    stop_signals_.async_wait([this](error_code error, int signal) {
      if (error) return;
      if (core_.phase == Phase::kDraining) return finish();
      drain(signal == SIGTERM ? core_.options.drain_grace : std::chrono::milliseconds(0));
      wait_for_stop();
    });
  }

  /// From here /health/ready answers 404. Requests are still taken during the grace: a balancer needs a
  /// moment to look. Then nothing new comes in, and what runs may end.
  void drain(std::chrono::milliseconds grace) {
    core_.log.write(LogLevel::kInfo, "draining",
                    {{"connections", core_.n_connections}, {"calls", core_.n_calls}});
    sd_notify("STOPPING=1");
    core_.phase = Phase::kDraining;
    grace_end_ = Clock::now() + grace;
    drain_end_ = grace_end_ + core_.options.drain_time;
  }

  void watch() {
    keep_accepting();
    tick_.expires_after(kTick);
    tick_.async_wait([this](error_code error) {
      if (error) return;
      if (core_.phase == Phase::kDraining) go_on_draining();
      watch_engine();
      if (!is_finished_) watch();
    });
  }

  void go_on_draining() {
    const auto now = Clock::now();
    if (now < grace_end_) return;
    core_.takes_calls = false;
    close_acceptor();
    for_each_connection([](Connection& c) { c.close_if_idle(); });
    if (connections_.empty()) return finish();
    if (now < drain_end_) return;
    core_.log.write(LogLevel::kWarn, "the time to drain is over, what still runs is cut",
                    {{"calls", core_.n_calls}});
    finish();
  }

  void watch_engine() {
    if (core_.engine == nullptr) return;
    const Health health = core_.health();
    const HealthLimits& limits = core_.options.health;
    if (health.is_dead && status_ == 0) {
      core_.log.write(LogLevel::kError, "the engine cannot go on",
                      {{"reason", core_.engine->state().fatal}});
      status_ = kEngineFailedStatus;
      core_.phase = Phase::kDraining;  // what is being answered gets its error
      grace_end_ = Clock::now();
      drain_end_ = std::min(drain_end_, grace_end_ + std::chrono::seconds(1));
    }
    if (limits.restart.count() > 0 && health.silence > limits.restart) {
      core_.log.write(LogLevel::kError, "the engine hangs, the process ends",
                      {{"silent_ms", health.silence.count()}});
      leave(kEngineFailedStatus);
    }
    feed_watchdog(health);
    show_stats();
  }

  void feed_watchdog(const Health& health) {
    if (!watchdog_period_ || health.silence > core_.options.health.live) return;
    const auto now = Clock::now();
    if (now < watchdog_fed_ + *watchdog_period_ / 3) return;
    watchdog_fed_ = now;
    sd_notify("WATCHDOG=1");
  }

  /// Nothing while nothing happens.
  void show_stats() {
    const auto now = Clock::now();
    if (now < stats_shown_ + kStatsPeriod) return;
    const engine::EngineStats stats = core_.engine->state().stats;
    const double seconds = std::chrono::duration<double>(now - stats_shown_).count();
    const auto rate = [seconds](std::int64_t n) { return static_cast<double>(n) / seconds; };
    const std::int64_t prompt = stats.prompt_tokens - stats_.prompt_tokens;
    const std::int64_t generated = stats.generated_tokens - stats_.generated_tokens;
    const std::int64_t reused = stats.reused_tokens - stats_.reused_tokens;
    const AnswerMetrics& answers = core_.metrics.answers();
    const bool is_idle = generated == 0 && answers.running() + answers.waiting() == 0;
    stats_shown_ = now;
    stats_ = stats;
    if (is_idle) return;
    core_.log.write(LogLevel::kInfo, "stats",
                    {{"generated_per_s", rate(generated)},
                     {"prompt_per_s", rate(prompt)},
                     {"running", answers.running()},
                     {"waiting", answers.waiting()},
                     {"cached_share",
                      prompt > 0 ? static_cast<double>(reused) / static_cast<double>(prompt) : 0.0},
                     {"connections", core_.n_connections}});
  }

  template <class F>
  void for_each_connection(const F& f) {
    std::vector<std::shared_ptr<Connection>> all;  // as `f` may end them
    for (const auto& [key, weak] : connections_) {
      if (auto connection = weak.lock()) all.push_back(std::move(connection));
    }
    for (const auto& connection : all)
      f(*connection);
  }

  void close_acceptor() {
    error_code ignored;
    if (acceptor_.is_open()) (void)acceptor_.close(ignored);
  }

  void finish() {
    is_finished_ = true;
    close_acceptor();
    for_each_connection([](Connection& c) { c.close(); });
    tick_.cancel();
    hang_up_.cancel();
    stop_signals_.cancel();
  }

  /// The engine's thread ends with its step. One that hangs is left behind.
  void leave_engine() {
    if (core_.engine->silence() > kJoinPatience) leave(status_);
    core_.engine.reset();
  }

  /// Ends the process beside threads that cannot be joined.
  [[noreturn]] void leave(int status) {
    std::this_thread::sleep_for(kTick);  // the log's thread writes
    ::_exit(status);
  }

  ServerCore core_;
  tcp::acceptor acceptor_;
  asio::signal_set hang_up_;
  asio::signal_set stop_signals_;
  asio::steady_timer tick_;
  std::unordered_map<Connection*, std::weak_ptr<Connection>> connections_;
  std::function<void()> reload_more_;

  bool is_accepting_ = false;
  bool is_finished_ = false;
  int status_ = 0;
  Clock::time_point grace_end_{};
  Clock::time_point drain_end_ = Clock::time_point::max();

  std::optional<std::chrono::microseconds> watchdog_period_ = sd_watchdog_period();
  Clock::time_point watchdog_fed_{};
  Clock::time_point stats_shown_ = Clock::now();
  engine::EngineStats stats_;
};

}  // namespace lmd::serve
