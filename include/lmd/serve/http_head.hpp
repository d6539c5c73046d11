/// \file  The first lines of responses, and the frames of streams.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <charconv>
#include <string>
#include <string_view>
#include <utility>

namespace lmd::serve {

[[nodiscard]] constexpr std::string_view reason_phrase(int status) {
  constexpr std::pair<int, std::string_view> kPhrases[] = {
      {200, "OK"},
      {204, "No Content"},
      {304, "Not Modified"},
      {400, "Bad Request"},
      {401, "Unauthorized"},
      {403, "Forbidden"},
      {404, "Not Found"},
      {405, "Method Not Allowed"},
      {408, "Request Timeout"},
      {409, "Conflict"},
      {413, "Content Too Large"},
      {422, "Unprocessable Content"},
      {429, "Too Many Requests"},
      {431, "Request Header Fields Too Large"},
      {500, "Internal Server Error"},
      {501, "Not Implemented"},
      {502, "Bad Gateway"},
      {503, "Service Unavailable"},
      {504, "Gateway Timeout"},
  };
  for (const auto& [number, phrase] : kPhrases) {
    if (number == status) return phrase;
  }
  return "Other";
}

/// Whether a value may stand in a header: visible ASCII, spaces and tabs, no line end.
[[nodiscard]] constexpr bool is_header_value(std::string_view value) {
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\t') || byte >= 0x7F) return false;
  }
  return true;
}

/// A response's head, line by line.
class HttpHead {
 public:
  explicit HttpHead(int status) {
    text_ = "HTTP/1.1 " + std::to_string(status) + ' ';
    text_ += reason_phrase(status);
    text_ += "\r\n";
  }

  /// A value that could end the line is dropped with its field: none of ours can.
  void add(std::string_view name, std::string_view value) {
    if (!is_header_value(value)) return;
    text_ += name;
    text_ += ": ";
    text_ += value;
    text_ += "\r\n";
  }

  [[nodiscard]] std::string finish() && {
    text_ += "\r\n";
    return std::move(text_);
  }

 private:
  std::string text_;
};

/// Appends `data`, if there is any, as a chunk of Transfer-Encoding: chunked.
inline void append_chunk(std::string& out, std::string_view data) {
  if (data.empty()) return;
  std::array<char, 16> size{};
  const auto [end, error] = std::to_chars(size.data(), size.data() + size.size(), data.size(), 16);
  out.append(size.data(), end);
  out += "\r\n";
  out += data;
  out += "\r\n";
}

inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

/// A client's own request id: 1 to 64 of letters, digits, '.', '_' and '-'.
[[nodiscard]] constexpr bool is_request_id(std::string_view id) {
  for (const char c : id) {
    const bool is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!is_word && c != '.' && c != '_' && c != '-') return false;
  }
  return !id.empty() && id.size() <= 64;
}

}  // namespace lmd::serve
