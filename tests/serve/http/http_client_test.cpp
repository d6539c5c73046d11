/// \file  Tests of the HTTP client against answers written by hand.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/http/blocking_client.hpp>

#include <chrono>
#include <string>
#include <vector>

#include "scripted_server.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::serve;
using lmd::test::ScriptedServer;
using lmd::test::ServerScript;
using namespace std::chrono_literals;

namespace {

const ClientRequest kGet{.target = "/x"};

const std::string kHello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Id: 7\r\n\r\nhello";
const std::string kChunks =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    "3\r\nabc\r\n1;ext=1\r\nd\r\n0\r\nTrailer: x\r\n\r\n";

ClientResponse fetch_once(const ServerScript::Step& step, ClientLimits limits = {}) {
  ScriptedServer server({{{step}}});
  return BlockingClient(parse_url(server.url()), limits).fetch(kGet);
}

ClientFailure failure_of(const ServerScript::Step& step, ClientLimits limits = {}) {
  try {
    (void)fetch_once(step, limits);
  } catch (const ClientError& e) {
    return e.kind();
  }
  FAIL("no failure");
  return {};
}

}  // namespace

TEST_CASE("a response of known length, in one piece and byte by byte") {
  for (const bool in_bytes : {false, true}) {
    const ClientResponse response = fetch_once({.bytes = kHello, .in_bytes = in_bytes});
    CHECK(response.head.status == 200);
    CHECK(response.head.header("x-id") == "7");
    CHECK(response.head.header("x-none").empty());
    CHECK(response.body == "hello");
  }
}

TEST_CASE("chunks, in one piece and byte by byte") {
  for (const bool in_bytes : {false, true})
    CHECK(fetch_once({.bytes = kChunks, .in_bytes = in_bytes}).body == "abcd");
}

