/// \file  Which tokens of its sequences a device has: the host keeps a copy, so that only what has
///        changed goes there.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace lmd::engine {

/// Tokens in the slots of a device. Nobody has to say when another sequence begins in a slot: tokens are
/// compared, which takes a microsecond for 32k of them.
class TokenMirror {
 public:
  explicit TokenMirror(int n_slots) : slots_(static_cast<std::size_t>(n_slots)) {}

  /// How many of the first `tokens` the device has in `slot`.
  [[nodiscard]] int n_known(int slot, std::span<const int> tokens) const {
    const std::vector<int>& known = slots_[static_cast<std::size_t>(slot)];
    const auto n = static_cast<std::ptrdiff_t>(std::min(known.size(), tokens.size()));
    const auto differ = std::mismatch(known.begin(), known.begin() + n, tokens.begin());
    return static_cast<int>(differ.first - known.begin());
  }

  /// The device has all of `tokens` in `slot` from now on. Returns how many of them it had before.
  int update(int slot, std::span<const int> tokens) {
    const int n = n_known(slot, tokens);
    std::vector<int>& known = slots_[static_cast<std::size_t>(slot)];
    known.resize(static_cast<std::size_t>(n));
    known.insert(known.end(), tokens.begin() + n, tokens.end());
    return n;
  }

  /// Nobody knows what the device has.
  void forget() {
    for (std::vector<int>& known : slots_)
      known.clear();
  }

 private:
  std::vector<std::vector<int>> slots_;
};

}  // namespace lmd::engine
