/// \file  What apps/cuda_runtime.hpp declares, with the Cuda backend.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/engine/cuda_executor.cuh>
#include <lmd/engine/cuda_needs.cuh>
#include <lmd/engine/dispatch.hpp>
#include <lmd/engine/make_ops.cuh>
#include <lmd/model/load_device_weights.cuh>

#include "../cuda_runtime.hpp"
#include "../judge_gpu.hpp"

namespace lmd::apps {
namespace {

/// The context of device 0 on a stream that the caller keeps.
Cuda gpu_context(const Stream& stream) {
  Cuda ctx{.stream = stream.get(), .overlap = true};
  LMD_CUDA_TRY(cudaDeviceGetAttribute(&ctx.multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  LMD_CUDA_TRY(
      cudaDeviceGetAttribute(&ctx.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  return ctx;
}

/// What read_kernel sums, 16 bytes at a time.
struct ReadArgs {
  const uint4* from = nullptr;
  std::int64_t n = 0;
  unsigned* sum = nullptr;
};

__global__ void __launch_bounds__(512) read_kernel(ReadArgs a) {
  unsigned sum = 0;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
#pragma unroll 8
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < a.n; i += step) {
    const uint4 v = a.from[i];
    sum += v.x ^ v.y ^ v.z ^ v.w;
  }
  if (sum == 0x12345678u) *a.sum = sum;  // used, so that nothing is optimised away
}

/// Asks device 0.
void ask_device(GpuAnswers& answers, GpuFacts& facts) {
  cudaDeviceProp properties{};
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  cudaError_t asked = cudaGetDeviceProperties(&properties, 0);
  if (asked == cudaSuccess) asked = cudaMemGetInfo(&free_bytes, &total_bytes);
  if (asked != cudaSuccess) {
    answers.error = cudaGetErrorString(asked);
    return;
  }
  facts.name = properties.name;
  facts.compute_capability = 10 * properties.major + properties.minor;
  facts.multiprocessors = properties.multiProcessorCount;
  facts.free_bytes = static_cast<std::int64_t>(free_bytes);
  facts.total_bytes = static_cast<std::int64_t>(total_bytes);
  answers.name = facts.name;
  answers.compute_capability = facts.compute_capability;
  cudaFuncAttributes kernel{};
  answers.has_code = cudaFuncGetAttributes(&kernel, read_kernel) == cudaSuccess;
}

/// What the kernels cannot do is refused before anything is loaded.
/// \throws Error(kConfig).
void require_kernels(const model::ModelConfig& shape, const engine::EngineConfig& config) {
  const auto require = [](bool ok, const std::string& what, int value, const std::string& range) {
    LMD_REQUIRE(ok, ErrorCode::kConfig,
                what + ' ' + std::to_string(value) + ": the GPU backend takes " + range +
                    "; use --device cpu");
  };
  const int most = kernels::detail::kMaxDecodeBatch;
  require(config.max_batch_size <= most, "--max-batch-size", config.max_batch_size,
          "at most " + std::to_string(most));
  const int group = shape.n_heads / shape.n_kv_heads;
  require(group <= kernels::detail::kMaxGroup, "query heads of a KV head:", group,
          "at most " + std::to_string(kernels::detail::kMaxGroup));
  require(shape.vocab_size <= kernels::kMaxVocab, "a vocabulary of", shape.vocab_size,
          "at most " + std::to_string(kernels::kMaxVocab));
  for (const int size : {shape.hidden_size, shape.intermediate_size, shape.q_size()})
    require(size % 8 == 0, "a layer of size", size, "multiples of 8");
}

template <Activation T>
model::CudaOps<T> make_ops(const model::ModelConfig& shape, const engine::EngineConfig& config) {
  return engine::make_cuda_ops<T>(config.quant_policy, shape.head_dim, config.is_deterministic);
}

/// `get_weights(ops, ctx)` brings them to the GPU.
template <class F>
std::unique_ptr<engine::Executor> make_executor(const model::ModelConfig& shape,
                                                const engine::EngineConfig& config,
                                                const engine::MemoryPlan& plan,
                                                F&& get_weights) {
  auto stream = std::make_unique<Stream>();
  const Cuda ctx = gpu_context(*stream);
  return engine::with_activations(config.activations, [&]<class T>() {
    const model::CudaOps<T> ops = make_ops<T>(shape, config);
    model::DeviceWeights weights = get_weights(ops, ctx);
    return std::unique_ptr<engine::Executor>(std::make_unique<engine::CudaExecutor<T>>(
        shape, std::move(weights), ops, plan, config.is_deterministic, ctx, std::move(stream)));
  });
}

}  // namespace

bool is_cuda_built_in() {
  return true;
}

GpuFacts query_gpu() {
  GpuFacts facts;
  GpuAnswers answers{.cuda_version = CUDART_VERSION};
  const cudaError_t counted = cudaGetDeviceCount(&answers.devices);
  if (counted != cudaSuccess) answers.devices = 0;
  if (answers.devices == 0) {
    int driver = 0;
    answers.has_driver = cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0;
    answers.is_driver_too_old = counted == cudaErrorInsufficientDriver;
    if (counted != cudaSuccess && counted != cudaErrorNoDevice)
      answers.error = cudaGetErrorString(counted);
  } else {
    ask_device(answers, facts);
  }
  judge_gpu(answers, &facts);
  if (!facts.is_usable) (void)cudaGetLastError();
  return facts;
}

engine::BackendNeeds cuda_needs(const model::ModelConfig& shape,
                                const engine::EngineConfig& config,
                                const model::WeightShapes& weights) {
  require_kernels(shape, config);
  return engine::with_activations(config.activations, [&]<class T>() {
    return engine::cuda_needs(shape, config, weights, make_ops<T>(shape, config),
                              query_gpu().multiprocessors);
  });
}

std::int64_t gpu_bytes_in_use() {
  cudaMemPool_t pool = nullptr;
  std::uint64_t bytes = 0;
  LMD_CUDA_TRY(cudaDeviceGetDefaultMemPool(&pool, 0));
  LMD_CUDA_TRY(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &bytes));
  return static_cast<std::int64_t>(bytes);
}

std::unique_ptr<engine::Executor> make_cuda_executor(const model::ModelConfig& shape,
                                                     model::DecoderWeights weights,
                                                     const engine::EngineConfig& config,
                                                     const engine::MemoryPlan& plan) {
  return make_executor(shape, config, plan, [&](const auto& ops, Cuda ctx) {
    return model::upload_weights(std::move(weights), ops, ctx);
  });
}

std::unique_ptr<engine::Executor> load_cuda_executor(const std::string& folder,
                                                     const model::HfConfig& files,
                                                     const engine::EngineConfig& config,
                                                     const engine::MemoryPlan& plan,
                                                     const model::Progress& progress) {
  return make_executor(files.model, config, plan, [&](const auto& ops, Cuda ctx) {
    return model::load_device_weights(folder, files.model, files.quantization, ops, ctx, progress);
  });
}

double gpu_read_bandwidth() {
  constexpr std::int64_t kMostBytes = std::int64_t{4} << 30;
  constexpr int kPasses = 8;
  const Stream stream;
  const Cuda ctx = gpu_context(stream);
  const std::int64_t bytes = std::min(kMostBytes, query_gpu().free_bytes / 2);
  DeviceBuffer<std::uint8_t> buffer(bytes / 16 * 16, ctx.stream);
  DeviceBuffer<unsigned> sum(1, ctx.stream);
  buffer.fill_bytes(1);
  const ReadArgs args{reinterpret_cast<const uint4*>(buffer.data()), buffer.size() / 16,
                      sum.data()};
  double best = 0.0;
  for (int pass = 0; pass < kPasses; ++pass) {
    Event start;
    Event end;
    start.record(ctx.stream);
    read_kernel<<<static_cast<unsigned>(ctx.multiprocessors) * 4, 512, 0, ctx.stream>>>(args);
    LMD_CUDA_TRY(cudaGetLastError());
    end.record(ctx.stream);
    LMD_CUDA_TRY(cudaStreamSynchronize(ctx.stream));
    best = std::max(best, static_cast<double>(buffer.size()) / (end.ms_since(start) * 1e-3));
  }
  return best;
}

}  // namespace lmd::apps
