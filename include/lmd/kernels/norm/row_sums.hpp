/// \file  Sums over a row in a fixed order, in lmd::kernels::scalar, avx2 and avx512.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/primitive/partial.hpp>

#include <cstdint>

#define LMD_SIMD_BODY_ <lmd/kernels/norm/row_sums.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>
