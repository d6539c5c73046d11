/// \file  Tests of the URL parser: what it takes apart, and what it refuses.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/url.hpp>

#include <string>

#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::serve;

TEST_CASE("a URL is taken apart") {
  const Url url = parse_url("http://localhost:23333");
  CHECK_FALSE(url.is_tls);
  CHECK(url.host == "localhost");
  CHECK(url.port == 23333);
  CHECK(url.path == "/");
  CHECK(url.query.empty());
  CHECK(url.authority() == "localhost:23333");
  CHECK(url.origin() == "http://localhost:23333");
}

TEST_CASE("ports have the scheme's default, and hosts are lower case") {
  const Url url = parse_url("HTTPS://Api.Example.COM/v1/a%2Fb?key=x%20y&z=?");
  CHECK(url.is_tls);
  CHECK(url.host == "api.example.com");
  CHECK(url.port == 443);
  CHECK(url.path == "/v1/a%2Fb");
  CHECK(url.query == "key=x%20y&z=?");
  CHECK(url.authority() == "api.example.com");
  CHECK(parse_url("http://h:443").authority() == "h:443");
  CHECK(parse_url("http://h").port == 80);
  CHECK(parse_url("http://h?q").path == "/");
}

TEST_CASE("addresses are hosts, too") {
  CHECK(parse_url("http://127.0.0.1:1").host == "127.0.0.1");
  for (const char* address :
       {"::1", "::", "1::", "fe80::1:2", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4"}) {
    CAPTURE(address);
    const Url url = parse_url("http://[" + std::string(address) + "]:8080/x");
    CHECK(url.host == address);
    CHECK(url.is_ipv6());
    CHECK(url.authority() == "[" + std::string(address) + "]:8080");
  }
}

TEST_CASE("what could be read in two ways is refused") {
  for (const char* text : {"",
                           "localhost",
                           "localhost:23333",
                           "//h",
                           "http:/h",
                           "http:///path",
                           "http://",
                           "ftp://h",
                           "file:///etc/passwd",
                           " http://h",
                           "http://h ",
                           "http://user@h",
                           "http://user:pass@h",
                           "http://good\\@evil",
                           "http://h\\.x",
                           "http://h#f",
                           "http://h/#f",
                           "http://h/a b",
                           "http://h/\n",
                           "http://h/\x01",
                           "http://h/%",
                           "http://h/%2",
                           "http://h/%zz",
                           "http://h/?%g0",
                           "http://h/\xC3\xA4",
                           "http://\xC3\xA4.de",
                           "http://h:",
                           "http://h:0",
                           "http://h:65536",
                           "http://h:-1",
                           "http://h:+1",
                           "http://h: 1",
                           "http://h:1x",
                           "http://h:99999999999999999999",
                           "http://.h",
                           "http://h.",
                           "http://a..b",
                           "http://-h",
                           "http://h-",
                           "http://h_/^",
                           "http://127.1",
                           "http://2130706433",
                           "http://0x7f000001",
                           "http://0x7f.1",
                           "http://1.2.3.256",
                           "http://1.2.3.04",
                           "http://1.2.3.4.5",
                           "http://[::1",
                           "http://::1",
                           "http://[::1]x",
                           "http://[]",
                           "http://[:]",
                           "http://[1:2]",
                           "http://[:::1]",
                           "http://[1::2::3]",
                           "http://[12345::]",
                           "http://[1:2:3:4:5:6:7:8:9]",
                           "http://[::1%25eth0]",
                           "http://[g::]",
                           "http://[::1.2.3]",
                           "http://[1.2.3.4::]"}) {
    CAPTURE(text);
    CHECK_THROWS_AS((void)parse_url(text), Error);
  }
  CHECK_THROWS_AS((void)parse_url("http://h/" + std::string(3000, 'a')), Error);
  CHECK_THROWS_AS((void)parse_url("http://" + std::string(64, 'a')), Error);
  CHECK_THROWS_AS((void)parse_url(std::string("http://h/\0", 10)), Error);
}

TEST_CASE("an error names what was to be a URL, without control characters") {
  CHECK_THROWS_WITH_AS((void)parse_url("h\x1b[2J", "api URL"),
                       "api URL 'h?[2J': must begin with http:// or https://", Error);
}
