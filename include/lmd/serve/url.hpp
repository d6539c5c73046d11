/// \file  Addresses of servers: the one parser of URLs. What it returns is what is connected to.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>

namespace lmd::serve {

/// An http or https URL, taken apart.
struct Url {
  bool is_tls = false;
  std::string host;  ///< lower case; an IPv6 address without its brackets
  std::uint16_t port = 80;
  std::string path = "/";  ///< begins with a slash; %XX as written
  std::string query = {};  ///< behind the question mark; empty: none

  [[nodiscard]] bool is_ipv6() const { return host.find(':') != std::string::npos; }
  [[nodiscard]] bool is_default_port() const { return port == (is_tls ? 443 : 80); }

  /// What a Host header says: the port only where it is not the scheme's own.
  [[nodiscard]] std::string authority() const {
    const std::string name = is_ipv6() ? '[' + host + ']' : host;
    return is_default_port() ? name : name + ':' + std::to_string(port);
  }
  /// "http://localhost:23333", without path and query
  [[nodiscard]] std::string origin() const {
    return (is_tls ? "https://" : "http://") + authority();
  }
};

namespace detail {

inline constexpr std::size_t kMaxUrlBytes = 2048;
inline constexpr std::size_t kMaxHostBytes = 253;  // RFC 1035: what a name server can be asked

[[nodiscard]] constexpr bool is_url_digit(char c) {
  return c >= '0' && c <= '9';
}
[[nodiscard]] constexpr bool is_url_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
[[nodiscard]] constexpr bool is_url_hex(char c) {
  return is_url_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/// RFC 3986, pchar and slash; of a query the question mark, too.
[[nodiscard]] inline bool is_url_text(std::string_view text, bool is_query) {
  constexpr std::string_view kMarks = "-._~!$&'()*+,;=:@/";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '%') {
      if (i + 2 >= text.size() || !is_url_hex(text[i + 1]) || !is_url_hex(text[i + 2]))
        return false;
      i += 2;
      continue;
    }
    const bool is_ok = is_url_letter(c) || is_url_digit(c) ||
                       kMarks.find(c) != std::string_view::npos || (is_query && c == '?');
    if (!is_ok) return false;
  }
  return true;
}

/// Labels of letters, digits, hyphens and underscores (which private networks use) between dots. A
/// name that ends in digits must be four decimal numbers: what else looks like an address
/// ("0x7f.1", "127.1", "2130706433") is read differently by different resolvers.
[[nodiscard]] inline bool is_host_name(std::string_view host) {
  if (host.empty() || host.size() > kMaxHostBytes) return false;
  std::size_t n_labels = 0;
  std::size_t n_octets = 0;
  std::string_view last;
  for (std::size_t begin = 0; begin <= host.size();) {
    const std::size_t end = std::min(host.find('.', begin), host.size());
    const std::string_view label = host.substr(begin, end - begin);
    const bool is_ok = !label.empty() && label.size() <= 63 && label.front() != '-' &&
                       label.back() != '-' && std::all_of(label.begin(), label.end(), [](char c) {
                         return is_url_letter(c) || is_url_digit(c) || c == '-' || c == '_';
                       });
    if (!is_ok) return false;
    int value = -1;
    const auto [stop, error] = std::from_chars(label.data(), label.data() + label.size(), value);
    const bool is_plain = label == "0" || (label.front() != '0' && label.front() != '-');
    if (error == std::errc() && stop == label.data() + label.size() && is_plain && value <= 255)
      ++n_octets;
    ++n_labels;
    last = label;
    begin = end + 1;
  }
  const bool is_numeric = std::all_of(last.begin(), last.end(), is_url_digit) ||
                          last.starts_with("0x") || last.starts_with("0X");
  return !is_numeric || (n_labels == 4 && n_octets == 4);
}

/// RFC 4291: groups of up to four hex digits, one run of zeros as "::", perhaps four decimal numbers
/// at the end. Zones ("%eth0") are not read.
[[nodiscard]] inline bool is_ipv6_address(std::string_view text) {
  int n_groups = 0;
  bool has_gap = false;
  std::size_t i = 0;
  if (text.starts_with("::")) {
    has_gap = true;
    i = 2;
  }
  while (i < text.size()) {
    const std::size_t end = std::min(text.find(':', i), text.size());
    const std::string_view group = text.substr(i, end - i);
    if (group.find('.') != std::string_view::npos) {
      n_groups += 2;
      if (end != text.size() || !is_host_name(group) || !is_url_digit(group.back())) return false;
      break;
    }
    if (group.empty() || group.size() > 4 || !std::all_of(group.begin(), group.end(), is_url_hex))
      return false;
    ++n_groups;
    i = end;
    if (i == text.size()) break;
    ++i;
    if (i == text.size()) return false;  // a single colon at the end
    if (text[i] != ':') continue;
    if (has_gap) return false;
    has_gap = true;
    ++i;
  }
  return has_gap ? n_groups <= 7 : n_groups == 8;
}

}  // namespace detail

