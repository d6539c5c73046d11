/// \file  A model's text taken apart into what it says and the functions that it calls.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/tool_call_reader.hpp>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::serve {

/// What stands around a call in a model's text.
struct ToolMarkers {
  std::string begin;  ///< `<|action_start|><|plugin|>`
  std::string end;    ///< `<|action_end|>`; the end of the answer does, too
};

struct ToolDelta {
  std::string content = {};
  std::vector<CallPart> parts = {};
};

/// Content comes out as soon as no call can begin in it. A block that holds no call stays content. One that the
/// answer's end cuts off is a call once its name is known, with the arguments that came of it.
class ToolStream {
 public:
  struct Options {
    /// The prompt ended with `begin`, or the answer is held to be calls: they may stand bare, too.
    bool begins_inside = false;
    bool keeps_first_only = false;  ///< later calls are dropped
    bool is_forced = false;         ///< the answer is held to be calls: what is none is dropped
    /// false: a call comes out whole, once it is known to be one. true: its name as soon as it is known, its
    /// arguments as they come.
    bool is_eager = false;
  };

  ToolStream(ToolMarkers markers, Options options)
      : markers_(std::move(markers)), options_(options) {
    if (options_.begins_inside) open_block(true);
  }

  /// Whether any call has come out.
  [[nodiscard]] bool has_calls() const { return n_calls_ > 0; }
  /// Whether the answer ended within a block.
  [[nodiscard]] bool is_cut_off() const { return is_cut_off_; }

  [[nodiscard]] ToolDelta feed(std::string_view text) {
    ToolDelta delta;
    held_ += text;
    while (step(delta)) {
    }
    return checked(std::move(delta));
  }

  /// What is left at the end of the answer.
  [[nodiscard]] ToolDelta finish() {
    ToolDelta delta;
    is_cut_off_ = reader_.has_value();
    if (reader_) {
      hand_out(delta);
      give_up(delta);
    }
    if (state_ == State::kBehind) held_.clear();  // of the end's marker
    delta.content += std::exchange(held_, {});
    return checked(std::move(delta));
  }

 private:
  enum class State { kContent, kCall, kBehind, kDropped };

  [[nodiscard]] ToolDelta checked(ToolDelta delta) const {
    if (options_.is_forced) delta.content.clear();
    return delta;
  }

  /// Takes what can be taken of the held text; false when more is needed.
  bool step(ToolDelta& delta) {
    switch (state_) {
      case State::kContent:
        return step_content(delta);
      case State::kCall:
        return step_call(delta);
      case State::kBehind:
        return step_behind();
      default:
        return step_dropped();
    }
  }

  bool step_content(ToolDelta& delta) {
    const std::size_t at = held_.find(markers_.begin);
    if (at != std::string::npos) {
      delta.content += held_.substr(0, at);
      held_.erase(0, at + markers_.begin.size());
      open_block(false);
      return true;
    }
    const std::size_t n = held_.size() - n_begun(markers_.begin);
    delta.content += held_.substr(0, n);
    held_.erase(0, n);
    return false;
  }

  bool step_call(ToolDelta& delta) {
    if (held_.empty()) return false;
    const std::size_t n = reader_->feed(held_, parts_);
    block_.append(held_, 0, n);
    held_.erase(0, n);
    if (options_.is_eager || reader_->is_done()) hand_out(delta);
    if (reader_->is_done()) {
      reader_.reset();
      state_ = State::kBehind;
    } else if (reader_->is_bad()) {
      give_up(delta);
    }
    return true;
  }

  /// Skips white space and the end's marker, up to other text, which may be another bare call.
  bool step_behind() {
    const std::size_t begin = held_.find_first_not_of(" \n\r\t");
    held_.erase(0, std::min(begin, held_.size()));
    if (held_.empty()) return false;
    const bool is_whole = held_.starts_with(markers_.end);
    if (!is_whole && markers_.end.starts_with(held_)) return false;
    if (is_whole) {
      held_.erase(0, markers_.end.size());
      return true;
    }
    state_ = State::kContent;
    if (options_.begins_inside && held_.starts_with('{')) open_block(true);
    return true;
  }

  /// Skips the rest of a block of which a part went out already.
  bool step_dropped() {
    const std::size_t at = held_.find(markers_.end);
    const bool is_found = at != std::string::npos;
    held_.erase(0, is_found ? at + markers_.end.size() : held_.size() - n_begun(markers_.end));
    if (is_found) state_ = State::kContent;
    return is_found;
  }

  /// Bytes at the end of the held text that may become `marker`.
  [[nodiscard]] std::size_t n_begun(const std::string& marker) const {
    for (std::size_t n = std::min(marker.size() - 1, held_.size()); n > 0; --n)
      if (std::string_view(held_).ends_with(std::string_view(marker).substr(0, n))) return n;
    return 0;
  }

  void open_block(bool is_bare) {
    is_bare_ = is_bare;
    reader_.emplace(next_index_);
    block_.clear();
    n_block_calls_ = 0;
    state_ = State::kCall;
  }

  void hand_out(ToolDelta& delta) {
    for (CallPart& part : parts_) {
      n_block_calls_ += part.name.empty() ? 0 : 1;
      next_index_ = part.index + 1;
      if (options_.keeps_first_only && part.index > 0) continue;
      n_calls_ += part.name.empty() ? 0 : 1;
      delta.parts.push_back(std::move(part));
    }
    parts_.clear();
  }

  /// The block is no call.
  void give_up(ToolDelta& delta) {
    parts_.clear();
    const bool has_gone_out = n_block_calls_ > 0;
    if (!has_gone_out) {
      delta.content += (is_bare_ ? std::string() : markers_.begin) + block_;
    }
    reader_.reset();
    state_ = has_gone_out ? State::kDropped : State::kContent;
  }

  ToolMarkers markers_;
  Options options_;
  State state_ = State::kContent;
  std::string held_;                  // not yet taken
  std::string block_;                 // of the open block, what has been taken
  std::optional<CallReader> reader_;  // of the open block
  std::vector<CallPart> parts_;       // of the open block, not yet handed out
  int next_index_ = 0;                // of the next call
  bool is_bare_ = false;              // the open block has no marker in front
  int n_block_calls_ = 0;             // of the open block, handed out or dropped
  int n_calls_ = 0;                   // handed out
  bool is_cut_off_ = false;
};

}  // namespace lmd::serve
