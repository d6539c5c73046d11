/// \file  One connection: requests in, responses out, and what happens while an answer is made.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/http/connection_io.hpp>
#include <lmd/serve/http/request_reader.hpp>
#include <lmd/serve/http/server_core.hpp>

#include <exception>
#include <memory>
#include <string>
#include <utility>

namespace lmd::serve {

namespace detail {

/// Does something at the end of a block, however that is left.
template <class F>
class Finally {
 public:
  explicit Finally(F f) : f_(std::move(f)) {}
  Finally(const Finally&) = delete;
  Finally& operator=(const Finally&) = delete;
  ~Finally() {
    try {
      f_();
    } catch (const std::exception&) {
      // There is no memory for more; what matters was done first.
    }
  }

 private:
  F f_;
};

}  // namespace detail

/// Reads requests one after the other, and answers each before the next.
class Connection final : public ConnectionIo {
 public:
  using ConnectionIo::ConnectionIo;

  /// Until the connection has ended.
  asio::awaitable<void> run() {
    bool goes_on = co_await open();
    while (goes_on) {
      Exchange x;
      try {
        goes_on = co_await serve_one(x);
      } catch (const std::exception& e) {
        give_up(x, e.what());
        co_return;
      }
    }
    co_await linger();
    close();
  }

  /// Ends it if no request has begun.
  void close_if_idle() {
    if (is_idle_) close();
  }

 private:
  /// A request and what became of it, for the log.
  struct Exchange {
    std::shared_ptr<Job> job = std::make_shared<Job>();
    Clock::time_point begin = Clock::now();
    int status = 0;
    std::size_t n_bytes = 0;
    bool keeps_alive = true;
    bool is_stream = false;
    bool has_head = false;  ///< the head of a stream was sent
    ApiError failure = {};  ///< of a call that is broken
  };

  /// What went wrong belongs to this connection alone. Whatever was sent, the client sees that it broke off.
  void give_up(Exchange& x, const char* why) {
    close();
    constexpr int kInternalError = 500;
    if (x.job->head.request_id.empty()) x.job->head.request_id = core_.make_request_id();
    if (x.job->head.peer.empty()) x.job->head.peer = peer_;
    x.status = kInternalError;
    core_.note_failure(*x.job, why);
    note_end(x);
  }

  /// Reads a request and answers it. False: it was the connection's last.
  asio::awaitable<bool> serve_one(Exchange& x) {
    auto reader = std::make_unique<RequestReader>(core_.options.limits);
    const bool has_head = co_await read_head(*reader, x);
    if (!has_head) co_return false;
    Job& job = *x.job;
    auto early = core_.reply_early(job.head, job);
    if (early && !reader->has_small_rest()) x.keeps_alive = false;
    if (!early || x.keeps_alive) {
      const bool has_body = co_await read_body(*reader, x);
      if (!has_body) co_return false;
    }
    job.body = reader->take_body();
    reader.reset();
    if (early) {
      co_await send(*early, x);
    } else if (job.route->runs_on == RunsOn::kIoThread) {
      const HttpReply reply = core_.reply_now(job);
      co_await send(reply, x);
    } else {
      // Others may have come while the body did.
      early = core_.refuse_call();
      if (early)
        co_await send(*early, x);
      else
        co_await serve_call(x);
    }
    note_end(x);
    co_return x.keeps_alive && !is_gone();
  }

