/// \file  Compute capability as a value, so that tunings can be read and tested on the host.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/config.hpp>

namespace lmd {

/// What device code was compiled for.
struct Arch {
  int cc = 0;  ///< 10 * major + minor; 0 means unknown

  /// Copies of many bytes by an engine of its own.
  [[nodiscard]] LMD_HD constexpr bool has_bulk_copies() const { return cc >= 90; }
  /// Blocks that reach each other's shared memory.
  [[nodiscard]] LMD_HD constexpr bool has_clusters() const { return cc >= 90; }
  /// Kernels that start before the one in front of them has ended.
  [[nodiscard]] LMD_HD constexpr bool has_early_starts() const { return cc >= 90; }

  /// Whether a block may have 227 KiB of shared memory on every device that runs this code. Code for 8.0
  /// runs on 8.6 too, which has 99 KiB, as 12.0 has.
  [[nodiscard]] LMD_HD constexpr bool has_large_blocks() const { return cc >= 90 && cc < 120; }
  [[nodiscard]] LMD_HD constexpr int shared_bytes() const {
    return (has_large_blocks() ? 227 : 99) * 1024;
  }
  /// Threads that a multiprocessor holds.
  [[nodiscard]] LMD_HD constexpr int threads() const {
    return cc == 80 || has_large_blocks() ? 2048 : 1536;
  }
};

}  // namespace lmd
