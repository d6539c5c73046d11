/// \file  Operations of the Cuda backend with their policy already chosen.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/type_list.hpp>
#include <lmd/kernels/attention/decode_plan.cuh>
#include <lmd/kernels/attention/prefill_args.cuh>
#include <lmd/kernels/cache/seal_args.cuh>
#include <lmd/kernels/elementwise/embed.hpp>
#include <lmd/kernels/elementwise/silu_mul.hpp>
#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/linear/workspace.hpp>
#include <lmd/quant/pack_awq.cuh>
#include <lmd/quant/pack_fragments.cuh>
#include <lmd/quant/weight_format.hpp>

#include <array>

namespace lmd::model {

/// What depends on a weight format. Null pointers: the backend does not have the format.
template <Activation T>
struct CudaLinearOps {
  cudaError_t (*linear)(Cuda,
                        const kernels::BasicLinearArgs<T>&,
                        const kernels::LinearWorkspace&) = nullptr;
  cudaError_t (*embed)(Cuda, const kernels::BasicEmbedArgs<T>&) = nullptr;
  cudaError_t (*pack)(Cuda, const quant::PackArgs&) = nullptr;
  std::int64_t (*stream_bytes)(int n, int k) = nullptr;
  cudaError_t (*pack_awq)(Cuda, const quant::AwqPackArgs&) = nullptr;  ///< AWQ's formats only
};

/// A plain table, filled once at load time: by engine/make_ops.cuh, or by hand in your own engine.
template <Activation T>
struct CudaOps {
  std::array<CudaLinearOps<T>, quant::WeightFormats::kSize> formats;  ///< by format number
  cudaError_t (*decode_plan)(Cuda, const kernels::DecodePlanArgs&) = nullptr;
  cudaError_t (*decode_step)(Cuda, const kernels::DecodeStepArgs<T>&) = nullptr;
  cudaError_t (*prefill_step)(Cuda, const kernels::PrefillStepArgs<T>&) = nullptr;
  cudaError_t (*seal_step)(Cuda, const kernels::SealStepArgs&) = nullptr;
  std::int64_t (*decode_partial_elements)(int multiprocessors) = nullptr;
  int unit_bytes = 0;        ///< of one sealed page of one KV head
  const char* kv_name = "";  ///< of the KV scheme, for messages
};

}  // namespace lmd::model
