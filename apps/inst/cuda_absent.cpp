/// \file  What apps/cuda_runtime.hpp declares, in a build without a CUDA compiler.
// SPDX-License-Identifier: Apache-2.0
#include "../cuda_runtime.hpp"

namespace lmd::apps {

bool is_cuda_built_in() {
  return false;
}

GpuFacts query_gpu() {
  GpuFacts facts;
  facts.problem = "this build has no CUDA backend";
  return facts;
}

engine::BackendNeeds cuda_needs(const model::ModelConfig& /*model*/,
                                const engine::EngineConfig& /*config*/,
                                const model::WeightShapes& /*weights*/) {
  return {};
}

std::int64_t gpu_bytes_in_use() {
  return 0;
}

std::unique_ptr<engine::Executor> make_cuda_executor(const model::ModelConfig& /*model*/,
                                                     model::DecoderWeights /*weights*/,
                                                     const engine::EngineConfig& /*config*/,
                                                     const engine::MemoryPlan& /*plan*/) {
  throw Error(ErrorCode::kConfig, query_gpu().problem);
}

std::unique_ptr<engine::Executor> load_cuda_executor(const std::string& /*folder*/,
                                                     const model::HfConfig& /*files*/,
                                                     const engine::EngineConfig& /*config*/,
                                                     const engine::MemoryPlan& /*plan*/,
                                                     const model::Progress& /*progress*/) {
  throw Error(ErrorCode::kConfig, query_gpu().problem);
}

double gpu_read_bandwidth() {
  return 0.0;
}

}  // namespace lmd::apps
