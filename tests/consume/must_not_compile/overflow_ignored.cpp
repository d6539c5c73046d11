// expect: nodiscard|warn_unused|unused-result
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/math.hpp>

std::int64_t product(std::int64_t a, std::int64_t b);

std::int64_t product(std::int64_t a, std::int64_t b) {
  std::int64_t out = 0;
#if defined(CONTROL)
  if (!lmd::checked_mul(a, b, out)) return -1;
#else
  lmd::checked_mul(a, b, out);
#endif
  return out;
}
