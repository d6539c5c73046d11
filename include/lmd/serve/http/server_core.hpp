/// \file  What all connections share, and what is decided of a request before it is worked on.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/http/api_keys.hpp>
#include <lmd/serve/http/tls_context.hpp>
#include <lmd/serve/http_head.hpp>
#include <lmd/serve/route.hpp>
#include <lmd/serve/server_log.hpp>
#include <lmd/serve/server_options.hpp>
#include <lmd/serve/static_files.hpp>

#include <atomic>
#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <variant>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>

namespace lmd::serve {

namespace asio = boost::asio;

/// Of a request, what outlives its parser.
struct RequestHead {
  std::string method;
  std::string path;
  std::string query;
  std::string content_type;
  std::string host;
  std::string origin;
  std::string authorization;
  std::string accept_encoding;
  std::string if_none_match;
  std::string asked_headers;  ///< Access-Control-Request-Headers
  std::string request_id;     ///< valid, or empty
  std::string peer;           ///< the client's address
  bool is_browser = false;    ///< see Asker
  bool is_http_1_0 = false;
  bool keeps_alive = true;
};

/// One of the requests that are worked on at a time. Made and destroyed on the I/O thread.
class CallSlot {
 public:
  explicit CallSlot(int& n) : n_(&n) { ++*n_; }
  CallSlot(const CallSlot&) = delete;
  CallSlot& operator=(const CallSlot&) = delete;
  ~CallSlot() { --*n_; }

 private:
  int* n_;
};

/// The bytes of a body among those of all requests.
class BodyShare {
 public:
  explicit BodyShare(std::uint64_t& all) : all_(&all) {}
  BodyShare(const BodyShare&) = delete;
  BodyShare& operator=(const BodyShare&) = delete;
  ~BodyShare() { *all_ -= n_bytes_; }
  void grow_to(std::uint64_t n_bytes) {
    *all_ += n_bytes - n_bytes_;
    n_bytes_ = n_bytes;
  }

 private:
  std::uint64_t* all_;
  std::uint64_t n_bytes_ = 0;
};

/// A request on its way through a worker. Owns what its endpoint reads.
struct Job {
  RequestHead head;
  std::string body;
  std::uint64_t client = 0;
  const Route* route = nullptr;
  std::unique_ptr<CallSlot> slot;
  std::unique_ptr<BodyShare> share;  ///< of `body`, as long as that is held
  std::atomic<bool> is_left{false};  ///< nobody waits for the result
  std::variant<std::monostate, HttpReply, std::shared_ptr<RunningCall>> result;
};

class ServerCore {
 public:
  ServerCore(ServerOptions server_options, StaticFiles files, ServerLog& server_log)
      : options(std::move(server_options)),
        log(server_log),
        metrics("", options.metric_names),
        static_files(files),
        keys(options.api_keys, options.api_keys_file),
        workers(static_cast<std::size_t>(std::max(options.worker_threads, 1))) {
    if (!options.tls_certificate_file.empty())
      tls = make_tls_context(options.tls_certificate_file, options.tls_key_file);
  }

  ServerOptions options;
  ServerLog& log;
  ServerMetrics metrics;
  StaticFiles static_files;
  RouteTable routes;
  ApiKeys keys;
  std::shared_ptr<asio::ssl::context> tls;  ///< null: plain HTTP
  std::unique_ptr<EngineThread> engine;     ///< null while loading

  Phase phase = Phase::kLoading;
  bool takes_calls = true;  ///< false once the grace of a drain is over
  int n_connections = 0;
  int n_calls = 0;
  int n_preparing = 0;           ///< of these, what workers have to do
  std::uint64_t body_bytes = 0;  ///< of the bodies that are being read or worked on

  asio::io_context io{1};  ///< behind the counts: what it still holds when it ends counts down
  asio::thread_pool workers;

  [[nodiscard]] Health health() const {
    if (engine == nullptr) return {.phase = phase};
    return {.phase = phase,
            .silence = std::chrono::duration_cast<std::chrono::milliseconds>(engine->silence()),
            .is_dead = !engine->state().fatal.empty()};
  }

