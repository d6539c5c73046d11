/// \file  Heads of responses, chunks, request ids; what pages of other origins are told.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/cross_origin.hpp>
#include <lmd/serve/http_head.hpp>

#include <string>
#include <utility>

#include <doctest/doctest.h>

using namespace lmd::serve;

TEST_CASE("a head is lines, and no value can begin one") {
  HttpHead head(429);
  head.add("Retry-After", "1");
  head.add("Bad", "a\r\nInjected: b");
  head.add("Worse", std::string_view("a\0b", 3));
  head.add("Tab", "a\tb");
  CHECK(std::move(head).finish() ==
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nTab: a\tb\r\n\r\n");
  CHECK(reason_phrase(418) == "Other");
}

TEST_CASE("a chunk has its size in hexadecimal; nothing is no chunk, as that would be the end") {
  std::string out;
  append_chunk(out, std::string(26, 'x'));
  append_chunk(out, "");
  CHECK(out == "1a\r\n" + std::string(26, 'x') + "\r\n");
}

TEST_CASE("a request id is a word of up to 64 characters") {
  for (const char* good :
       {"a", "A-1_2.z", "0123456789012345678901234567890123456789012345678901234567890123"})
    CHECK(is_request_id(good));
  for (const char* bad : {"", "a b", "a\n", "a/b", "\xC3\xA9",
                          "01234567890123456789012345678901234567890123456789012345678901234"})
    CHECK_FALSE(is_request_id(bad));
}

TEST_CASE("without a key, pages of the server itself and allowed ones may talk to it") {
  CrossOrigin rules;
  rules.origins = {"https://good.example"};
  rules.hosts = {"box.lan"};
  const auto may = [&](const char* origin, const char* host) {
    return may_talk_without_key(rules, origin, host);
  };
  CHECK(may("http://localhost:23333", "localhost:23333"));
  CHECK(may("http://LOCALHOST:23333", "localhost:23333"));
  CHECK(may("http://0.0.0.0:23333", "0.0.0.0:23333"));
  CHECK(may("http://10.1.2.3", "10.1.2.3"));
  CHECK(may("http://[::1]:8000", "[::1]:8000"));
  CHECK(may("http://box.lan:8000", "box.lan:8000"));
  CHECK(may("https://good.example", "whatever"));
  CHECK_FALSE(may("http://evil.example", "localhost:23333"));
  CHECK_FALSE(may("http://evil.example:80", "evil.example:80"));  // a rebound name
  CHECK_FALSE(may("http://1.2.3.evil:80", "1.2.3.evil:80"));
  CHECK_FALSE(may("http://10.1.2.3.evil.example", "10.1.2.3.evil.example"));
  CHECK_FALSE(may("http://localhost:1", "localhost:2"));  // another server of this machine
  CHECK_FALSE(may("http://localhost.evil.example", "localhost.evil.example"));
  CHECK_FALSE(may("null", "localhost"));
  CHECK_FALSE(may("http://localhost", ""));
  CHECK_FALSE(may("", "localhost"));
}

TEST_CASE(
    "a browser that reads from a loopback address does so under a name that is the server's own") {
  CrossOrigin rules;
  rules.hosts = {"box.lan"};
  const auto may = [&](const char* host, bool is_browser, const char* bound_to = "127.0.0.1") {
    return may_ask_without_key(rules, bound_to, {"", host, is_browser});
  };
  for (const char* own :
       {"localhost:23333", "127.0.0.1:23333", "0.0.0.0:23333", "[::1]:23333", "box.lan", ""})
    CHECK(may(own, true));
  for (const char* other :
       {"rebound.example:23333", "127.0.0.1.rebound.example", "localhost.rebound.example"}) {
    CHECK_FALSE(may(other, true));
    CHECK_FALSE(may(other, true, "localhost"));
    CHECK_FALSE(may(other, true, "::1"));
    CHECK(may(other, false));
    CHECK(may(other, true, "0.0.0.0"));
  }
  CHECK_FALSE(may_ask_without_key(rules, "0.0.0.0", {"http://a.example", "a.example", true}));
  CHECK(may_ask_without_key(rules, "a.example", {"http://a.example", "a.example", true}));
  rules.origins = {"https://proxy.example"};
  CHECK(may("proxy.example", true));
  CHECK_FALSE(may("other.example", true));
}

TEST_CASE("with credentials no page gets a star") {
  CrossOrigin rules;
  rules.origins = {"*"};
  CHECK(cross_origin_fields(rules, "https://a.example")[0].second == "*");
  rules.has_credentials = true;
  CHECK(cross_origin_fields(rules, "https://a.example")[0].second == "https://a.example");
  CHECK(cross_origin_fields(rules, "").empty());
  rules.origins = {};
  CHECK(cross_origin_fields(rules, "https://a.example").empty());
}

TEST_CASE("a preflight is told what was allowed, or what there is") {
  CrossOrigin rules;
  HeaderFields fields = preflight_fields(rules, "POST, OPTIONS", "x-a");
  CHECK(fields[0].second == "POST, OPTIONS");
  CHECK(fields.back() ==
        std::pair<std::string, std::string>("Access-Control-Allow-Headers", "x-a"));
  rules.methods = {"GET", "POST"};
  rules.headers = {"authorization"};
  fields = preflight_fields(rules, "POST, OPTIONS", "x-a");
  CHECK(fields[0].second == "GET, POST");
  CHECK(fields.back().second == "authorization");
}
