/// \file  Sealing a full page, Cpu backend.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cpu_features.hpp>
#include <lmd/kernels/cache/code_registers.hpp>
#include <lmd/kernels/cache/seal.hpp>
#include <lmd/quant/kv_formats.hpp>

#include <cstring>
#include <limits>
#include <type_traits>

#define LMD_SIMD_BODY_ <lmd/kernels/cache/seal_cpu.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>

namespace lmd::kernels {

using SealUnit = void (*)(const SealArgs&);

/// The function for an instruction set that the processor has. Reads units of channel-major keys
/// and token-major values: codes then lie in the order of the open page.
template <class U>
[[nodiscard]] SealUnit select_seal_unit(CpuIsa isa) {
  static_assert(
      std::is_same_v<U, cache::SealedUnit<typename U::Scheme, U::kHeadDim, cache::ChannelMajorTile,
                                          cache::TokenMajorTile>>,
      "a register of tokens of a key channel, or of elements of a value, is stored at once");
  static_assert(quant::SimdKvFormat<typename U::Scheme::Key> &&
                    quant::SimdKvFormat<typename U::Scheme::Value>,
                "codes are computed here as KvAffine does; Host seals formats of any meaning");
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return &avx512::seal_unit<U>;
  if (isa == CpuIsa::kAvx2) return &avx2::seal_unit<U>;
#endif
  (void)isa;
  return &scalar::seal_unit<U>;
}

/// On the calling thread: one unit is work for a few microseconds.
///
/// Oracle:  seal_unit(Host, ...): equal bit by bit, but for the payload of a NaN
template <class U>
void seal_unit(Cpu, const SealArgs& a) {
  static const SealUnit chosen = select_seal_unit<U>(best_cpu_isa());
  chosen(a);
}

}  // namespace lmd::kernels