  [[nodiscard]] std::string metrics_text() const {
    ServerGauges gauges;
    gauges.connections = n_connections;
    gauges.preparing = n_preparing;
    if (engine != nullptr) {
      gauges.step_tokens = engine->step_tokens();
      gauges.engine = engine->state();
      gauges.engine_silence_s = std::chrono::duration<double>(engine->silence()).count();
    }
    gauges.is_ready = ready_reply(health(), options.health).status == 200;
    return metrics.text(gauges);
  }

  [[nodiscard]] HttpReply error(ErrorCase what, std::string message = {}) const {
    return error_reply({.what = what, .message = std::move(message)}, options.compat);
  }

  /// The reply to a request that no endpoint has to see. None: `job` has its route, and its client.
  [[nodiscard]] std::optional<HttpReply> reply_early(const RequestHead& head, Job& job) {
    const StaticFile* const file = static_files.find(head.path);
    if (file != nullptr && head.method != "OPTIONS") return reply_with(*file, head);
    if (const auto refused = refuse_origin(head)) return refused;
    if (head.method == "OPTIONS") return preflight(head);
    job.route = routes.find(head.method, head.path);
    const auto client = authorised(head);
    if (!client && (job.route == nullptr || job.route->needs_key))
      return error(ErrorCase::kUnauthorized);
    job.client = client.value_or(0);
    if (job.route == nullptr) return refuse_route(head);
    if (job.route->runs_on == RunsOn::kIoThread) return std::nullopt;
    return refuse_call();
  }

  /// Why no call can be taken now; none: one can.
  [[nodiscard]] std::optional<HttpReply> refuse_call() const {
    const Health now = health();
    const bool is_able = phase != Phase::kLoading && takes_calls && !now.is_dead &&
                         now.silence <= options.health.ready;
    if (!is_able) return error(ErrorCase::kUnavailable);
    if (options.limits.calls == 0 || n_calls < options.limits.calls) return std::nullopt;
    return error(ErrorCase::kQueueFull);
  }

  /// The reply of an endpoint that takes no time.
  [[nodiscard]] HttpReply reply_now(const Job& job) {
    HttpReply reply = error(ErrorCase::kInternal);
    guard(
        job, [&] { reply = std::get<HttpReply>(job.route->endpoint(request_of(job))); }, reply);
    return reply;
  }

  /// Runs the endpoint on a worker, and then `done` on the I/O thread, unless the job was left.
  void start(std::shared_ptr<Job> job, std::function<void()> done) {
    asio::post(workers, [this, job = std::move(job), done = std::move(done)]() mutable {
      work(*job);
      asio::post(io, [this, job = std::move(job), done = std::move(done)] {
        --n_preparing;
        const auto* running = std::get_if<std::shared_ptr<RunningCall>>(&job->result);
        if (running != nullptr) metrics.answers().on_submitted(**running);
        if (!job->is_left) return done();
        if (running != nullptr) engine->cancel((*running)->leave());
      });
    });
    ++n_preparing;
  }

  /// Runs `f`, which fills in a reply; what it throws becomes the reply.
  template <class F>
  void guard(const Job& job, const F& f, HttpReply& reply) const {
    try {
      f();
    } catch (const ApiFailure& e) {
      reply = error_reply(e.error(), options.compat);
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kBusy) note_failure(job, e.what());
      reply = error(e.code() == ErrorCode::kBusy ? ErrorCase::kQueueFull : ErrorCase::kInternal);
    } catch (const std::exception& e) {
      note_failure(job, e.what());
      reply = error(ErrorCase::kInternal);
    }
  }

  void note_failure(const Job& job, std::string_view what) const {
    log.write(LogLevel::kError, "a request failed",
              {{"request_id", job.head.request_id}, {"path", job.head.path}, {"reason", what}});
  }

