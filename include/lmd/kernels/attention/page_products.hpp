/// \file  Products of a few rows with a page of keys or values on the Cpu, once per instruction set.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>
#include <lmd/kernels/cache/code_registers.hpp>
#include <lmd/quant/kv_format.hpp>

#include <type_traits>
#include <utility>

#define LMD_SIMD_BODY_ <lmd/kernels/attention/page_products.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>
