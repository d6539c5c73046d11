/// \file  Rows of cheap work: shared among threads only where that pays.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/backend.hpp>
#include <lmd/core/task_runner.hpp>

namespace lmd::kernels {

/// Elements that one thread reads, computes on and writes in 1 to 3 us: below that, another one costs more
/// than it saves, though it is awake, as threads are within a step. AMD EPYC (Zen 5): a region costs about
/// 1 us; silu_mul of [8, 1536] takes 6 us on one thread.
inline constexpr std::int64_t kElementsPerThread = 4096;

/// Calls `f(begin, end)` for ranges of [0, rows) on as many threads as the elements are worth: all
/// of the pool's, or the calling one.
template <class F>
void row_ranges(Cpu ctx, std::int64_t rows, std::int64_t row_elements, F&& f) {
  const bool is_large = rows * row_elements >= 2 * kElementsPerThread;
  parallel_ranges(is_large ? ctx.pool : nullptr, rows, 1, f);
}

}  // namespace lmd::kernels