TEST_CASE("a body that ends with the connection, and none at all") {
  CHECK(fetch_once({.bytes = "HTTP/1.1 200 OK\r\n\r\nto the end"}).body == "to the end");
  CHECK(fetch_once({.bytes = "HTTP/1.1 204 No Content\r\n\r\n"}).body.empty());
  CHECK(fetch_once({.bytes = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n" + kHello})
            .body == "hello");
}

TEST_CASE("an error is an answer like others") {
  const ClientResponse response =
      fetch_once({.bytes = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"});
  CHECK(response.head.status == 404);
  CHECK(response.body == "{}");
}

TEST_CASE("the request as it is sent") {
  ScriptedServer server({{{{kHello}, {kHello}}}});
  BlockingClient client(parse_url(server.url()));
  (void)client.fetch({.method = "POST",
                      .target = "/v1/x?y=1",
                      .headers = {{"Content-Type", "application/json"}},
                      .body = "{\"a\":1}"});
  (void)client.fetch(kGet);
  const std::string host = server.url().substr(7);
  REQUIRE(server.requests.size() == 2);
  CHECK(server.requests[0] == "POST /v1/x?y=1 HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: lmd/" +
                                  kVersion +
                                  "\r\nContent-Length: 7\r\nContent-Type: application/json\r\n\r\n"
                                  "{\"a\":1}");
  CHECK(server.requests[1] ==
        "GET /x HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: lmd/" + kVersion + "\r\n\r\n");
}

TEST_CASE("control characters cannot smuggle a header") {
  ScriptedServer server({{{{kHello}}}});
  BlockingClient client(parse_url(server.url()));
  CHECK_THROWS_AS((void)client.fetch({.headers = {{"Authorization", "Bearer a\r\nX: y"}}}), Error);
  CHECK_THROWS_AS((void)client.fetch({.headers = {{"X\r\n", "y"}}}), Error);
  CHECK_THROWS_AS((void)client.fetch({.target = "/ HTTP/1.1\r\nX: y"}), Error);
  CHECK(client.fetch(kGet).body == "hello");
  CHECK(server.requests.size() == 1);
}

TEST_CASE("the connection is kept, and made anew where the server has closed it") {
  const std::string last = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
  ScriptedServer server({{{{kHello}, {kChunks}}}, {{{kHello}, {last}}}, {{{kHello}}}});
  BlockingClient client(parse_url(server.url()));
  CHECK(client.fetch(kGet).body == "hello");
  CHECK(client.fetch(kGet).body == "abcd");
  CHECK(client.fetch(kGet).body == "hello");  // the first script is over: the second connection
  CHECK(client.fetch(kGet).body == "x");
  CHECK(client.fetch(kGet).body == "hello");
}

TEST_CASE("a request on a kept connection that ends without a byte is sent once more, no oftener") {
  ScriptedServer server({{{{kHello}, {""}}}, {{{""}}}});
  BlockingClient client(parse_url(server.url()));
  CHECK(client.fetch(kGet).body == "hello");
  CHECK_THROWS_AS((void)client.fetch(kGet), ClientError);
  CHECK(server.requests.size() == 3);
}

TEST_CASE("a connection that ends too early") {
  for (std::size_t n = 0; n < kHello.size(); ++n) {
    CAPTURE(n);
    CHECK(failure_of({.bytes = kHello.substr(0, n)}) == ClientFailure::kCut);
  }
  for (std::size_t n = 0; n < kChunks.size(); ++n) {
    CAPTURE(n);
    CHECK(failure_of({.bytes = kChunks.substr(0, n)}) == ClientFailure::kCut);
  }
}

TEST_CASE("pieces that came before the end are handed out") {
  ScriptedServer server({{{{kChunks.substr(0, kChunks.find("1;ext"))}}}});
  BlockingClient client(parse_url(server.url()));
  std::string seen;
  const auto stream = [&] {
    client.stream(
        kGet, [](const ResponseHead& head) { CHECK(head.status == 200); },
        [&](std::string_view piece) {
          seen += piece;
          return true;
        });
  };
  CHECK_THROWS_AS(stream(), ClientError);
  CHECK(seen == "abc");
}

TEST_CASE("what is no HTTP") {
  const std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const std::string& bytes :
       {std::string("SSH-2.0-OpenSSH_9.2\r\n\r\n"), std::string(200, '\0'),
        std::string("HTTP/2 200\r\n\r\n"), std::string("HTTP/1.1 abc\r\n\r\n"),
        std::string("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        std::string("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), chunked + "zz\r\n",
        chunked + "3\r\nabcd\r\n0\r\n\r\n"}) {
    CAPTURE(bytes);
    CHECK(failure_of({.bytes = bytes}) == ClientFailure::kProtocol);
  }
}

TEST_CASE("headers and bodies are bounded") {
  const std::string large = "HTTP/1.1 200 OK\r\nX: " + std::string(40'000, 'x') + "\r\n";
  CHECK(failure_of({.bytes = large + "\r\n"}) == ClientFailure::kTooLarge);
  CHECK(failure_of({.bytes = "HTTP/1.1 200 OK\r\n" + std::string(100'000, 'x')}) ==
        ClientFailure::kTooLarge);
  CHECK(failure_of({.bytes = kHello}, {.max_body_bytes = 4}) == ClientFailure::kTooLarge);
  CHECK(failure_of({.bytes = kChunks}, {.max_body_bytes = 3}) == ClientFailure::kTooLarge);
  CHECK(fetch_once({.bytes = kHello}, {.max_body_bytes = 5}).body == "hello");
  const std::string body(1'000'000, 'y');
  CHECK(fetch_once({.bytes = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + body}).body ==
        body);
}

TEST_CASE("deadlines of the head and between pieces") {
  CHECK(failure_of({.bytes = "", .keeps_quiet = true}, {.head = 50ms}) == ClientFailure::kTimeout);
  CHECK(failure_of({.bytes = kHello.substr(0, 20), .keeps_quiet = true}, {.head = 50ms}) ==
        ClientFailure::kTimeout);
  CHECK(failure_of({.bytes = kHello.substr(0, kHello.size() - 1), .keeps_quiet = true},
                   {.idle = 50ms}) == ClientFailure::kTimeout);
}

TEST_CASE("nobody listens") {
  std::string url;
  {
    ScriptedServer server({});
    url = server.url();
  }
  BlockingClient client(parse_url(url));
  try {
    (void)client.fetch(kGet);
    FAIL("no failure");
  } catch (const ClientError& e) {
    CHECK(e.kind() == ClientFailure::kConnect);
    CHECK(std::string(e.what()) == url + ": Connection refused");
  }
}

TEST_CASE("a request that is no longer wanted ends at once") {
  ScriptedServer server({{{{.bytes = kHello.substr(0, 20), .keeps_quiet = true}}}});
  int n_asked = 0;
  BlockingClient client(parse_url(server.url()), {}, [&] { return ++n_asked == 2; });
  try {
    (void)client.fetch(kGet);
    FAIL("no failure");
  } catch (const ClientError& e) {
    CHECK(e.kind() == ClientFailure::kCancelled);
  }
}

TEST_CASE("a stream that is not wanted to its end leaves a client that connects anew") {
  ScriptedServer server({{{{kChunks}}}, {{{kHello}}}});
  BlockingClient client(parse_url(server.url()));
  client.stream(
      kGet, [](const ResponseHead&) {}, [](std::string_view) { return false; });
  CHECK(client.fetch(kGet).body == "hello");
}
