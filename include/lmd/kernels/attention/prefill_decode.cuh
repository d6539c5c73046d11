/// \file  Quantised keys and values -> core matrices of halves, by one warpgroup. sm_90a.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/attention/policy.hpp>
#include <lmd/kernels/primitive/halves.cuh>
#include <lmd/kernels/primitive/mma.cuh>
#include <lmd/quant/fast_decode.cuh>

namespace lmd::kernels::detail {

inline constexpr std::uint32_t kMinus1024 = 0xe400e400u;  // in both halves

/// The codes of one step of a lane's 16-byte vector as halves, exactly.
template <int Bits>
__device__ __forceinline__ void code_halves(const uint4& v, int i, std::uint32_t (&a)[4]) {
  if constexpr (Bits == 4) {
    constexpr std::uint32_t kSixteenth = 0x2c002c00u;
    constexpr std::uint32_t kMinus64 = 0xd400d400u;
    quant::FragmentDecoder<4, Half>{v}.biased_step(i, a);
    a[0] = plus_halves(a[0], kMinus1024);
    a[1] = fma_halves(a[1], kSixteenth, kMinus64);
    a[2] = plus_halves(a[2], kMinus1024);
    a[3] = fma_halves(a[3], kSixteenth, kMinus64);
  } else {
    static_assert(Bits == 8, "codes have 4 or 8 bits");
    quant::KvFragments<8>::step(v, i, a);
#pragma unroll
    for (int r = 0; r < 4; ++r)
      a[r] = plus_halves(a[r] | 0x64006400u, kMinus1024);
  }
}

/// Scales and zero points of a step's four registers, of (scale, zero) pairs of halves.
struct StepParams {
  std::uint32_t scale[4];
  std::uint32_t zero[4];

  /// Register r belongs to the parameters `low` and `high` of its two elements.
  __device__ __forceinline__ void set(int r, std::uint32_t low, std::uint32_t high) {
    scale[r] = __byte_perm(low, high, 0x5410);
    zero[r] = __byte_perm(low, high, 0x7632);
  }
};

/// Of step s of token tile `tile` of the keys.
template <quant::ParamAxis Axis>
__device__ __forceinline__ StepParams
key_step_params(const std::uint8_t* params, int tile, int s, int lane) {
  StepParams p;
  if constexpr (Axis == quant::ParamAxis::kToken) {
    const uint2 rows = *reinterpret_cast<const uint2*>(params + tile * 64 + lane / 4 * 8);
    p.set(0, rows.x, rows.x);
    p.set(1, rows.y, rows.y);
    p.set(2, rows.x, rows.x);
    p.set(3, rows.y, rows.y);
  } else {
    static_assert(Axis == quant::ParamAxis::kChannel, "codes have parameters");
    const uint4 elements =
        *reinterpret_cast<const uint4*>(params + (s / 2 * 32 + lane % 4 * 8 + s % 2 * 4) * 4);
    p.set(0, elements.x, elements.y);
    p.set(1, elements.x, elements.y);
    p.set(2, elements.z, elements.w);
    p.set(3, elements.z, elements.w);
  }
  return p;
}

/// Of token tile `tile` of the values, any step.
__device__ __forceinline__ StepParams value_step_params(const std::uint8_t* params,
                                                        int tile,
                                                        int lane) {
  const uint4 tokens = *reinterpret_cast<const uint4*>(params + tile * 64 + lane % 4 * 16);
  StepParams p;
  p.set(0, tokens.x, tokens.z);
  p.set(1, tokens.x, tokens.z);
  p.set(2, tokens.y, tokens.w);
  p.set(3, tokens.y, tokens.w);
  return p;
}

/// Four matrices in the order of A fragments; each lane names a row of one.
__device__ __forceinline__ void store_matrices(std::uint32_t row, const std::uint32_t (&a)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row),
               "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])
               : "memory");
}

/// scale code + zero of a page's keys or values, rounded to Half -> cache::FragmentKeyTile<16> or
/// FragmentValueTile<16>. A quarter of the vectors by each warp of the warpgroup.
///
/// Layout:  codes as the tile of the unit has them, behind them their parameters.
template <AttentionPolicy P, bool IsValues>
__device__ __forceinline__ void decode_tile(std::uint8_t* to,
                                            const std::uint8_t* codes,
                                            int warp,
                                            int lane) {
  using Unit = typename P::Unit;
  using F = std::conditional_t<IsValues, typename P::Scheme::Value, typename P::Scheme::Key>;
  using Fragments = quant::KvFragments<F::kBits>;
  constexpr int kSteps = P::kHeadDim / 16;
  constexpr int kRowSteps = IsValues ? 1 : kSteps;  // that make up a row of the matrix
  constexpr int kPerVector = Fragments::kStepsPerVector;
  constexpr int kVectors = 4 * kSteps / kPerVector;
  const std::uint8_t* params = codes + (IsValues ? Unit::ValueTile::kBytes : Unit::KeyTile::kBytes);
  const int upper = lane / 8 % 2;
  const int right = lane / 16;
  const std::uint32_t row = static_cast<std::uint32_t>(__cvta_generic_to_shared(to)) +
                            (upper * 2 * kRowSteps + right) * 128 + lane % 8 * 16;
  const auto params_of = [&](int step) {
    if constexpr (IsValues) {
      return value_step_params(params, step / kSteps, lane);
    } else {
      return key_step_params<F::kAxis>(params, step / kSteps, step % kSteps, lane);
    }
  };
  // Whether all steps of a vector have the same parameters.
  constexpr bool kIsShared = F::kAxis == quant::ParamAxis::kToken && kSteps % kPerVector == 0;
#pragma unroll
  for (int n = 0; n < ceil_div(kVectors, 4); ++n) {
    const int v = warp + n * 4;
    if (kVectors % 4 != 0 && v >= kVectors) break;
    const uint4 bits = Fragments::template load<kRowSteps>(codes, v, lane);
    StepParams p = params_of(v * kPerVector);
#pragma unroll
    for (int i = 0; i < kPerVector; ++i) {
      const int step = v * kPerVector + i;
      if (!kIsShared && i > 0) p = params_of(step);
      std::uint32_t a[4];
      code_halves<F::kBits>(bits, i, a);
#pragma unroll
      for (int r = 0; r < 4; ++r)
        a[r] = fma_halves(a[r], p.scale[r], p.zero[r]);
      const int matrix = step / kRowSteps * 4 * kRowSteps + step % kRowSteps * 2;
      store_matrices(row + matrix * 128, a);
    }
  }
}

}  // namespace lmd::kernels::detail
