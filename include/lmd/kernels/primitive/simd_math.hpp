/// \file  exp, silu and gelu on whole registers, in lmd::kernels::scalar, avx2 and avx512.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/primitive/simd.hpp>

#define LMD_SIMD_BODY_ <lmd/kernels/primitive/simd_math.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>
