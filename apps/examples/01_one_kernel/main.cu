/// \file  One kernel in a program of your own: decode attention over a paged cache with 4-bit keys and
///        values, on buffers that you fill. No model, no engine.
///
///     nvcc -std=c++20 -arch=sm_90a -I include main.cu -o one_kernel
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/device_buffer.cuh>
#include <lmd/kernels/attention/decode.cuh>
#include <lmd/quant/kv_formats.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace {

using namespace lmd;

// What the kernel is compiled for: any scheme of lmd's or of yours, heads of 64, 96 or 128.
using Policy = kernels::FragmentKvPolicy<quant::Kv4, 128>;

constexpr int kHeads = 32, kKvHeads = 8, kDim = Policy::kHeadDim;
constexpr int kPrompt = 200;  // three pages of 64 are sealed to 4 bits, the open page has 8 tokens
constexpr int kRow = (kHeads + 2 * kKvHeads) * kDim;  // queries, keys and values of a token

/// Everything that a step reads and writes, in the memory of either side.
template <template <class...> class Memory>
struct Sequence {
  Memory<Half> qkv, out;                 // [rows, kRow], [rows, kHeads, kDim]
  Memory<float> rotation;                // [rows, kDim]
  Memory<std::uint8_t> pool;             // sealed pages, in any order
  Memory<std::int32_t> page_ids;         // where the pages of this sequence lie
  Memory<Half> keys, values;             // the open page
  Memory<kernels::SequenceChunk> chunk;  // which tokens of which sequence

  kernels::BasicAttentionStepArgs<Half> step() {
    constexpr std::int64_t kPageBytes = kKvHeads * Policy::Unit::kBytes;
    return {out.data(), qkv.data(), rotation.data(), chunk.data(), pool.data(),
            kPageBytes, 1,          kHeads,          kKvHeads};
  }
};

template <class T>
DeviceBuffer<T> to_device(const std::vector<T>& from) {
  DeviceBuffer<T> to(static_cast<std::int64_t>(from.size()));
  to.copy_from(from);
  return to;
}

/// One token on the GPU: queues the kernel and waits for its output.
std::vector<Half> decode(const Sequence<std::vector>& host) {
  Sequence<DeviceBuffer> s{to_device(host.qkv),      to_device(host.out),
                           to_device(host.rotation), to_device(host.pool),
                           to_device(host.page_ids), to_device(host.keys),
                           to_device(host.values),   {}};
  s.chunk = to_device(std::vector<kernels::SequenceChunk>{
      {0, 1, host.chunk[0].position, s.keys.data(), s.values.data(), s.page_ids.data()}});
  Cuda ctx;
  LMD_CUDA_TRY(cudaDeviceGetAttribute(&ctx.multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  // The plan shares out a batch's pages among the multiprocessors: once a step, for all layers.
  DeviceBuffer<std::int32_t> plan(kernels::decode_plan_elements(ctx.multiprocessors, kKvHeads));
  DeviceBuffer<float> partial(kernels::decode_partial_elements<Policy>(ctx.multiprocessors));
  DeviceBuffer<int> counters(kernels::decode_counters(kKvHeads));
  counters.fill_bytes(0);
  LMD_CUDA_TRY(kernels::decode_plan<Policy>(ctx, {plan.data(), s.chunk.data(), 1, kKvHeads}));
  const kernels::DecodeStepArgs<Half> args{
      .step = s.step(), .workspace = {partial.data(), counters.data(), plan.data()}};
  LMD_CUDA_TRY(kernels::decode_step<Policy>(ctx, args));
  std::vector<Half> out(host.out.size());
  s.out.copy_to(out);
  return out;
}

}  // namespace

int main() try {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no GPU\n");
    return 0;
  }
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  Sequence<std::vector> s;
  s.qkv.resize(std::size_t{kPrompt} * kRow);
  std::ranges::generate(s.qkv, [&] { return to_half(normal(random)); });
  s.out.resize(std::size_t{kPrompt} * kHeads * kDim);
  for (int i = 0; i < kPrompt * kDim; ++i)
    s.rotation.push_back(i % kDim < kDim / 2 ? 1.0f : 0.0f);  // cosines 1, sines 0: no turn
  s.page_ids = {2, 0, 1};
  s.pool.resize(s.page_ids.size() * kKvHeads * Policy::Unit::kBytes);
  s.keys.resize(kKvHeads * cache::kPageTokens * kDim);
  s.values = s.keys;
  s.chunk = {{0, kPrompt, 0, s.keys.data(), s.values.data(), s.page_ids.data()}};
  // The prompt, by the definition: it fills the pages.
  kernels::attention_step<Policy, Half>(Host{}, s.step());

  // One more token, on the GPU and by the definition.
  s.qkv.resize(kRow);
  s.out.resize(kHeads * kDim);
  s.chunk[0].n = 1;
  s.chunk[0].position = kPrompt;
  const std::vector<Half> found = decode(s);
  kernels::attention_step<Policy, Half>(Host{}, s.step());
  double error = 0.0, size = 0.0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    error += std::pow(to_float(found[i]) - to_float(s.out[i]), 2);
    size += std::pow(to_float(s.out[i]), 2);
  }
  const double relative_rms = std::sqrt(error / size);
  std::printf("attention over %d tokens, relative RMS %.1e\n", kPrompt + 1, relative_rms);
  // Weights, their products with scales and outputs have 11 bits of mantissa.
  const bool is_good = relative_rms < 0x1p-9;
  std::printf("%s\n", is_good ? "output equal" : "output DIFFERS");
  return is_good ? 0 : 1;
} catch (const lmd::Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