  asio::awaitable<bool> read_head(RequestReader& reader, Exchange& x) {
    const HttpLimits& limits = core_.options.limits;
    auto deadline = Clock::now() + (is_first_ ? limits.header_time : limits.idle_time);
    bool has_begun = false;
    for (;;) {
      if (!unparsed_.empty()) {
        if (!std::exchange(has_begun, true)) {
          is_idle_ = false;
          x.begin = Clock::now();
          if (!is_first_) deadline = x.begin + limits.header_time;
        }
        reader.put_head(unparsed_);
      }
      if (reader.failure() || reader.has_head()) break;
      if (is_gone()) co_return false;
      is_idle_ = unparsed_.empty() && !has_begun && !is_first_;
      read_some(kSmallRead);
      const bool is_in_time = co_await wait(deadline);
      if (!is_in_time && !has_begun) co_return false;
      if (!is_in_time) reader.fail(ErrorCase::kReadTimeout);
    }
    if (reader.failure()) {
      co_await refuse(*reader.failure(), x);
      co_return false;
    }
    is_first_ = false;
    x.job->head = reader.head(peer_);
    if (x.job->head.request_id.empty()) x.job->head.request_id = core_.make_request_id();
    x.keeps_alive = x.job->head.keeps_alive;
    co_return true;
  }

  asio::awaitable<bool> read_body(RequestReader& reader, Exchange& x) {
    const auto deadline = Clock::now() + core_.options.limits.body_time;
    if (reader.expects_continue() && unparsed_.empty()) {
      pending_ += "HTTP/1.1 100 Continue\r\n\r\n";
      (void)co_await flush();
    }
    x.job->share = std::make_unique<BodyShare>(core_.body_bytes);
    for (;;) {
      reader.put_body(unparsed_);
      x.job->share->grow_to(reader.body_size());
      if (core_.body_bytes > core_.options.limits.all_body_bytes)
        reader.fail(ErrorCase::kQueueFull);
      if (reader.failure()) break;
      if (reader.is_complete()) co_return true;
      if (is_gone()) co_return false;
      read_some(reader.has_small_rest() ? kSmallRead : kLargeRead);
      const bool is_in_time = co_await wait(deadline);
      if (!is_in_time) reader.fail(ErrorCase::kReadTimeout);
    }
    co_await refuse(*reader.failure(), x);
    co_return false;
  }

  /// Answers what is no request, or not one that will be read; the connection ends with it.
  asio::awaitable<void> refuse(ErrorCase what, Exchange& x) {
    x.keeps_alive = false;
    if (x.job->head.request_id.empty()) x.job->head.request_id = core_.make_request_id();
    x.job->head.peer = peer_;
    const HttpReply reply = core_.error(what);
    co_await send(reply, x);
    note_end(x);
  }

  /// Fields that every response has.
  HttpHead begin_head(int status, Exchange& x) {
    const RequestHead& head = x.job->head;
    x.status = status;
    x.keeps_alive &= core_.phase != Phase::kDraining;
    HttpHead out(status);
    out.add("Date", core_.date());
    out.add("Server", "lmd");
    out.add("X-Request-Id", head.request_id);
    out.add("X-Content-Type-Options", "nosniff");
    for (const auto& [name, value] : cross_origin_fields(core_.options.cross_origin, head.origin))
      out.add(name, value);
    if (!x.keeps_alive)
      out.add("Connection", "close");
    else if (head.is_http_1_0)
      out.add("Connection", "keep-alive");
    return out;
  }

  asio::awaitable<void> send(const HttpReply& reply, Exchange& x) {
    HttpHead out = begin_head(reply.status, x);
    const bool has_body = reply.status != 204 && reply.status != 304;
    if (has_body) {
      out.add("Content-Type", reply.content_type);
      out.add("Content-Length", std::to_string(reply.body.size()));
    }
    for (const auto& [name, value] : reply.headers)
      out.add(name, value);
    pending_ += std::move(out).finish();
    if (has_body && x.job->head.method != "HEAD") {
      pending_ += reply.body;
      x.n_bytes += reply.body.size();
    }
    (void)co_await flush();
  }

