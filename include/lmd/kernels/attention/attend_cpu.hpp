/// \file  Attention of an item on the Cpu, once per instruction set.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cpu_features.hpp>
#include <lmd/kernels/attention/attend_item.hpp>
#include <lmd/kernels/attention/page_products.hpp>
#include <lmd/kernels/primitive/simd_math.hpp>
#include <lmd/quant/kv_formats.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#define LMD_SIMD_BODY_ <lmd/kernels/attention/attend_cpu.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>

namespace lmd::kernels {

/// What a thread does with an item. Pages are walked in order with a running maximum:
///
///   m' = max(m, max_t s_t),  sum = sum e^(m - m') + sum_t e^(s_t - m'),  acc likewise
///
/// Sealed pages are read as codes: with s = scale and z = zero of a token,
///
///   q . k = s (q . code) + z sum_d q,      sum_t p v = sum_t (p s) code + sum_t p z
///
/// Source:  Milakov, Gimelshein, Online normalizer calculation for softmax, arXiv 1805.02867
struct AttendFunctions {
  void (*attend)(const AttendItem&) = nullptr;  ///< into states, or into out
  void (*merge)(const AttendItem&) = nullptr;   ///< states of all spans into out
};

/// The functions for an instruction set that the processor has.
template <AttentionPolicy P>
[[nodiscard]] AttendFunctions select_attend(CpuIsa isa) {
  using Scheme = typename P::Scheme;
  static_assert(
      std::is_same_v<
          typename P::Unit,
          cache::SealedUnit<Scheme, P::kHeadDim, cache::ChannelMajorTile, cache::TokenMajorTile>>,
      "lanes are tokens of a key channel and elements of a value");
  static_assert(
      quant::SimdKvFormat<typename Scheme::Key> && quant::SimdKvFormat<typename Scheme::Value>,
      "codes are read here as halves or scale * code + zero; Host reads formats of any meaning");
  static_assert(Scheme::Value::kAxis != quant::ParamAxis::kChannel,
                "weights are multiplied by the scales of their tokens");
  static_assert(P::kHeadDim % 32 == 0, "a panel has 32 columns");
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return {&avx512::attend_item<P>, &avx512::merge_item<P>};
  if (isa == CpuIsa::kAvx2) return {&avx2::attend_item<P>, &avx2::merge_item<P>};
#endif
  (void)isa;
  return {&scalar::attend_item<P>, &scalar::merge_item<P>};
}

}  // namespace lmd::kernels
