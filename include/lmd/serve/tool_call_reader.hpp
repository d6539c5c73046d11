/// \file  Function calls read from a model's JSON while it is being written.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/json/bounded_json.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::serve {

/// A part of a call. The first part of each has its name.
struct CallPart {
  int index = 0;          ///< which call of the answer, from 0
  std::string name = {};  ///< empty: not the first part
  std::string arguments = {};
};

/// Reads `{"name": "add", "parameters": {"a": 3}}`, or a list of such objects, in pieces of any size. The
/// arguments may also be called `arguments`, be a string that holds JSON, null or absent, and stand in front of the
/// name; other keys are skipped. They come out as Python's json.dumps writes them: `{"a": 3, "b": 5}`.
class CallReader {
 public:
  /// \param first_index  of the first call
  explicit CallReader(int first_index) : index_(first_index) {}

  /// The calls have ended well.
  [[nodiscard]] bool is_done() const { return state_ == State::kDone; }
  [[nodiscard]] bool is_bad() const { return state_ == State::kBad; }

  /// Takes text up to the end of the calls, or to where it is no such JSON, and appends what it adds to `parts`;
  /// parts that came before stand. Returns the bytes taken.
  std::size_t feed(std::string_view text, std::vector<CallPart>& parts) {
    std::size_t n = 0;
    while (n < text.size() && !is_done() && !is_bad())
      take(text[n++], parts);
    hand_out(parts);
    return n;
  }

 private:
  enum class State { kBegin, kKey, kKeyText, kColon, kValue, kInValue, kDone, kBad };
  enum class Kind { kText, kNested, kWord };

  static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

  void take(char c, std::vector<CallPart>& parts) {
    if (state_ == State::kKeyText) return take_key(c);
    if (state_ == State::kInValue) return take_value(c, parts);
    if (is_space(c)) return;
    switch (state_) {
      case State::kBegin:
        return begin(c);
      case State::kKey:
        if (c == '"') return start_text(State::kKeyText);
        if (c == '}') return end_call(parts);
        if (c != ',') state_ = State::kBad;
        return;
      case State::kColon:
        state_ = c == ':' ? State::kValue : State::kBad;
        return;
      case State::kValue:
        return start_value(c);
      default:
        return;  // a reader that is done or bad takes nothing
    }
  }

  void begin(char c) {
    if (c == '{') {
      state_ = State::kKey;
    } else if (c == '[' && !is_list_) {
      is_list_ = true;
    } else if (c == ']' && is_list_) {
      state_ = State::kDone;
    } else if (!(c == ',' && is_list_)) {
      state_ = State::kBad;
    }
  }

  void start_text(State state) {
    raw_ = '"';
    is_escaped_ = false;
    state_ = state;
  }

  void take_key(char c) {
    raw_ += c;
    if (!ends_text(c)) return;
    state_ = State::kColon;
    key_ = decoded(raw_);
  }

  /// Whether `c` is the closing quote of a text.
  bool ends_text(char c) {
    const bool ends = c == '"' && !is_escaped_;
    is_escaped_ = c == '\\' && !is_escaped_;
    return ends;
  }

  void start_value(char c) {
    raw_ = c;
    depth_ = c == '{' || c == '[' ? 1 : 0;
    in_text_ = c == '"';
    is_escaped_ = false;
    kind_ = in_text_ ? Kind::kText : depth_ > 0 ? Kind::kNested : Kind::kWord;
    state_ = State::kInValue;
    is_arguments_ = key_ == "parameters" || key_ == "arguments";
    is_open_ = is_arguments_ && c == '{';
    if (is_open_) arguments_ = c;
  }

  void take_value(char c, std::vector<CallPart>& parts) {
    if (in_text_) {
      add(c);
      if (!ends_text(c)) return;
      in_text_ = false;
      if (depth_ == 0) end_value();
      return;
    }
    if (kind_ == Kind::kWord && (c == ',' || c == '}' || c == ']' || is_space(c))) {
      end_value();
      return take(c, parts);
    }
    if (is_space(c)) return;
    add(c);
    if (c == ',' || c == ':') add(' ');
    if (c == '"') {
      in_text_ = true;
      is_escaped_ = false;
    }
    if (c == '{' || c == '[') ++depth_;
    if (c == '}' || c == ']') --depth_;
    if (depth_ > json::kMaxDepth) state_ = State::kBad;
    if (kind_ == Kind::kNested && depth_ == 0) end_value();
  }

  void add(char c) {
    raw_ += c;
    if (is_open_) arguments_ += c;
  }

  void end_value() {
    is_open_ = false;
    state_ = State::kKey;
    if (key_ == "name" && kind_ == Kind::kText) name_ = decoded(raw_);
    if (is_arguments_ && kind_ == Kind::kText) arguments_ = decoded(raw_);
    if (is_arguments_ && (kind_ == Kind::kNested || kind_ == Kind::kText)) {
      if (!is_object(arguments_)) state_ = State::kBad;
    } else if (is_arguments_ && raw_ != "null") {
      state_ = State::kBad;
    }
  }

  void end_call(std::vector<CallPart>& parts) {
    if (name_.empty()) {
      state_ = State::kBad;
      return;
    }
    if (arguments_.empty()) arguments_ = "{}";
    hand_out(parts);
    ++index_;
    name_.clear();
    arguments_.clear();
    n_sent_ = 0;
    is_named_ = false;
    state_ = is_list_ ? State::kBegin : State::kDone;
  }

  /// What of the call is known and has not been handed out.
  void hand_out(std::vector<CallPart>& parts) {
    if (name_.empty() || (is_named_ && n_sent_ == arguments_.size())) return;
    CallPart part{.index = index_, .arguments = arguments_.substr(n_sent_)};
    if (!is_named_) part.name = name_;
    is_named_ = true;
    n_sent_ = arguments_.size();
    parts.push_back(std::move(part));
  }

  /// The text of a JSON string; empty, and the reader bad, when it is none.
  std::string decoded(const std::string& raw) {
    try {
      return json::parse(raw, {}).get<std::string>();
    } catch (const Error&) {
      state_ = State::kBad;
      return {};
    }
  }

  static bool is_object(const std::string& text) {
    try {
      return json::parse(text, {}).is_object();
    } catch (const Error&) {
      return false;
    }
  }

  State state_ = State::kBegin;
  Kind kind_ = Kind::kWord;
  bool is_list_ = false;
  bool in_text_ = false;
  bool is_escaped_ = false;
  bool is_arguments_ = false;  // of the value being read
  bool is_open_ = false;       // it is an object, whose text goes out as it comes
  int depth_ = 0;              // brackets open in the value
  std::string raw_;            // of the key or value being read
  std::string key_;
  std::string name_;
  std::string arguments_;
  bool is_named_ = false;   // the name has been handed out
  std::size_t n_sent_ = 0;  // bytes of the arguments that have
  int index_;
};

}  // namespace lmd::serve