  /// Has a worker run the endpoint, and the engine what it asks for.
  asio::awaitable<void> serve_call(Exchange& x) {
    Job& job = *x.job;
    job.slot = std::make_unique<CallSlot>(core_.n_calls);
    note_begin(x);
    bool is_done = false;
    const detail::Finally leave_job([&] { job.is_left = true; });  // `is_done` ends here
    core_.start(x.job, [self = shared_from_this(), &is_done] {
      is_done = true;
      self->wake();
    });
    while (!is_done && !is_gone()) {
      watch();
      (void)co_await wait(Clock::now() + kLong);
    }
    if (!is_done) {
      note_gone(x);
      co_return;
    }
    job.body = {};
    job.share.reset();
    if (const auto* reply = std::get_if<HttpReply>(&job.result)) {
      co_await send(*reply, x);
    } else {
      const auto running = std::get<std::shared_ptr<RunningCall>>(job.result);
      const detail::Finally leave_call([&] { core_.engine->cancel(running->leave()); });
      co_await serve_running(*running, x);
    }
    job.slot.reset();
  }

  /// Hands a call what the engine says, and the client what the call says.
  asio::awaitable<void> serve_running(RunningCall& running, Exchange& x) {
    const HttpLimits& limits = core_.options.limits;
    ApiCall& call = running.call();
    x.is_stream = call.is_stream();
    running.on_event(limits.unread_events, [this] { wake(); });
    unparsed_.shrink_to_fit();
    bool is_in_time = true;
    while (!call.has_ended()) {
      watch();
      if (is_writing_ && (!is_in_time || running.n_unread() > limits.unread_events)) cut_slow(x);
      if (is_gone()) {
        note_gone(x);
        co_return;
      }
      if (!is_in_time && has_pings(call)) append_text(call, ": ping\n\n", x);
      if (!is_writing_ && !hand_over(running, x)) {
        co_await fail_call(x);
        co_return;
      }
      write_pending();
      if (call.has_ended()) break;
      const auto deadline = is_writing_ ? write_deadline_ : ping_time(call);
      is_in_time = co_await wait(deadline);
    }
    if (x.is_stream) {
      if (!x.job->head.is_http_1_0) pending_ += kLastChunk;
      (void)co_await flush();
    } else {
      co_await send_reply_of(running, x);
    }
  }

  /// Gives the call its events; what a stream says of them is pending. False: it failed.
  bool hand_over(RunningCall& running, Exchange& x) {
    try {
      ApiCall& call = running.call();
      std::string text;
      for (const AnswerEvent& event : running.take_events()) {
        if (event.finish == engine::FinishReason::kDeadline)
          throw ApiFailure({.what = ErrorCase::kUnavailable});
        if (!call.has_ended()) call.on_event(event, text);
      }
      std::vector<engine::RequestId> finished;
      for (const EarlyEnd& end : call.take_finished_early()) {
        running.times(end.answer).is_whole = end.is_whole;
        finished.push_back(running.ids()[static_cast<std::size_t>(end.answer)]);
      }
      core_.engine->cancel(finished);
      if (x.is_stream) append_text(call, text, x);
      return true;
    } catch (const ApiFailure& e) {
      x.failure = e.error();
    } catch (const std::exception& e) {
      core_.note_failure(*x.job, e.what());
    }
    return false;
  }

  /// Puts what a stream says into a chunk, behind the head if it is the first.
  void append_text(const ApiCall& call, std::string_view text, Exchange& x) {
    if (text.empty() && x.has_head) return;
    if (text.empty() && !call.has_ended()) return;
    if (!x.has_head) {
      if (x.job->head.is_http_1_0) x.keeps_alive = false;  // the connection's end is the body's
      HttpHead out = begin_head(200, x);
      out.add("Content-Type", call.stream_content_type());
      out.add("Cache-Control", "no-store");
      out.add("X-Accel-Buffering", "no");
      if (!x.job->head.is_http_1_0) out.add("Transfer-Encoding", "chunked");
      pending_ += std::move(out).finish();
      x.has_head = true;
    }
    x.n_bytes += text.size();
    if (x.job->head.is_http_1_0)
      pending_ += text;
    else
      append_chunk(pending_, text);
  }

