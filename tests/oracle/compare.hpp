/// \file  Comparing numbers with what they should be: where it is worst, in one line.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <sstream>
#include <string>

namespace lmd::test {

/// Collects pairs of numbers. NaN and infinities must stand in equal places; elsewhere each error is
/// held against its own bound, a formula of the test.
class Comparison {
 public:
  void add(std::int64_t row, std::int64_t column, double got, double expected, double bound) {
    ++count_;
    const bool is_special = !std::isfinite(got) || !std::isfinite(expected);
    const bool is_same = got == expected || (std::isnan(got) && std::isnan(expected));
    double share = is_same ? 0.0 : INFINITY;
    if (!is_special && !is_same && bound > 0.0) share = std::fabs(got - expected) / bound;
    if (share <= worst_share_) return;
    worst_share_ = share;
    std::ostringstream out;
    out << '[' << row << ", " << column << "]: " << got << ", expected " << expected << " +- "
        << bound;
    worst_ = out.str();
  }

  [[nodiscard]] bool is_within() const { return count_ > 0 && worst_share_ <= 1.0; }
  /// The element that is nearest to its bound or furthest beyond it.
  [[nodiscard]] std::string worst() const { return count_ == 0 ? "nothing compared" : worst_; }

 private:
  std::int64_t count_ = 0;
  double worst_share_ = -1.0;
  std::string worst_;
};

}  // namespace lmd::test
