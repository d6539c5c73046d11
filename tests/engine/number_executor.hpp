/// \file  A device without one, for tests of who runs when.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/executor.hpp>

#include <algorithm>
#include <deque>
#include <map>
#include <vector>

#include "cases/tiny_decoder.hpp"
#include <doctest/doctest.h>

namespace lmd::test {

/// A device without one: the cache of a sequence is a number made of all its tokens, and so is the token
/// that is drawn. Sealed pages remember the number at their end.
class NumberExecutor final : public engine::Executor {
 public:
  explicit NumberExecutor(bool runs_ahead)
      : config_(cases::tiny_config()), runs_ahead_(runs_ahead) {}

  [[nodiscard]] const model::ModelConfig& model() const override { return config_; }
  [[nodiscard]] cache::CacheGeometry geometry() const override { return {}; }
  [[nodiscard]] int max_rows() const override { return 1024; }
  [[nodiscard]] std::int64_t step_weight_bytes(int) const override { return 0; }
  [[nodiscard]] bool runs_ahead() const override { return runs_ahead_; }

  void begin(std::span<const engine::StepItem> items) override {
    REQUIRE(under_way_.size() < 2);
    if (n_begun_++ == fails_at) throw Error(ErrorCode::kCuda, "the device is gone");
    n_ahead += under_way_.empty() ? 0 : 1;
    std::vector<int> drawn;
    std::map<int, int> seen;
    int rows = 0;
    for (const engine::StepItem& item : items) {
      CHECK(seen[item.slot]++ == 0);
      CHECK((item.follows >= 0) == !under_way_.empty());
      Slot& slot = slots_[item.slot];
      open(slot, item);
      const int known = static_cast<int>(item.ids.size());
      rows += known;
      for (int i = 0; i < known; ++i) {
        const int id = item.follows < 0 ? item.ids[static_cast<std::size_t>(i)]
                                        : under_way_.back()[static_cast<std::size_t>(item.follows)];
        slot.number = (slot.number + static_cast<std::uint64_t>(id) + 1) * 0x9e3779b97f4a7c15ull;
        if (++slot.next % cache::kPageTokens != 0) continue;
        const auto page = static_cast<std::size_t>(slot.next / cache::kPageTokens - 1);
        REQUIRE(page < item.page_ids.size());
        pages_[item.page_ids[page]] = slot.number;
      }
      if (item.draw == nullptr) continue;
      CHECK((item.draw->allowed.empty() || under_way_.empty()));  // a mask takes what is not known
      CHECK(std::ssize(item.draw->tokens) + (item.draw->follows ? 1 : 0) == slot.next);
      const bool is_number = slot.number % 256 >= n_without;
      drawn.push_back(is_number ? static_cast<int>(slot.number >> 40) % config_.vocab_size : -1);
    }
    under_way_.push_back(drawn);
    most_rows = std::max(most_rows, rows);
    n_rows += rows;
  }

  void finish(std::span<engine::Drawn> drawn) override {
    REQUIRE(!under_way_.empty());
    REQUIRE(drawn.size() == under_way_.front().size());
    for (std::size_t i = 0; i < drawn.size(); ++i)
      drawn[i].token = under_way_.front()[i];
    under_way_.pop_front();
  }

  void abandon() noexcept override { under_way_.clear(); }

  void logits(const engine::StepItem&, float*) override {}

  int n_ahead = 0;
  int most_rows = 0;  ///< of a step
  int n_rows = 0;     ///< of all steps
  int fails_at = -1;
  unsigned n_without = 0;  ///< of 256 draws have no answer

 private:
  struct Slot {
    std::uint64_t number = 0;
    int next = 0;  ///< position
  };

  /// Behind whole pages, which another sequence may have filled, or where the slot is.
  void open(Slot& slot, const engine::StepItem& item) {
    if (item.position % cache::kPageTokens != 0) {
      REQUIRE(item.position == slot.next);
      return;
    }
    slot = {.number = 0, .next = item.position};
    if (item.position == 0) return;
    const auto page = static_cast<std::size_t>(item.position / cache::kPageTokens - 1);
    slot.number = pages_.at(item.page_ids[page]);
  }

  model::ModelConfig config_;
  bool runs_ahead_;
  int n_begun_ = 0;
  std::map<int, Slot> slots_;
  std::map<int, std::uint64_t> pages_;
  std::deque<std::vector<int>> under_way_;
};

}  // namespace lmd::test
