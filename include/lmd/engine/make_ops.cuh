/// \file  Fills the operation table of model/ops.cuh from numbers known at run time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/dispatch.hpp>
#include <lmd/kernels/attention/step_cuda_extern.cuh>
#include <lmd/kernels/linear/linear_cuda_extern.cuh>
#include <lmd/model/ops.cuh>

namespace lmd::engine {

/// What a format is kept as on the device: numbers of any width become those of activations.
template <quant::WeightFormat W, Activation T>
using DeviceFormat = std::conditional_t<W::kGroupSize == 0, quant::NumberFormat<T>, W>;

/// With `is_batch_invariant` linear layers give a token the same bits in any batch.
/// \throws Error(kConfig) when `quant_policy` or `head_dim` has no kernels.
template <Activation T>
[[nodiscard]] model::CudaOps<T> make_cuda_ops(int quant_policy,
                                              int head_dim,
                                              bool is_batch_invariant) {
  model::CudaOps<T> ops;
  std::size_t i = 0;
  for_each_type(quant::WeightFormats{}, [&](auto t) {
    using From = typename decltype(t)::type;
    using W = DeviceFormat<From, T>;
    using P = kernels::FragmentPolicy<W, T>;
    model::CudaLinearOps<T>& format = ops.formats[i++];
    format = {.linear = &kernels::linear<P>,
              .embed = &kernels::embed<P, T>,
              .pack = &quant::pack_fragments<W, From>,
              .stream_bytes = &quant::FragmentWeights<W>::stream_bytes};
    if constexpr (requires(typename From::Params p) { p.zero; })
      format.pack_awq = &quant::pack_awq<From::kGroupSize>;
    if (is_batch_invariant) format.linear = &kernels::batch_invariant_linear<P>;
  });
  with_kv_scheme(quant_policy, [&]<class S>() {
    with_head_dim(head_dim, [&]<int Dim>() {
      using P = kernels::FragmentKvPolicy<S, Dim>;
      ops.decode_plan = &kernels::decode_plan<P>;
      ops.decode_step = &kernels::decode_step<P, T>;
      ops.prefill_step = &kernels::prefill_step<P, T>;
      ops.seal_step = &kernels::seal_step<P>;
      ops.decode_partial_elements = [](int n) { return kernels::decode_partial_elements<P>(n); };
      ops.unit_bytes = P::Unit::kBytes;
      ops.kv_name = S::kName;
    });
  });
  return ops;
}

}  // namespace lmd::engine
