/// \file  Memory with guards around it: shows writes before and behind an output.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace lmd::test {

/// `n` numbers between two guards of 64 bytes. They begin as a NaN that no computation gives, so
/// that what was never written shows as well.
class GuardedFloats {
 public:
  explicit GuardedFloats(std::int64_t n)
      : words_(static_cast<std::size_t>(n) + 2 * kGuardWords, kPattern), n_(n) {}

  [[nodiscard]] float* data() { return reinterpret_cast<float*>(words_.data() + kGuardWords); }
  [[nodiscard]] std::int64_t size() const { return n_; }
  [[nodiscard]] float operator[](std::int64_t i) const {
    float x = 0.0f;
    std::memcpy(&x, words_.data() + kGuardWords + i, sizeof x);
    return x;
  }
  [[nodiscard]] bool is_intact() const {
    for (int i = 0; i < kGuardWords; ++i) {
      if (words_[static_cast<std::size_t>(i)] != kPattern) return false;
      if (words_[words_.size() - 1 - static_cast<std::size_t>(i)] != kPattern) return false;
    }
    return true;
  }

 private:
  static constexpr int kGuardWords = 16;
  static constexpr std::uint32_t kPattern = 0x7fdeadbe;

  std::vector<std::uint32_t> words_;
  std::int64_t n_ = 0;
};

}  // namespace lmd::test
