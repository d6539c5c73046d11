/// \file  Files that are part of the program: the page that the server shows, and what it loads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/api_call.hpp>

#include <span>
#include <string>
#include <string_view>

namespace lmd::serve {

/// A file as the program holds it. Every view lasts as long as the program.
struct StaticFile {
  std::string_view path;          ///< of the URL: "/", "/assets/app.3f2a9c.js"
  std::string_view content_type;  ///< "text/html; charset=utf-8"
  std::string_view bytes;
  std::string_view gzip_bytes = {};  ///< the same compressed; empty: there is none
  std::string_view etag = {};        ///< without quotes; empty: none is sent
  bool is_immutable = false;  ///< its path changes with its content: browsers keep it for a year
};

/// Files by path. No path is ever joined with a folder: what is not listed is not there.
class StaticFiles {
 public:
  constexpr StaticFiles() = default;
  constexpr explicit StaticFiles(std::span<const StaticFile> files) : files_(files) {}

  [[nodiscard]] constexpr std::span<const StaticFile> files() const { return files_; }

  /// Null: none.
  [[nodiscard]] constexpr const StaticFile* find(std::string_view path) const {
    for (const StaticFile& file : files_) {
      if (file.path == path) return &file;
    }
    return nullptr;
  }

 private:
  std::span<const StaticFile> files_;
};

/// What the page may do: run and load what comes from its own server. Text that becomes HTML has to pass
/// DOMPurify (Trusted Types), whatever the page's code does with it.
inline constexpr const char* kContentSecurityPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify";

/// The reply to GET and HEAD. `accept_encoding` and `if_none_match` are the request's, or empty.
[[nodiscard]] inline HttpReply static_reply(const StaticFile& file,
                                            std::string_view accept_encoding,
                                            std::string_view if_none_match) {
  HttpReply reply;
  reply.content_type = file.content_type;
  reply.headers = {
      {"Cache-Control", file.is_immutable ? "public, max-age=31536000, immutable" : "no-cache"},
      {"Content-Security-Policy", kContentSecurityPolicy},
      {"Referrer-Policy", "no-referrer"},
      {"X-Frame-Options", "DENY"}};
  const std::string etag = '"' + std::string(file.etag) + '"';
  if (!file.etag.empty()) reply.headers.emplace_back("ETag", etag);
  if (!file.gzip_bytes.empty()) reply.headers.emplace_back("Vary", "Accept-Encoding");
  if (!file.etag.empty() && if_none_match.find(etag) != std::string_view::npos) {
    reply.status = 304;
    return reply;
  }
  const bool is_gzip =
      !file.gzip_bytes.empty() && accept_encoding.find("gzip") != std::string_view::npos;
  if (is_gzip) reply.headers.emplace_back("Content-Encoding", "gzip");
  reply.body = is_gzip ? file.gzip_bytes : file.bytes;
  return reply;
}

}  // namespace lmd::serve
