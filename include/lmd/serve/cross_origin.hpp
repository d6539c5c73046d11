/// \file  Which web pages may talk to the server.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::serve {

/// The --allow-* flags. No origin is allowed unless named; "*" names all.
struct CrossOrigin {
  std::vector<std::string> origins = {};
  std::vector<std::string> methods = {"*"};
  std::vector<std::string> headers = {"*"};
  bool has_credentials = false;
  /// Names under which browsers reach this server, beside "localhost" and IP addresses.
  std::vector<std::string> hosts = {};
};

namespace detail {

[[nodiscard]] inline bool names(const std::vector<std::string>& list, std::string_view word) {
  return std::ranges::any_of(list, [&](const std::string& x) { return x == "*" || x == word; });
}

[[nodiscard]] inline bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) ==
           std::tolower(static_cast<unsigned char>(y));
  });
}

/// "name:8000" -> "name", "[::1]:8000" -> "[::1]"
[[nodiscard]] inline std::string_view without_port(std::string_view host) {
  const std::size_t bracket = host.rfind(']');
  const std::size_t colon = host.find(':', bracket == std::string_view::npos ? 0 : bracket);
  return host.substr(0, colon);
}

/// Four numbers and dots, or anything in brackets: what no name server can point elsewhere.
[[nodiscard]] inline bool is_ip_literal(std::string_view name) {
  if (name.starts_with('[')) return name.ends_with(']');
  int n_dots = 0;
  for (const char c : name) {
    if (c == '.') ++n_dots;
    if (c != '.' && (c < '0' || c > '9')) return false;
  }
  return n_dots == 3;
}

/// "http://name:8000" -> "name:8000"; empty for "null" and what has no scheme.
[[nodiscard]] inline std::string_view authority_of(std::string_view origin) {
  const std::size_t at = origin.find("://");
  return at == std::string_view::npos ? std::string_view() : origin.substr(at + 3);
}

}  // namespace detail

[[nodiscard]] inline bool is_allowed_origin(const CrossOrigin& rules, std::string_view origin) {
  return detail::names(rules.origins, origin);
}

/// Whether `host`, as of a Host header, is a name that nobody can have pointed to this machine: localhost, an address,
/// or one that the operator gave. Empty is such, too: browsers always send one.
[[nodiscard]] inline bool is_own_host(const CrossOrigin& rules, std::string_view host) {
  const std::string_view name = detail::without_port(host);
  return name.empty() || detail::equals_ignoring_case(name, "localhost") ||
         detail::is_ip_literal(name) ||
         std::ranges::any_of(rules.hosts, [&](const std::string& known) {
           return detail::equals_ignoring_case(known, name);
         });
}

/// Whether only this machine reaches a server that listens there.
[[nodiscard]] inline bool is_loopback(std::string_view host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

/// Whether a page of `origin` may use a server without a key: a page of the server itself, or one that
/// was allowed. That `Origin` equals `Host` proves nothing alone, as a name that was rebound to this
/// address has them equal, too: `Host` must also be a name that cannot be.
[[nodiscard]] inline bool may_talk_without_key(const CrossOrigin& rules,
                                               std::string_view origin,
                                               std::string_view host) {
  if (is_allowed_origin(rules, origin)) return true;
  return !host.empty() && detail::equals_ignoring_case(detail::authority_of(origin), host) &&
         is_own_host(rules, host);
}

/// Who asks, as far as the head of a request tells.
struct Asker {
  std::string_view origin;  ///< Origin; empty: none
  std::string_view host;    ///< Host
  bool is_browser = false;  ///< it sends Accept-Language or Sec-Fetch-Site, as browsers always do
};

/// Whether a server that listens on `bound_to`, and asks for no key, answers. A page reads from its own server without
/// an Origin: behind a name that was rebound to a loopback address it would read what is there. Who is no browser
/// (an SDK, curl) is let through.
[[nodiscard]] inline bool may_ask_without_key(const CrossOrigin& rules,
                                              const std::string& bound_to,
                                              const Asker& asker) {
  const bool has_origin = !asker.origin.empty();
  if (!has_origin && !(asker.is_browser && is_loopback(bound_to))) return true;
  CrossOrigin own = rules;
  own.hosts.push_back(bound_to);
  if (has_origin) return may_talk_without_key(own, asker.origin, asker.host);
  return is_own_host(own, asker.host) ||
         is_allowed_origin(rules, "http://" + std::string(asker.host)) ||
         is_allowed_origin(rules, "https://" + std::string(asker.host));
}

/// What a page is told that may not.
inline constexpr const char* kOtherOrigin =
    "This page's origin is not allowed; see --allow-origins and --allowed-hosts.";

using HeaderFields = std::vector<std::pair<std::string, std::string>>;

namespace detail {

[[nodiscard]] inline std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words)
    text += (text.empty() ? "" : ", ") + word;
  return text;
}

}  // namespace detail

/// The fields of a response to a page of `origin`; none for one that was not allowed. With credentials
/// the origin is named, as browsers then refuse "*".
[[nodiscard]] inline HeaderFields cross_origin_fields(const CrossOrigin& rules,
                                                      std::string_view origin) {
  if (origin.empty() || !is_allowed_origin(rules, origin)) return {};
  const bool is_open = detail::names(rules.origins, "") && !rules.has_credentials;
  HeaderFields fields{{"Access-Control-Allow-Origin", is_open ? "*" : std::string(origin)},
                      {"Access-Control-Expose-Headers", "X-Request-Id"}};
  if (!is_open) fields.emplace_back("Vary", "Origin");
  if (rules.has_credentials) fields.emplace_back("Access-Control-Allow-Credentials", "true");
  return fields;
}

/// What a preflight is told beside those. `asked_headers` is Access-Control-Request-Headers.
[[nodiscard]] inline HeaderFields preflight_fields(const CrossOrigin& rules,
                                                   std::string_view path_methods,
                                                   std::string_view asked_headers) {
  const bool is_any_method = detail::names(rules.methods, "");
  const bool is_any_header = detail::names(rules.headers, "");
  HeaderFields fields{{"Access-Control-Allow-Methods",
                       is_any_method ? std::string(path_methods) : detail::joined(rules.methods)},
                      {"Access-Control-Max-Age", "600"}};
  const std::string headers =
      is_any_header ? std::string(asked_headers) : detail::joined(rules.headers);
  if (!headers.empty()) fields.emplace_back("Access-Control-Allow-Headers", headers);
  return fields;
}

}  // namespace lmd::serve
