/// \file  A user's file: needs nothing but -std=c++20, -arch and -I include.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/attention/decode.cuh>
#include <lmd/kernels/linear/linear_cuda.cuh>
#include <lmd/quant/kv_formats.hpp>

#include <cstdio>

using namespace lmd;

int main() {
  using Weights = kernels::FragmentPolicy<quant::WeightInt4<128>, Half>;
  using Cache = kernels::FragmentKvPolicy<quant::Kv4, 128>;
  // Nothing to do is success without a GPU, too; the kernels are compiled all the same.
  const bool is_good =
      kernels::wide_linear<Weights>(Cuda{}, {.m = 0, .n = 16, .k = 128}, {}) != cudaSuccess &&
      kernels::decode_step<Cache, Half>(Cuda{}, {}) == cudaErrorInvalidValue;
  std::printf("%s\n", is_good ? "compiled" : "WRONG");
  return is_good ? 0 : 1;
}
