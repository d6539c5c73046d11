/// \file  A table of operations filled by hand: one kernel of your own, one of lmd's with a stopwatch
///        around it, the others as they come. The model calls whatever the table holds.
///
///     own_ops MODEL_FOLDER
// SPDX-License-Identifier: Apache-2.0
#include <lmd/engine/cpu_executor.hpp>
#include <lmd/engine/evaluate.hpp>
#include <lmd/model/hf_config.hpp>
#include <lmd/model/load_weights.hpp>
#include <lmd/quant/kv_formats.hpp>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <vector>

namespace {

using namespace lmd;
using Attention = kernels::KvPolicy<quant::Kv16, 64>;
using Weights = kernels::WeightPolicy<quant::WeightHalf>;

/// The Host definitions behind the Cpu signature: right, and slow.
model::Ops<Cpu> definitions() {
  model::Ops<Cpu> ops;
  ops.formats[model::format_index<Weights::Format>()] = {
      .linear = [](Cpu, const kernels::LinearArgs& a) { kernels::linear<Weights>(Host{}, a); },
      .embed = [](Cpu, const kernels::EmbedArgs& a) { kernels::embed<Weights>(Host{}, a); }};
  ops.attention_step = [](Cpu, const kernels::AttentionStepArgs& a) {
    kernels::attention_step<Attention>(Host{}, a);
  };
  ops.unit_bytes = Attention::Unit::kBytes;
  ops.rms_norm = [](Cpu, const kernels::RmsNormArgs& a) { kernels::rms_norm(Host{}, a); };
  ops.silu_mul = [](Cpu, const kernels::SiluMulArgs& a) { kernels::silu_mul(Host{}, a); };
  return ops;
}

/// Yours: the sigmoid as a hyperbolic tangent, 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2.
void own_silu_mul(Cpu, const kernels::SiluMulArgs& a) {
  for (std::int64_t i = 0; i < a.m; ++i) {
    const float* const gate = a.gate_up + i * 2 * a.n;
    const float* const up = gate + a.n;
    for (int j = 0; j < a.n; ++j)
      a.out[i * a.n + j] = 0.5f * gate[j] * (1.0f + std::tanh(0.5f * gate[j])) * up[j];
  }
}

/// A table holds plain functions, so what they count lies beside them.
double attention_s = 0.0;
int attention_calls = 0;

void timed_attention(Cpu, const kernels::AttentionStepArgs& a) {
  const auto begin = std::chrono::steady_clock::now();
  kernels::attention_step<Attention>(Host{}, a);
  attention_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  ++attention_calls;
}

/// Logits of all positions of `ids`, computed by the operations of a table.
std::vector<float> logits_of(const char* folder,
                             const model::Ops<Cpu>& ops,
                             std::span<const int> ids) {
  const model::HfConfig config = model::read_config(folder);
  LMD_REQUIRE(config.model.head_dim == Attention::kHeadDim, ErrorCode::kConfig,
              "this example is compiled for heads of 64");
  auto weights = model::load_weights(folder, config.model, config.quantization);
  LMD_REQUIRE(weights.embedding.format == model::format_index<Weights::Format>(),
              ErrorCode::kConfig, "this example is compiled for float16 weights");
  const int n = static_cast<int>(ids.size());
  model::Decoder decoder(config.model, std::move(weights), ops, Cpu{}, n);
  std::vector<float> all;
  engine::MemoryPlan plan;
  plan.page_bytes = decoder.geometry().page_bytes();
  plan.n_pages = cache::sealed_pages(n);
  plan.max_batch_size = 1;
  engine::CpuExecutor executor(std::move(decoder), plan);
  engine::Evaluator(executor, n).run(ids, [&](int, std::span<const float> row) {
    all.insert(all.end(), row.begin(), row.end());
  });
  return all;
}

double relative_rms(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0.0;
  double size = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += std::pow(a[i] - b[i], 2);
    size += std::pow(b[i], 2);
  }
  return std::sqrt(error / size);
}

}  // namespace

int main(int argc, char** argv) try {
  LMD_REQUIRE(argc == 2, ErrorCode::kConfig, "usage: own_ops MODEL_FOLDER");
  std::vector<int> ids;
  for (int i = 0; i < 80; ++i)
    ids.push_back(3 + i * i % 40);
  const std::vector<float> expected = logits_of(argv[1], definitions(), ids);

  model::Ops<Cpu> mixed = definitions();
  mixed.silu_mul = own_silu_mul;
  mixed.attention_step = timed_attention;
  const std::vector<float> found = logits_of(argv[1], mixed, ids);

  const double error = relative_rms(found, expected);
  std::printf("%zu logits, relative RMS %.1e\n", found.size(), error);
  std::printf("attention: %d calls, %.1f ms\n", attention_calls, 1e3 * attention_s);
  // 24 bits of mantissa, and a few roundings more or less in each of the layers.
  const bool is_good = error > 0.0 && error < 1e-5 && attention_calls > 0;
  std::printf("%s\n", is_good ? "logits equal" : "logits DIFFER");
  return is_good ? 0 : 1;
} catch (const lmd::Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
