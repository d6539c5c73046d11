/// \file  CUDA execution context, device architecture, and errors of CUDA calls.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/arch.hpp>
#include <lmd/core/error.hpp>

#include <cuda_runtime.h>

namespace lmd {

class PreparedKernels;  // core/launch.cuh

/// Work is queued on `stream`; no operation synchronises.
struct Cuda {
  using Result = cudaError_t;
  cudaStream_t stream = nullptr;
  /// Kernels may start while the one before them in the stream still runs (programmatic dependent
  /// launch): they fetch weights meanwhile and wait before they read anything it writes.
  bool overlap = false;
  int multiprocessors = 0;  ///< of the device; 0: asked for at each launch
  int shared_bytes = 0;     ///< that a block may have; 0: the device is asked
  /// Remembers what launches ask of the driver, which takes longer than a launch; null: each asks.
  PreparedKernels* kernels = nullptr;
};

/// What device code is compiled for; cc 0 in host code.
#if defined(__CUDA_ARCH__)
inline constexpr Arch kDeviceArch{__CUDA_ARCH__ / 10};
#else
inline constexpr Arch kDeviceArch{};
#endif

/// What tunings depend on, for types that are made for an architecture `cc`. Kernels make them for 0,
/// which is whatever is being compiled; the host, for the one that the kernel's code has been compiled
/// for (with_tuned_arch).
LMD_HD constexpr Arch tuned_arch(int cc) {
  return cc == 0 ? kDeviceArch : Arch{cc};
}

/// \throws Error(kCuda) that names the call and its place. Clears the error state first.
[[noreturn]] inline void throw_cuda_error(cudaError_t error,
                                          const char* call,
                                          const char* file,
                                          int line) {
  (void)cudaGetLastError();
  throw Error(ErrorCode::kCuda, std::string(file) + ":" + std::to_string(line) + ": " + call +
                                    ": " + cudaGetErrorName(error) + ", " +
                                    cudaGetErrorString(error));
}

}  // namespace lmd

/// Throws Error(kCuda) unless the call succeeds.
#define LMD_CUDA_TRY(call)                                              \
  do {                                                                  \
    if (const cudaError_t lmd_err_ = (call); lmd_err_ != cudaSuccess) { \
      ::lmd::throw_cuda_error(lmd_err_, #call, __FILE__, __LINE__);     \
    }                                                                   \
  } while (false)

/// For launchers, which report and never throw.
#define LMD_CUDA_RETURN_IF_ERROR(call)                                  \
  do {                                                                  \
    if (const cudaError_t lmd_err_ = (call); lmd_err_ != cudaSuccess) { \
      return lmd_err_;                                                  \
    }                                                                   \
  } while (false)
