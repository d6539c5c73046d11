/// \file  Small operations and sampling on the GPU, shapes of InternLM2.5-7B.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/attention/decode_plan.cuh>
#include <lmd/kernels/elementwise/embed.cuh>
#include <lmd/kernels/elementwise/gelu.cuh>
#include <lmd/kernels/elementwise/silu_mul.cuh>
#include <lmd/kernels/norm/layer_norm.cuh>
#include <lmd/kernels/norm/rms_norm.cuh>
#include <lmd/kernels/sample/sample.cuh>
#include <lmd/quant/kv_formats.hpp>

#include <memory>

#include "cases/activations.hpp"
#include "harness.cuh"

using namespace lmd;
using namespace lmd::kernels;

namespace {

constexpr int kHidden = 4096;
constexpr int kInner = 14336;
constexpr int kVocab = 92544;

/// Normal numbers on the device, a pool of them repeated.
template <class T>
std::shared_ptr<DeviceBuffer<T>> normal_numbers(std::int64_t n) {
  const std::vector<T> pool = test::random_activations<T>(1'000'003, 1);
  auto all = std::make_shared<DeviceBuffer<T>>(n);
  for (std::int64_t at = 0; at < n; at += static_cast<std::int64_t>(pool.size())) {
    const auto part = std::min<std::int64_t>(n - at, static_cast<std::int64_t>(pool.size()));
    LMD_CUDA_TRY(cudaMemcpy(all->data() + at, pool.data(),
                            static_cast<std::size_t>(part) * sizeof(T), cudaMemcpyDefault));
  }
  return all;
}

void add_row(const std::string& name,
             std::int64_t bytes,
             int copies,
             const std::function<void(Cuda, int)>& queue) {
  bench::add_memory_row(name, {.bytes = bytes, .copies = copies, .queue = queue});
}

/// As many copies as make a cold cycle, but at most 500: what a single token reads is in the cache
/// when the engine comes to it.
int copies_for(std::int64_t bytes) {
  return std::clamp(bench::cold_copies(bytes), 24, 500);
}

/// `name` says the width where it is not the hidden size.
void add_rms_norms(const std::string& name, int width) {
  for (const int m : {1, 64, 256, 2048, 8192}) {
    const std::int64_t size = std::int64_t{m} * width;
    const int copies = copies_for(8 * size);
    auto x = normal_numbers<Half>(copies * size);
    auto residual = normal_numbers<Half>(copies * size);
    auto out = normal_numbers<Half>(copies * size);
    auto weight = normal_numbers<float>(width);
    add_row(name + "/m:" + std::to_string(m), 8 * size, copies, [=](Cuda ctx, int i) {
      LMD_CUDA_TRY(rms_norm<Half>(ctx, {.out = out->data() + i * size,
                                        .x = x->data() + i * size,
                                        .residual = residual->data() + i * size,
                                        .weight = weight->data(),
                                        .eps = 1e-5f,
                                        .m = m,
                                        .n = width}));
    });
  }
}

void add_norms() {
  add_rms_norms("add_rms_norm", kHidden);
  add_rms_norms("add_rms_norm/n:3200", 3200);  // of InternViT-6B
  add_rms_norms("add_rms_norm/n:6144", 6144);  // of InternLM2-20B
  constexpr int kTokens = 13 * 1025;           // of InternViT-6B, 13 tiles
  constexpr int kWidth = 3200;
  const std::int64_t size = std::int64_t{kTokens} * kWidth;
  const int copies = copies_for(4 * size);
  auto x = normal_numbers<BFloat16>(copies * size);
  auto out = normal_numbers<BFloat16>(copies * size);
  auto weight = normal_numbers<float>(kWidth);
  add_row("layer_norm/m:13325", 4 * size, copies, [=](Cuda ctx, int i) {
    LMD_CUDA_TRY(layer_norm<BFloat16>(ctx, {.out = out->data() + i * size,
                                            .x = x->data() + i * size,
                                            .weight = weight->data(),
                                            .bias = weight->data(),
                                            .eps = 1e-6f,
                                            .m = kTokens,
                                            .n = kWidth}));
  });
}

void add_elementwise() {
  for (const int m : {1, 64, 256, 2048, 8192}) {
    const std::int64_t size = std::int64_t{m} * kInner;
    const int copies = copies_for(6 * size);
    auto gate_up = normal_numbers<Half>(copies * 2 * size);
    auto out = normal_numbers<Half>(copies * size);
    add_row("silu_mul/m:" + std::to_string(m), 6 * size, copies, [=](Cuda ctx, int i) {
      LMD_CUDA_TRY(silu_mul<Half>(ctx, {.out = out->data() + i * size,
                                        .gate_up = gate_up->data() + i * 2 * size,
                                        .m = m,
                                        .n = kInner}));
    });
  }
  {
    const std::int64_t size = std::int64_t{13325} * 12800;
    auto x = normal_numbers<BFloat16>(2 * size);
    add_row("gelu/m:13325", 4 * size, 24, [=](Cuda ctx, int i) {
      BFloat16* at = x->data() + i % 2 * size;
      LMD_CUDA_TRY(gelu<BFloat16>(ctx, {.out = at, .x = at, .n = size}));
    });
  }
  for (const int m : {1, 64, 256, 2048, 8192}) {
    const std::int64_t size = std::int64_t{m} * kHidden;
    const int copies = copies_for(4 * size);
    auto table = normal_numbers<Half>(std::int64_t{kVocab} * kHidden);
    auto out = normal_numbers<Half>(copies * size);
    std::vector<int> ids;
    for (std::int64_t i = 0; i < std::int64_t{copies} * m; ++i)
      ids.push_back(static_cast<int>(i * 7919 % kVocab));
    auto device_ids = std::make_shared<DeviceBuffer<int>>(static_cast<std::int64_t>(ids.size()));
    device_ids->copy_from(ids);
    add_row("embed/m:" + std::to_string(m), 4 * size, copies, [=](Cuda ctx, int i) {
      LMD_CUDA_TRY((embed<WeightPolicy<quant::WeightHalf>, Half>(
          ctx, {.out = out->data() + i * size,
                .ids = device_ids->data() + std::int64_t{i} * m,
                .codes = reinterpret_cast<const std::uint8_t*>(table->data()),
                .m = m,
                .n = kVocab,
                .k = kHidden})));
    });
  }
}

/// Sharing out the work of a decode step, once for all layers. It writes a job for each sequence and
/// KV head at least.
void add_decode_plans() {
  using P = FragmentKvPolicy<quant::Kv4, 128>;
  constexpr int kKvHeads = 8;
  int sms = 0;
  LMD_CUDA_TRY(multiprocessors(Cuda{}, &sms));
  for (const int batch : {1, 64, 256, 1024}) {
    std::vector<SequenceChunk> made;
    for (int i = 0; i < batch; ++i)
      made.push_back({.n = 1, .position = 64 + i * 7919 % 8192});
    auto chunks = std::make_shared<DeviceBuffer<SequenceChunk>>(bench::on_device(made));
    const int pairs = batch * kKvHeads;
    auto plan = std::make_shared<DeviceBuffer<std::int32_t>>(decode_plan_elements(sms, pairs));
    const std::int64_t bytes =
        batch * static_cast<std::int64_t>(sizeof(SequenceChunk) +
                                          kKvHeads * sizeof(kernels::detail::DecodeJob));
    add_row("decode_plan/b:" + std::to_string(batch), bytes, 100, [=](Cuda ctx, int) {
      LMD_CUDA_TRY(decode_plan<P>(ctx, {.plan = plan->data(),
                                        .chunks = chunks->data(),
                                        .n_chunks = batch,
                                        .kv_heads = kKvHeads}));
    });
  }
}

struct Sampling {
  const char* name;
  SamplingRow row;
  bool has_penalties = false;
};

/// As many distinct tokens as a sequence of some length has behind it.
constexpr int kHistory = 1024;

/// Logits of a cold cycle: normal, or with one token far above the others in each row.
void add_sampling(const std::string& kind, float peak) {
  constexpr Sampling kSettings[] = {
      {"greedy", {.temperature = 0.0f}},
      {"k40_p0.8", {.top_p = 0.8f, .top_k = 40}},
      {"p0.8", {.top_p = 0.8f}},
      {"p0.95", {.top_p = 0.95f}},
      {"min_p0.05", {.min_p = 0.05f}},
      {"all", {}},
      {"greedy_penalties", {.temperature = 0.0f}, true},
      {"k40_p0.8_penalties", {.top_p = 0.8f, .top_k = 40}, true},
  };
  const int n_rows = bench::cold_copies(4 * kVocab);
  auto logits = normal_numbers<float>(std::int64_t{n_rows} * kVocab);
  if (peak > 0.0f) {
    for (int i = 0; i < n_rows; ++i)
      LMD_CUDA_TRY(cudaMemcpy(logits->data() + std::int64_t{i} * kVocab + 997 * i % kVocab, &peak,
                              4, cudaMemcpyDefault));
  }
  constexpr int kMaxRows = 256;
  auto ids = std::make_shared<DeviceBuffer<int>>(kMaxRows);
  auto n_tokens = std::make_shared<DeviceBuffer<int>>(kMaxRows);
  n_tokens->copy_from(std::vector<int>(kMaxRows, kHistory));
  std::vector<int> history;
  for (int i = 0; i < kHistory; ++i)
    history.push_back(i * 7919 % kVocab);
  auto tokens = std::make_shared<DeviceBuffer<int>>(kHistory);
  tokens->copy_from(history);
  for (const int m : {1, 16, 64, 256}) {
    const int copies = std::max(20, n_rows / m);
    const std::int64_t bytes = std::int64_t{4} * m * kVocab;
    const std::string suffix = "/" + kind + "/m:" + std::to_string(m);
    const auto first = [=](int i) {
      return logits->data() + std::int64_t{i % (n_rows / m)} * m * kVocab;
    };
    add_row("argmax" + suffix, bytes, copies, [=](Cuda ctx, int i) {
      LMD_CUDA_TRY(argmax(
          ctx,
          {.ids = ids->data(), .logits = first(i), .stride = kVocab, .m = m, .vocab = kVocab}));
    });
    for (const Sampling& setting : kSettings) {
      std::vector<SamplingRow> rows(static_cast<std::size_t>(m), setting.row);
      for (int i = 0; i < m; ++i) {
        SamplingRow& row = rows[static_cast<std::size_t>(i)];
        row.seed = static_cast<std::uint64_t>(i);
        if (!setting.has_penalties) continue;
        row.repetition_penalty = 1.1f;
        row.presence_penalty = 0.5f;
        row.frequency_penalty = 0.25f;
        row.n_prompt = kHistory / 2;
        row.tokens = tokens->data();
      }
      auto device_rows = std::make_shared<DeviceBuffer<SamplingRow>>(m);
      device_rows->copy_from(rows);
      add_row(std::string("sample/") + setting.name + suffix, bytes, copies, [=](Cuda ctx, int i) {
        (void)tokens;  // rows point to them
        LMD_CUDA_TRY(sample(ctx, {.ids = ids->data(),
                                  .logits = first(i),
                                  .rows = device_rows->data(),
                                  .n_tokens = n_tokens->data(),
                                  .stride = kVocab,
                                  .m = m,
                                  .vocab = kVocab}));
      });
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  add_norms();
  add_elementwise();
  add_decode_plans();
  add_sampling("flat", 0.0f);
  add_sampling("peaked", 20.0f);
  return bench::run(argc, argv);
}
