/// \file  Streams of lines and of server-sent events, put together from pieces of any size.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/client_error.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace lmd::serve {

inline constexpr std::size_t kMaxEventBytes = std::size_t{4} << 20;

/// Cuts bytes into lines, which end with LF, CR LF or CR.
class LineReader {
 public:
  explicit LineReader(std::size_t max_bytes = kMaxEventBytes) : max_bytes_(max_bytes) {}

  /// Calls `on_line(std::string_view)` for each line that ends in `bytes`, without its end.
  ///
  /// Errors:  \throws ClientError(kTooLarge) when a line is longer than max_bytes.
  template <class OnLine>
  void feed(std::string_view bytes, OnLine&& on_line) {
    while (!bytes.empty()) {
      if (std::exchange(was_return_, false) && bytes.front() == '\n') {
        bytes.remove_prefix(1);
        continue;
      }
      const std::size_t end = std::min(bytes.find_first_of("\r\n"), bytes.size());
      if (begun_.size() + end > max_bytes_) {
        throw ClientError(ClientFailure::kTooLarge, "the stream has a line of more than " +
                                                        std::to_string(max_bytes_) + " bytes");
      }
      if (end == bytes.size()) {
        begun_ += bytes;
        return;
      }
      was_return_ = bytes[end] == '\r';
      if (begun_.empty()) {
        on_line(bytes.substr(0, end));
      } else {
        begun_ += bytes.substr(0, end);
        on_line(std::string_view(begun_));
        begun_.clear();
      }
      bytes.remove_prefix(end + 1);
    }
  }

  /// The stream is over: what stands behind the last line's end is a line, too, unless it is empty.
  template <class OnLine>
  void finish(OnLine&& on_line) {
    if (!begun_.empty()) on_line(std::string_view(begun_));
    begun_.clear();
  }

 private:
  std::size_t max_bytes_;
  std::string begun_;
  bool was_return_ = false;  // the LF of a CR LF may come with the next bytes
};

struct SseEvent {
  std::string name;  ///< empty: "message"
  std::string data;  ///< its lines with LF between them
};

/// Reads an event stream. Comments, `id` and `retry` are read past; events without data are none.
///
/// Source:  WHATWG HTML, server-sent events, "interpreting an event stream"
class SseReader {
 public:
  explicit SseReader(std::size_t max_bytes = kMaxEventBytes)
      : lines_(max_bytes), max_bytes_(max_bytes) {}

  /// Calls `on_event(const SseEvent&)` for each event that ends in `bytes`.
  ///
  /// Errors:  \throws ClientError(kTooLarge) when a line or an event's data is longer than max_bytes.
  template <class OnEvent>
  void feed(std::string_view bytes, OnEvent&& on_event) {
    lines_.feed(bytes, [&](std::string_view line) { take(line, on_event); });
  }

  /// The stream is over: an event that lacks its blank line is given as far as its lines were whole.
  /// (The standard drops it; there are servers whose last event has no blank line.)
  template <class OnEvent>
  void finish(OnEvent&& on_event) {
    give(on_event);
  }

 private:
  template <class OnEvent>
  void take(std::string_view line, OnEvent&& on_event) {
    constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
    if (std::exchange(is_first_, false) && line.starts_with(kByteOrderMark))
      line.remove_prefix(kByteOrderMark.size());
    if (line.empty()) return give(on_event);
    const std::size_t colon = std::min(line.find(':'), line.size());
    const std::string_view field = line.substr(0, colon);  // empty: a comment
    std::string_view value = line.substr(std::min(colon + 1, line.size()));
    if (value.starts_with(' ')) value.remove_prefix(1);
    if (field == "event") event_.name = value;
    if (field != "data") return;
    if (event_.data.size() + value.size() + 1 > max_bytes_) {
      throw ClientError(ClientFailure::kTooLarge, "the stream has an event of more than " +
                                                      std::to_string(max_bytes_) + " bytes");
    }
    if (has_data_) event_.data += '\n';
    event_.data += value;
    has_data_ = true;
  }

  template <class OnEvent>
  void give(OnEvent&& on_event) {
    if (std::exchange(has_data_, false)) on_event(std::as_const(event_));
    event_.name.clear();
    event_.data.clear();
  }

  LineReader lines_;
  std::size_t max_bytes_;
  SseEvent event_;
  bool has_data_ = false;
  bool is_first_ = true;
};

}  // namespace lmd::serve
