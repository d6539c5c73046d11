/// \file  The end of a row that does not fill a register, in lmd::kernels::scalar, avx2 and avx512.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/primitive/simd.hpp>

#include <cstddef>
#include <cstring>

#define LMD_SIMD_BODY_ <lmd/kernels/primitive/partial.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>
