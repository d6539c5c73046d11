/// \file  What the Cuda backend allocates, by name and to the byte, before it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/draw_upload.cuh>
#include <lmd/engine/memory_plan.hpp>
#include <lmd/engine/step_upload.cuh>
#include <lmd/kernels/attention/prefill_args.cuh>
#include <lmd/kernels/sample/sample.hpp>
#include <lmd/model/decoder_buffers.cuh>
#include <lmd/model/device_weights.cuh>
#include <lmd/model/linear_memory.cuh>

#include <utility>
#include <vector>

namespace lmd::engine {

/// Bytes of StepUpload for any step, but for lists of biases and of banned tokens: those may be longer
/// than everything else, and make it grow.
[[nodiscard]] inline std::int64_t step_upload_bytes(model::StepLimits limits,
                                                    int session_len,
                                                    int vocab_size) {
  const auto bytes = [](std::int64_t n, auto type) {
    return StepUpload::bytes_of<decltype(type)>(n);
  };
  const std::int64_t rows = limits.rows;
  const std::int64_t sequences = limits.sequences;
  return bytes(sequences, kernels::SequenceChunk{}) + StepUpload::kAlignment +
         bytes(limits.prefill_pages(), kernels::PrefillPage{}) +
         bytes(sequences, kernels::SamplingRow{}) + bytes(rows, double{}) + 3 * bytes(rows, int{}) +
         bytes(sequences, int{}) +
         sequences *
             (bytes(session_len / cache::kPageTokens, std::int32_t{}) +
              DrawUpload::most_token_bytes(session_len) + DrawUpload::mask_bytes(vocab_size));
}

/// What CudaExecutor takes for a decoder of these weights.
/// \throws Error(kConfig) for a weight format without kernels.
template <Activation T>
[[nodiscard]] BackendNeeds cuda_needs(const model::ModelConfig& model,
                                      const EngineConfig& config,
                                      const model::WeightShapes& weights,
                                      const model::CudaOps<T>& ops,
                                      int multiprocessors) {
  const model::StepLimits limits{step_rows(model, config), config.max_batch_size};
  const int session_len = session_length(model, config);
  const std::int64_t sequences = limits.sequences;
  BackendNeeds needs{.weights = model::device_bytes(weights, ops),
                     .workspace = model::DecoderElements(model, limits, ops, multiprocessors,
                                                         weights.has_split_gate)
                                      .bytes(),
                     .idle_slots = 1};
  for (NamedBytes& use : model::LinearMemory::bytes_of(model, limits.rows, multiprocessors))
    needs.workspace.push_back(std::move(use));
  needs.workspace.push_back({"logits", 4 * sequences * model.vocab_size});
  needs.workspace.push_back({"drawn tokens", 8 * sequences});
  needs.workspace.push_back(
      {"a step's arrays", step_upload_bytes(limits, session_len, model.vocab_size)});
  needs.workspace.push_back(
      {"tokens with penalties", 4 * DrawUpload::token_elements(limits.sequences, session_len)});
  return needs;
}

}  // namespace lmd::engine
