/// \file  The Cuda backend as translation units see it that know nothing of CUDA.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/executor.hpp>
#include <lmd/engine/memory_plan.hpp>
#include <lmd/model/dtype.hpp>
#include <lmd/model/hf_config.hpp>
#include <lmd/model/weight_shapes.hpp>
#include <lmd/model/weights.hpp>

#include <memory>
#include <string>

namespace lmd::apps {

/// Whether this build has the backend, whatever the machine has.
[[nodiscard]] bool is_cuda_built_in();

/// The GPU that this process would use.
struct GpuFacts {
  bool is_usable = false;
  bool is_there = false;       ///< a GPU answered, usable or not
  std::string problem;         ///< why it is not usable, for people
  std::string name;            ///< "NVIDIA H200"
  int compute_capability = 0;  ///< 10 * major + minor
  int multiprocessors = 0;
  std::int64_t free_bytes = 0;
  std::int64_t total_bytes = 0;
};

/// What CUDA takes itself on the way, for the code of kernels and libraries, graphs, and the rounding of
/// allocations. Buffers are in the plan.
inline constexpr std::int64_t kGpuReserve = std::int64_t{768} << 20;

/// Asks the driver; never throws.
[[nodiscard]] GpuFacts query_gpu();

/// What the backend takes for a decoder of this shape beside the cache of its sequences.
/// \throws Error(kConfig) for a shape, a batch or a weight format that it has no kernels for.
[[nodiscard]] engine::BackendNeeds cuda_needs(const model::ModelConfig& model,
                                              const engine::EngineConfig& config,
                                              const model::WeightShapes& weights);

/// Bytes that this process has allocated on the GPU: what plans count, not what CUDA takes itself.
[[nodiscard]] std::int64_t gpu_bytes_in_use();

/// Moves the weights to the GPU and makes what runs them. Their rows are in PlainOrder.
/// \throws Error(kConfig) for what has no kernels; Error(kCapacity); Error(kCuda).
[[nodiscard]] std::unique_ptr<engine::Executor> make_cuda_executor(
    const model::ModelConfig& model,
    model::DecoderWeights weights,
    const engine::EngineConfig& config,
    const engine::MemoryPlan& plan);

/// The same from the files of a folder: read, moved and packed at once. `progress` in bytes of the files.
/// \throws what loading weights \throws, too.
[[nodiscard]] std::unique_ptr<engine::Executor> load_cuda_executor(
    const std::string& folder,
    const model::HfConfig& files,
    const engine::EngineConfig& config,
    const engine::MemoryPlan& plan,
    const model::Progress& progress);

/// Bytes per second that the GPU reads from its memory: the best of a few passes over 4 GiB, or
/// what is free of it.
[[nodiscard]] double gpu_read_bandwidth();

}  // namespace lmd::apps
