/// \file  Tensor-core products of four warps together, one instruction a function. sm_90a.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>

#include <concepts>
#include <cstdint>

namespace lmd::kernels {

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr bool kHasWgmma = true;
#else
inline constexpr bool kHasWgmma = false;
#endif

/// Leaves this warpgroup's threads with N registers each, fewer than before (a multiple of 8). What is given
/// back, take_registers of another warpgroup waits for.
template <int N>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/// Orders what this thread has written to registers before the products that read them.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/// Makes the products since the last commit one group.
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/// Waits until at most `Pending` groups have not ended.
template <int Pending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

/// Where b lies: rows of 64 elements, 128 bytes apart, eight rows a block of 1024 bytes; 16-byte unit
/// u of row r of a block stands at place u ^ r (the 128-byte swizzle).
///
/// `address` in shared memory is a multiple of 1024; plus 32 for each 16 columns further.
__device__ __forceinline__ std::uint64_t wgmma_rows(std::uint32_t address) {
  constexpr std::uint64_t kBlockBytes = 1024;
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62;
  return kSwizzle128 | (kBlockBytes >> 4) << 32 | std::uint64_t{1} << 16 | (address >> 4 & 0x3fff);
}

/// Where b lies in core matrices, 8 rows of 16 bytes one after another: those of the next 8 columns are
/// `columns_stride` bytes further, those of the next 8 rows `rows_stride`.
///
/// `address` in shared memory is a multiple of 16.
__device__ __forceinline__ std::uint64_t wgmma_matrices(std::uint32_t address,
                                                        std::uint32_t columns_stride,
                                                        std::uint32_t rows_stride) {
  return std::uint64_t{rows_stride >> 4} << 32 | columns_stride >> 4 << 16 |
         (address >> 4 & 0x3fff);
}

/// c += a b^T with a [64, 16] in the registers of four warps, each 16 rows as mma_16x8x16 has them,
/// and b [8 Groups, 16] in shared memory; c [64, 8 Groups], each warp's rows as mma_16x8x16's,
/// eight columns after eight columns. Queued: registers belong to it until wgmma_wait.
template <Activation T, int Groups>
__device__ __forceinline__ void wgmma(float (&c)[Groups][4],
                                      const std::uint32_t (&a)[4],
                                      std::uint64_t b) {
#define LMD_WGMMA_OF_(shape, type, outs, operands, ...)                           \
  asm volatile(                                                                   \
      "{.reg .pred adds; setp.eq.u32 adds, 0, 0;"                                 \
      "wgmma.mma_async.sync.aligned." shape ".f32." type " {" outs "}, " operands \
      ", adds, 1, 1, 0;}"                                                         \
      : __VA_ARGS__                                                               \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define LMD_WGMMA_(shape, outs, operands, ...)                                         \
  if constexpr (std::same_as<T, Half>) {                                               \
    LMD_WGMMA_OF_(shape, "f16.f16", outs, operands, __VA_ARGS__);                      \
  } else {                                                                             \
    static_assert(std::same_as<T, BFloat16>, "tensor cores multiply 16-bit operands"); \
    LMD_WGMMA_OF_(shape, "bf16.bf16", outs, operands, __VA_ARGS__);                    \
  }
#define LMD_C_(j) "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3])
#define LMD_C4_(j) LMD_C_(j), LMD_C_(j + 1), LMD_C_(j + 2), LMD_C_(j + 3)
  if constexpr (Groups == 1) {
    LMD_WGMMA_("m64n8k16", "%0,%1,%2,%3", "{%4,%5,%6,%7}, %8", LMD_C_(0))
  } else if constexpr (Groups == 2) {
    LMD_WGMMA_("m64n16k16", "%0,%1,%2,%3,%4,%5,%6,%7", "{%8,%9,%10,%11}, %12", LMD_C_(0), LMD_C_(1))
  } else if constexpr (Groups == 4) {
    LMD_WGMMA_("m64n32k16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15",
               "{%16,%17,%18,%19}, %20", LMD_C4_(0))
  } else if constexpr (Groups == 8) {
    LMD_WGMMA_("m64n64k16",
               "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
               "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31",
               "{%32,%33,%34,%35}, %36", LMD_C4_(0), LMD_C4_(4))
  } else if constexpr (Groups == 12) {
    LMD_WGMMA_("m64n96k16",
               "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
               "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
               "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47",
               "{%48,%49,%50,%51}, %52", LMD_C4_(0), LMD_C4_(4), LMD_C4_(8))
  } else {
    static_assert(Groups == 16, "products of 8, 16, 32, 64, 96 or 128 columns");
    LMD_WGMMA_("m64n128k16",
               "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
               "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
               "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
               "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63",
               "{%64,%65,%66,%67}, %68", LMD_C4_(0), LMD_C4_(4), LMD_C4_(8), LMD_C4_(12))
  }
#undef LMD_C4_
#undef LMD_C_
#undef LMD_WGMMA_
#undef LMD_WGMMA_OF_
}

/// c = a b^T for 64 columns, the first of a sum: c may hold anything.
__device__ __forceinline__ void wgmma_first(float (&c)[8][4],
                                            const std::uint32_t (&a)[4],
                                            std::uint64_t b) {
#define LMD_C_(j) "=f"(c[j][0]), "=f"(c[j][1]), "=f"(c[j][2]), "=f"(c[j][3])
  asm volatile(
      "{.reg .pred adds; setp.ne.u32 adds, 0, 0;"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "
      "{%32,%33,%34,%35}, %36, adds, 1, 1, 0;}"
      : LMD_C_(0), LMD_C_(1), LMD_C_(2), LMD_C_(3), LMD_C_(4), LMD_C_(5), LMD_C_(6), LMD_C_(7)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#undef LMD_C_
}

}  // namespace lmd::kernels
