/// \file  Operations with their policy already chosen: all that a model's forward pass calls.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/type_list.hpp>
#include <lmd/kernels/attention/step.hpp>
#include <lmd/kernels/elementwise/embed.hpp>
#include <lmd/kernels/elementwise/silu_mul.hpp>
#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/norm/rms_norm.hpp>
#include <lmd/quant/weight_format.hpp>

#include <array>

namespace lmd::model {

/// What depends on a weight format.
template <class Backend>
struct LinearOps {
  using Result = typename Backend::Result;
  Result (*linear)(Backend, const kernels::LinearArgs&) = nullptr;
  Result (*embed)(Backend, const kernels::EmbedArgs&) = nullptr;
};

/// A plain table, filled once at load time: by engine/make_ops.hpp, or by hand in your own engine.
template <class Backend>
struct Ops {
  using Result = typename Backend::Result;
  std::array<LinearOps<Backend>, quant::WeightFormats::kSize> formats;  ///< by format number
  Result (*attention_step)(Backend, const kernels::AttentionStepArgs&) = nullptr;
  Result (*rms_norm)(Backend, const kernels::RmsNormArgs&) = nullptr;
  Result (*silu_mul)(Backend, const kernels::SiluMulArgs&) = nullptr;
  int unit_bytes = 0;  ///< bytes of one sealed page of one KV head
};

}  // namespace lmd::model
