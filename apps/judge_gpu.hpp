/// \file  Whether a GPU can be used, from what the CUDA runtime has said of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "cuda_runtime.hpp"

namespace lmd::apps {

/// Kernels use tensor cores and copies that older ones lack.
inline constexpr int kLeastComputeCapability = 80;

/// "8.0" of 80
[[nodiscard]] inline std::string capability_name(int compute_capability) {
  return std::to_string(compute_capability / 10) + '.' + std::to_string(compute_capability % 10);
}

/// What the CUDA runtime has answered.
struct GpuAnswers {
  int cuda_version = 0;  ///< of the runtime: 1000 * major + 10 * minor
  bool has_driver = false;
  bool is_driver_too_old = false;  ///< for cuda_version
  int devices = 0;
  std::string error = {};      ///< of counting devices, or asking the first one; or empty
  std::string name = {};       ///< of the first device
  int compute_capability = 0;  ///< 10 * major + minor
  bool has_code = false;       ///< this program has device code for it
};

/// Why the GPU cannot be used, for people; empty where it can.
[[nodiscard]] inline std::string gpu_problem(const GpuAnswers& a) {
  if (a.devices == 0) {
    if (!a.has_driver) return "no NVIDIA driver is installed";
    if (a.is_driver_too_old) {
      return "the NVIDIA driver is too old for CUDA " + std::to_string(a.cuda_version / 1000) +
             '.' + std::to_string(a.cuda_version % 1000 / 10);
    }
    return a.error.empty() ? "no GPU answers" : "no GPU answers: " + a.error;
  }
  if (!a.error.empty()) return "the GPU does not answer: " + a.error;
  const std::string found =
      a.name + " has compute capability " + capability_name(a.compute_capability);
  if (a.compute_capability < kLeastComputeCapability)
    return found + ", lmd needs " + capability_name(kLeastComputeCapability) + " or more";
  if (!a.has_code)
    return found + ", for which this program was not built (CMAKE_CUDA_ARCHITECTURES)";
  return {};
}

/// The verdict in the facts: is_usable, is_there and problem.
inline void judge_gpu(const GpuAnswers& a, GpuFacts* facts) {
  facts->problem = gpu_problem(a);
  facts->is_usable = facts->problem.empty();
  // A driver that is too old is worth a word where another device is taken instead.
  facts->is_there = a.devices > 0 || (a.has_driver && a.is_driver_too_old);
}

}  // namespace lmd::apps
