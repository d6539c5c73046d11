/// \file  32 neighbouring weights of any built-in format as floats in registers, in
///        lmd::kernels::scalar, avx2 and avx512: what linear and embed of the Cpu backend share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/linear/policy.hpp>
#include <lmd/kernels/primitive/simd.hpp>

#include <cstring>

namespace lmd::kernels {

/// Inputs that are decoded at a time. Rows of float formats may end in a part of a block.
inline constexpr int kBlockInputs = 32;

template <LinearPolicy P>
inline constexpr int kBlockBytes = kBlockInputs* P::Format::kBits / 8;

/// Policies that the Cpu backend can read.
template <class P>
concept CpuLinearPolicy = LinearPolicy<P> &&
    (P::Format::kBits != 4 || std::is_same_v<typename P::Order, quant::PairedOrder>);

}  // namespace lmd::kernels

#define LMD_SIMD_BODY_ <lmd/kernels/linear/weight_block.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>
