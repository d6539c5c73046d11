/// \file  Marks code that may use more instructions than the build's baseline.
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Everything between LMD_TARGET_AVX2_ and LMD_TARGET_END_ may use AVX2, FMA and F16C (or AVX-512
// F, BW, DQ and VL), lambdas and template instances included. A plain target attribute would not
// reach those. Whoever calls such code has asked best_cpu_isa() before.
#if defined(__clang__)
// clang 14 takes one string literal only, which the formatter would split.
// clang-format off
#  define LMD_TARGET_AVX2_ \
    _Pragma("clang attribute push(__attribute__((target(\"avx2,fma,f16c\"))), apply_to = function)")
#  define LMD_TARGET_AVX512_ \
    _Pragma("clang attribute push(__attribute__((target(\"avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c\"))), apply_to = function)")
#  define LMD_TARGET_END_ _Pragma("clang attribute pop")
// clang-format on
#else
// The headers of gcc 12 give AVX-512 instructions an uninitialised operand that they do not read,
// and warn of it wherever they are inlined (gcc bug 105593).
#  define LMD_TARGET_AVX2_                                     \
    _Pragma("GCC diagnostic push") _Pragma("GCC push_options") \
        _Pragma("GCC target(\"avx2,fma,f16c\")")
#  define LMD_TARGET_AVX512_                                                                    \
    _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wuninitialized\"")        \
        _Pragma("GCC diagnostic ignored \"-Wmaybe-uninitialized\"") _Pragma("GCC push_options") \
            _Pragma("GCC target(\"avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c\")")
#  define LMD_TARGET_END_ _Pragma("GCC pop_options") _Pragma("GCC diagnostic pop")
#endif

// Before a loop of constant length over registers: without it, they are kept in memory at -O2.
#if defined(__clang__)
#  define LMD_UNROLL _Pragma("unroll")
#else
#  define LMD_UNROLL _Pragma("GCC unroll 16")
#endif

// For what is small and called within a tile: in a file with instances for many formats gcc calls it,
// and registers go through memory. AMD EPYC (Zen 5), AVX-512, linear of affine4g32 on 512 tokens, 1
// thread: 174 GFLOP/s without, 196 with it.
#define LMD_INLINE_ [[gnu::always_inline]] inline
