/// \file  Tests of the gateway between browser and API server, with a scripted one behind it.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/http/blocking_client.hpp>
#include <lmd/serve/http/page_gateway.hpp>

#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "scripted_server.hpp"
#include <boost/asio/read.hpp>
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::serve;
using lmd::test::ScriptedServer;
using lmd::test::ServerScript;
using namespace std::chrono_literals;

namespace {

constexpr StaticFile kFiles[] = {
    {"/", "text/html", "<p>page</p>", "zip", "e1", false},
    {"/assets/1/a.js", "text/javascript", "a()", {}, "e2", true},
};

const std::string kOk =
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\nX-Request-Id: r1\r\n"
    "Set-Cookie: a=b\r\nAccess-Control-Allow-Origin: *\r\n\r\n{}";

/// A gateway on a thread of its own.
class Running {
 public:
  explicit Running(const std::string& upstream, GatewayOptions options = {}) {
    options.upstream = parse_url(upstream);
    options.port = 0;
    gateway_.emplace(io_, std::move(options), StaticFiles(kFiles));
    gateway_->start();
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Running() {
    boost::asio::post(io_, [this] { gateway_->stop(); });
    thread_.join();
  }

  [[nodiscard]] std::string url() const {
    return "http://127.0.0.1:" + std::to_string(gateway_->port());
  }
  [[nodiscard]] BlockingClient client() const { return BlockingClient(parse_url(url())); }
  [[nodiscard]] ClientResponse fetch(const ClientRequest& request) const {
    return client().fetch(request);
  }
  /// What comes for the lines of a head, until the gateway ends the connection.
  [[nodiscard]] std::string answer(const std::string& head) const {
    boost::asio::io_context io;
    boost::asio::ip::tcp::socket socket(io);
    socket.connect({boost::asio::ip::address_v4::loopback(), gateway_->port()});
    boost::asio::write(socket, boost::asio::buffer(head + "\r\n"));
    std::string text;
    boost::system::error_code end;
    boost::asio::read(socket, boost::asio::dynamic_buffer(text), end);
    return text;
  }

 private:
  boost::asio::io_context io_{1};
  std::optional<PageGateway> gateway_;
  std::thread thread_;
};

const std::string kNobody = "http://127.0.0.1:1";  // a port where nobody listens

}  // namespace

TEST_CASE("the page: policy, caching, compression, nothing else") {
  const Running gateway(kNobody);
  const ClientResponse page = gateway.fetch({.target = "/"});
  CHECK(page.head.status == 200);
  CHECK(page.body == "<p>page</p>");
  CHECK(page.head.header("content-security-policy") == kContentSecurityPolicy);
  CHECK(page.head.header("cache-control") == "no-cache");
  CHECK(page.head.header("x-content-type-options") == "nosniff");
  const ClientResponse packed =
      gateway.fetch({.target = "/", .headers = {{"Accept-Encoding", "br, gzip"}}});
  CHECK(packed.body == "zip");
  CHECK(packed.head.header("content-encoding") == "gzip");
  CHECK(gateway.fetch({.target = "/", .headers = {{"If-None-Match", "\"e1\""}}}).head.status ==
        304);
  const ClientResponse asset = gateway.fetch({.target = "/assets/1/a.js?x"});
  CHECK(asset.body == "a()");
  CHECK(asset.head.header("cache-control").find("immutable") != std::string_view::npos);
  CHECK(gateway.fetch({.method = "HEAD", .target = "/"}).body.empty());
  CHECK(gateway.fetch({.method = "POST", .target = "/"}).head.status == 405);
}

TEST_CASE("paths that are not handed on") {
  const Running gateway(kNobody);
  for (const char* path : {"/metrics", "/v1/../metrics", "/v1/%2e%2e/metrics", "/v1//x", "/v1\\x",
                           "/admin", "/assets/1/b.js", "/v1/./x"})
    CHECK_MESSAGE(gateway.fetch({.target = path}).head.status == 404, path);
  CHECK(gateway.fetch({.method = "DELETE", .target = "/v1/models"}).head.status == 405);
}

TEST_CASE("a request as the API server sees it, and its answer as the browser does") {
  ScriptedServer upstream({{{{kOk}, {kOk}}}});
  {
    const Running gateway(upstream.url() + "/base/", {.api_key = "secret"});
    BlockingClient browser = gateway.client();
    const ClientResponse answer = browser.fetch({.method = "POST",
                                                 .target = "/v1/chat/completions?a=b",
                                                 .headers = {{"Origin", gateway.url()},
                                                             {"Cookie", "c=d"},
                                                             {"Referer", gateway.url()},
                                                             {"Content-Type", "application/json"}},
                                                 .body = "{\"x\":1}"});
    CHECK(answer.head.status == 200);
    CHECK(answer.body == "{}");
    CHECK(answer.head.header("x-request-id") == "r1");
    CHECK(answer.head.header("set-cookie").empty());
    CHECK(answer.head.header("access-control-allow-origin").empty());
    (void)browser.fetch({.target = "/v1/models", .headers = {{"Authorization", "Bearer own"}}});
  }
  REQUIRE(upstream.requests.size() == 2);
  const std::string& first = upstream.requests[0];
  CHECK(first.starts_with("POST /base/v1/chat/completions?a=b HTTP/1.1\r\n"));
  CHECK(first.find("Authorization: Bearer secret\r\n") != std::string::npos);
  CHECK(first.find("Content-Type: application/json\r\n") != std::string::npos);
  CHECK(first.ends_with("\r\n\r\n{\"x\":1}"));
  for (const char* name : {"Origin:", "Cookie:", "Referer:"})
    CHECK_MESSAGE(first.find(name) == std::string::npos, name);
  CHECK(upstream.requests[1].find("Authorization: Bearer own\r\n") != std::string::npos);
}

TEST_CASE("pages of other origins are refused, whatever Host they name") {
  const Running gateway(kNobody);
  const auto status = [&](const std::string& origin, const std::string& path) {
    return gateway.fetch({.target = path, .headers = {{"Origin", origin}}}).head.status;
  };
  CHECK(status(gateway.url(), "/v1/models") == 502);
  CHECK(status("http://evil.example", "/v1/models") == 403);
  CHECK(status("http://evil.example", "/") == 200);  // is nobody's secret
  CHECK(status("null", "/v1/models") == 403);
}

TEST_CASE("a page behind a name that was rebound reads nothing") {
  GatewayOptions options;
  options.cross_origin.hosts = {"box.lan"};
  const Running gateway(kNobody, options);
  const auto answer = [&](const std::string& host, const std::string& path,
                          bool is_browser = true) {
    return gateway.answer("GET " + path + " HTTP/1.1\r\nConnection: close\r\nHost: " + host +
                          (is_browser ? "\r\nAccept-Language: en\r\n" : "\r\n"));
  };
  CHECK(answer("rebound.example", "/v1/models").starts_with("HTTP/1.1 403 "));
  CHECK(answer("rebound.example", "/").starts_with("HTTP/1.1 200 "));
  CHECK(answer("rebound.example", "/v1/models", false).starts_with("HTTP/1.1 502 "));
  CHECK(answer("localhost:6006", "/v1/models").starts_with("HTTP/1.1 502 "));
  CHECK(answer("box.lan", "/v1/models").starts_with("HTTP/1.1 502 "));
}

TEST_CASE("what is refused is refused before its body is there") {
  const Running gateway(kNobody);
  const std::string rest = "Host: localhost\r\nContent-Length: 1000000\r\n";
  CHECK(gateway.answer("POST /metrics HTTP/1.1\r\n" + rest).starts_with("HTTP/1.1 404 "));
  CHECK(gateway.answer("DELETE /v1/x HTTP/1.1\r\n" + rest).starts_with("HTTP/1.1 405 "));
  CHECK(gateway.answer("POST /v1/x HTTP/1.1\r\nOrigin: http://evil.example\r\n" + rest)
            .starts_with("HTTP/1.1 403 "));
  CHECK(gateway.answer("POST /v1/x HTTP/1.1\r\nOrigin: null\r\nExpect: 100-continue\r\n" + rest)
            .starts_with("HTTP/1.1 403 "));
  CHECK(gateway.answer("POST /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n")
            .starts_with("HTTP/1.1 404 "));
  BlockingClient browser = gateway.client();  // a small body costs no connection
  for (int i = 0; i < 2; ++i)
    CHECK(browser.fetch({.method = "POST", .target = "/metrics", .body = "{}"}).head.status == 404);
}

TEST_CASE("a stream comes through in its pieces") {
  const std::string chunks =
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"
      "d\r\ndata: {\"a\":1}\r\n2\r\n\n\n\r\n10\r\ndata: [DONE]\n\nxx\r\n0\r\n\r\n";
  ScriptedServer upstream({{{{.bytes = chunks, .in_bytes = true}}}});
  const Running gateway(upstream.url());
  BlockingClient browser = gateway.client();
  std::string text;
  int n_pieces = 0;
  browser.stream(
      {.method = "POST", .target = "/v1/completions"},
      [](const ResponseHead& head) { CHECK(head.header("content-type") == "text/event-stream"); },
      [&](std::string_view piece) {
        ++n_pieces;
        text += piece;
        return true;
      });
  CHECK(text == "data: {\"a\":1}\n\ndata: [DONE]\n\nxx");
  CHECK(n_pieces > 3);
}

TEST_CASE("an API server that is not there, breaks off, or says no") {
  const ClientResponse absent = Running(kNobody).fetch({.target = "/v1/models"});
  CHECK(absent.head.status == 502);
  CHECK(absent.body.find("did not answer") != std::string::npos);

  ScriptedServer upstream(
      {{{{"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nContent-Length: 1\r\n\r\nx"}}},
       {{{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"}}}});
  const Running gateway(upstream.url());
  const ClientResponse busy = gateway.fetch({.target = "/v1/models"});
  CHECK(busy.head.status == 429);
  CHECK(busy.head.header("retry-after") == "7");
  CHECK_THROWS_AS((void)gateway.fetch({.target = "/v1/models"}), ClientError);
}

TEST_CASE("a browser that leaves ends its request at the API server") {
  ScriptedServer upstream(
      {{{{.bytes = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
          .keeps_quiet = true}}}});
  const Running gateway(upstream.url());
  {
    BlockingClient browser = gateway.client();
    browser.stream(
        {.target = "/v1/models"}, [](const ResponseHead&) {},
        [](std::string_view) { return false; });
  }
  // The scripted server waits until its connection is closed; the test ends when it is.
}

TEST_CASE("too large, and not HTTP") {
  GatewayOptions options;
  options.body_bytes = 100;
  options.header_bytes = 1000;
  const Running gateway(kNobody, options);
  CHECK(gateway.fetch({.method = "POST", .target = "/v1/x", .body = std::string(101, ' ')})
            .head.status == 413);
  CHECK(gateway.fetch({.target = "/", .headers = {{"X", std::string(2000, 'x')}}}).head.status ==
        431);
  CHECK(gateway.fetch({.method = "G(T", .target = "/"}).head.status == 400);
}