/// Reads `text`, which `what` names in errors. Strict: scheme and host are required; user names,
/// fragments, backslashes, blanks, control characters and bytes beyond ASCII are refused, so that no
/// second reader can find another host in it.
///
/// Errors:  \throws Error(kConfig).
/// Source:  RFC 3986
[[nodiscard]] inline Url parse_url(std::string_view text, const std::string& what = "URL") {
  const auto require = [&](bool is_ok, const std::string& expected) {
    std::string shown;
    for (const char c : text.substr(0, 80))
      shown += c >= 0x20 && c < 0x7F ? c : '?';
    LMD_REQUIRE(is_ok, ErrorCode::kConfig, what + " '" + shown + "': " + expected);
  };
  require(text.size() <= detail::kMaxUrlBytes,
          "is longer than " + std::to_string(detail::kMaxUrlBytes) + " bytes");
  Url url;
  const std::size_t mark = std::min(text.find("://"), text.size());
  std::string scheme(text.substr(0, mark));
  for (char& c : scheme)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  require(scheme == "http" || scheme == "https", "must begin with http:// or https://");
  url.is_tls = scheme == "https";
  url.port = url.is_tls ? 443 : 80;

  const std::string_view rest = text.substr(mark + 3);
  const std::size_t authority_end = std::min(rest.find_first_of("/?#"), rest.size());
  const std::string_view authority = rest.substr(0, authority_end);
  require(authority.find('@') == std::string_view::npos, "must hold no user name or password");
  std::string_view port;
  std::string_view host = authority;
  if (authority.starts_with('[')) {
    const std::size_t close = authority.find(']');
    require(close != std::string_view::npos, "an IPv6 address ends with ]");
    host = authority.substr(1, close - 1);
    require(detail::is_ipv6_address(host), "is no IPv6 address in [ ]");
    port = authority.substr(close + 1);
    require(port.empty() || port.front() == ':', "a port follows ] after a colon");
  } else {
    const std::size_t colon = std::min(authority.find(':'), authority.size());
    host = authority.substr(0, colon);
    port = authority.substr(colon);
    require(detail::is_host_name(host), "must name a host, as http://localhost:23333 does");
  }
  if (!port.empty()) {
    port.remove_prefix(1);
    const char* const end = port.data() + port.size();
    const auto [stop, error] = std::from_chars(port.data(), end, url.port);
    require(!port.empty() && detail::is_url_digit(port.front()) && error == std::errc() &&
                stop == end && url.port > 0,
            "its port must be an integer from 1 to 65535");
  }
  for (const char c : host)
    url.host += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;

  const std::string_view target = rest.substr(authority_end);
  require(target.find('#') == std::string_view::npos, "must hold no fragment (#)");
  const std::size_t question = std::min(target.find('?'), target.size());
  const std::string_view path = target.substr(0, question);
  require(detail::is_url_text(path, false), "its path holds what must be written as %XX");
  if (!path.empty()) url.path = path;
  if (question < target.size()) {
    url.query = target.substr(question + 1);
    require(detail::is_url_text(url.query, true), "its query holds what must be written as %XX");
  }
  return url;
}

}  // namespace lmd::serve