  [[nodiscard]] bool has_pings(const ApiCall& call) const {
    return call.is_stream() && call.stream_content_type() == "text/event-stream" &&
           core_.options.sse_ping_period.count() > 0;
  }
  [[nodiscard]] Clock::time_point ping_time(const ApiCall& call) const {
    return Clock::now() + (has_pings(call) ? core_.options.sse_ping_period : kLong);
  }

  /// A reply may be long: a worker writes it.
  asio::awaitable<void> send_reply_of(RunningCall& running, Exchange& x) {
    struct Written {
      std::shared_ptr<Job> job;
      std::shared_ptr<ApiCall> call;
      HttpReply reply = {};
      bool is_done = false;
    };
    const auto written = std::make_shared<Written>(Written{x.job, running.shared_call()});
    // Moved on from lambda to lambda: what they hold is destroyed on the I/O thread.
    asio::post(core_.workers, [written, self = shared_from_this(), this]() mutable {
      core_.guard(
          *written->job, [&] { written->reply = written->call->reply(); }, written->reply);
      asio::post(core_.io, [written = std::move(written), self = std::move(self)] {
        written->is_done = true;
        self->wake();
      });
    });
    while (!written->is_done)  // even if the client leaves: the call is the worker's until then
      (void)co_await wait(Clock::now() + kLong);
    if (is_gone())
      note_gone(x);
    else
      co_await send(written->reply, x);
  }

  /// The call itself is broken, or waited too long. A stream that has begun says so and ends.
  asio::awaitable<void> fail_call(Exchange& x) {
    if (!x.has_head) {
      const HttpReply reply = error_reply(x.failure, core_.options.compat);
      co_await send(reply, x);
      co_return;
    }
    if (x.job->head.is_http_1_0) {
      pending_ += stream_error(x.failure);
    } else {
      append_chunk(pending_, stream_error(x.failure));
      pending_ += kLastChunk;
    }
    (void)co_await flush();
  }

  void cut_slow(Exchange& x) {
    core_.log.write(LogLevel::kWarn, "a client reads too slowly and is cut",
                    {{"request_id", x.job->head.request_id}});
    close();
  }

  void note_gone(Exchange& x) {
    constexpr int kClientClosedRequest = 499;
    x.status = kClientClosedRequest;
    x.keeps_alive = false;
    core_.metrics.on_client_gone();
  }

  void note_begin(const Exchange& x) const {
    const Job& job = *x.job;
    const int n = core_.options.logged_body_bytes;
    if (n == 0) return;
    core_.log.write(LogLevel::kInfo, "request",
                    {{"request_id", job.head.request_id},
                     {"path", job.head.path},
                     {"body", std::string_view(job.body).substr(0, static_cast<std::size_t>(n))}});
  }

  void note_end(const Exchange& x) {
    const RequestHead& head = x.job->head;
    const double seconds = std::chrono::duration<double>(Clock::now() - x.begin).count();
    // Both views: of a string and a literal the conditional would make a string that is gone.
    const std::string_view route =
        x.job->route != nullptr ? std::string_view(x.job->route->path) : std::string_view("other");
    core_.metrics.on_response(route, x.status, seconds);
    const bool is_check = head.path.starts_with("/health") || head.path == "/metrics";
    core_.log.write(is_check ? LogLevel::kDebug : LogLevel::kInfo, "access",
                    {{"request_id", head.request_id},
                     {"client", head.peer},
                     {"method", head.method},
                     {"path", std::string_view(head.path).substr(0, kMaxLoggedPath)},
                     {"status", x.status},
                     {"bytes", x.n_bytes},
                     {"seconds", seconds}});
  }

  static constexpr std::size_t kMaxLoggedPath = 200;

  bool is_first_ = true;  // no request has been read
  bool is_idle_ = false;  // between requests
};

}  // namespace lmd::serve
