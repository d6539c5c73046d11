/// \file  What a compiler needs to know: where a function may run, and which version this is.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#if defined(__CUDACC__)
#  define LMD_HD __host__ __device__ __forceinline__
#else
#  define LMD_HD inline
#endif

namespace lmd {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace lmd