  /// "Sat, 28 Nov 2026 05:45:32 GMT", made once a second.
  [[nodiscard]] const std::string& date() {
    const std::time_t now = std::time(nullptr);
    if (now == date_time_) return date_;
    date_time_ = now;
    std::tm utc{};
    ::gmtime_r(&now, &utc);
    char text[40];
    date_.assign(text, std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc));
    return date_;
  }

  [[nodiscard]] std::string make_request_id() {
    constexpr const char* kHex = "0123456789abcdef";
    std::string id = "req-";
    for (int i = 0; i < 2; ++i) {
      std::uint64_t bits = random_();
      for (int digit = 0; digit < 12; ++digit, bits >>= 4)
        id += kHex[bits & 15];
    }
    return id;
  }

 private:
  /// Without a key, whoever opens a web page would lend it this server: pages of other origins are refused.
  [[nodiscard]] std::optional<HttpReply> refuse_origin(const RequestHead& head) const {
    if (!keys.empty() || head.path.starts_with("/health")) return std::nullopt;
    const Asker asker{head.origin, head.host, head.is_browser};
    if (may_ask_without_key(options.cross_origin, options.host, asker)) return std::nullopt;
    return error(ErrorCase::kForbidden, kOtherOrigin);
  }

  [[nodiscard]] HttpReply preflight(const RequestHead& head) const {
    std::string methods = routes.methods_of(head.path);
    if (static_files.find(head.path) != nullptr) methods = kStaticMethods;
    if (methods.empty()) return error(ErrorCase::kNotFound);
    HttpReply reply{.status = 204, .body = "", .content_type = ""};
    reply.headers.emplace_back("Allow", methods);
    if (head.origin.empty() || !is_allowed_origin(options.cross_origin, head.origin)) return reply;
    for (auto& field : preflight_fields(options.cross_origin, methods, head.asked_headers))
      reply.headers.push_back(std::move(field));
    return reply;
  }

  [[nodiscard]] HttpReply reply_with(const StaticFile& file, const RequestHead& head) const {
    if (head.method != "GET" && head.method != "HEAD") return wrong_method(kStaticMethods);
    return static_reply(file, head.accept_encoding, head.if_none_match);
  }

  /// A number for the client: of its key, else of its address. None: it has to show a key, and did not.
  [[nodiscard]] std::optional<std::uint64_t> authorised(const RequestHead& head) const {
    if (keys.empty()) return std::hash<std::string>{}(head.peer);
    return keys.find(bearer_key(head.authorization));
  }

  [[nodiscard]] HttpReply refuse_route(const RequestHead& head) const {
    const std::string methods = routes.methods_of(head.path);
    if (!methods.empty()) return wrong_method(methods);
    // The model's endpoints come with the model.
    return error(phase == Phase::kLoading ? ErrorCase::kUnavailable : ErrorCase::kNotFound);
  }

  [[nodiscard]] HttpReply wrong_method(const std::string& methods) const {
    HttpReply reply = error(ErrorCase::kWrongMethod);
    reply.headers.emplace_back("Allow", methods);
    return reply;
  }

  [[nodiscard]] static ApiRequest request_of(const Job& job) {
    return {.method = job.head.method,
            .path = job.head.path,
            .query = job.head.query,
            .content_type = job.head.content_type,
            .body = job.body,
            .client = job.client,
            .request_id = job.head.request_id};
  }

  /// On a worker.
  void work(Job& job) {
    if (job.is_left) return;
    HttpReply reply;
    const auto run = [&] {
      ApiResult result = job.route->endpoint(request_of(job));
      if (auto* now = std::get_if<HttpReply>(&result)) {
        reply = std::move(*now);
        return;
      }
      if (job.is_left) return;
      job.result = engine->submit(std::get<std::unique_ptr<ApiCall>>(std::move(result)), job.client,
                                  options.queue_time);
    };
    guard(job, run, reply);
    if (std::holds_alternative<std::monostate>(job.result)) job.result = std::move(reply);
  }

  static constexpr const char* kStaticMethods = "GET, HEAD, OPTIONS";

  std::mt19937_64 random_{std::random_device{}()};
  std::time_t date_time_ = 0;
  std::string date_;
};

}  // namespace lmd::serve
