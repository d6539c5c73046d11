/// \file  An engine of your own: one sequence, greedy, over lmd's model and cache. No scheduler.
///
///     own_engine MODEL_FOLDER ID...        the ids of a prompt in, the ids of 24 more tokens out
// SPDX-License-Identifier: Apache-2.0
#include <lmd/cache/page_table.hpp>
#include <lmd/core/cpu_features.hpp>
#include <lmd/core/thread_pool.hpp>
#include <lmd/engine/arrange.hpp>
#include <lmd/kernels/attention/step_cpu.hpp>
#include <lmd/kernels/elementwise/embed_cpu.hpp>
#include <lmd/kernels/elementwise/silu_mul_cpu.hpp>
#include <lmd/kernels/linear/linear_cpu.hpp>
#include <lmd/kernels/norm/rms_norm_cpu.hpp>
#include <lmd/model/decoder.hpp>
#include <lmd/model/hf_config.hpp>
#include <lmd/model/load_weights.hpp>
#include <lmd/quant/kv_formats.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <vector>

namespace {

// What this engine is compiled for: 16-bit keys and values, heads of 64, weights of 16 bits. Other
// types here make another engine; nothing below changes.
using Attention = lmd::kernels::KvPolicy<lmd::quant::Kv16, 64>;
using Format = lmd::quant::WeightHalf;

constexpr int kNewTokens = 24;

/// The operations that the decoder calls, chosen once for this processor.
lmd::model::Ops<lmd::Cpu> make_ops() {
  using Weights = lmd::kernels::WeightPolicy<Format, lmd::quant::PairedOrder>;
  const lmd::CpuIsa isa = lmd::best_cpu_isa();
  lmd::model::Ops<lmd::Cpu> ops;
  ops.formats[lmd::model::format_index<Format>()] = {
      .linear = lmd::kernels::select_linear<Weights>(isa),
      .embed = [](lmd::Cpu cpu, const lmd::kernels::EmbedArgs& a) {
        lmd::kernels::embed<Weights>(cpu, a);
      }};
  ops.attention_step = lmd::kernels::select_attention_step<Attention>(isa);
  ops.unit_bytes = Attention::Unit::kBytes;
  ops.rms_norm = lmd::kernels::select_rms_norm(isa);
  ops.silu_mul = lmd::kernels::select_silu_mul(isa);
  return ops;
}

/// The cache of one sequence: an open page at 16 bit, and room for the pages sealed after it.
class Sequence {
 public:
  Sequence(lmd::model::Decoder& decoder, int n_prompt, int max_tokens)
      : decoder_(&decoder),
        pool_(lmd::cache::sealed_pages(max_tokens) * decoder.geometry().page_bytes()),
        open_(decoder.geometry().open_elements()),
        page_ids_(static_cast<std::size_t>(lmd::cache::sealed_pages(max_tokens))),
        logits_(static_cast<std::size_t>(decoder.config().vocab_size)) {
    const lmd::model::ModelConfig& m = decoder.config();
    std::iota(page_ids_.begin(), page_ids_.end(), 0);
    rope_base_ = lmd::kernels::dynamic_ntk_base(m.rope.base, m.rope.dynamic_factor, m.max_position,
                                                m.head_dim, n_prompt);
  }

  /// Reads tokens, as many as the decoder has rows at most; the best token after the last of them.
  int feed(std::span<const int> ids) {
    const int n = static_cast<int>(ids.size());
    std::vector<int> positions(ids.size());
    std::iota(positions.begin(), positions.end(), position_);
    const std::vector<double> bases(ids.size(), rope_base_);
    const lmd::model::StepSequence step{.first_row = 0,
                                        .n = n,
                                        .position = position_,
                                        .open = open_.data(),
                                        .page_ids = page_ids_.data()};
    const int last_row = n - 1;
    decoder_->forward({ids, positions, bases, {&step, 1}, {&last_row, 1}, pool_.data()},
                      logits_.data());
    position_ += n;
    return static_cast<int>(std::ranges::max_element(logits_) - logits_.begin());
  }

 private:
  lmd::model::Decoder* decoder_;
  lmd::Buffer<std::uint8_t> pool_;
  lmd::Buffer<lmd::Half> open_;
  std::vector<std::int32_t> page_ids_;
  std::vector<float> logits_;
  double rope_base_ = 0.0;
  int position_ = 0;
};

}  // namespace

int main(int argc, char** argv) try {
  const std::vector<char*> words(argv + std::min(argc, 2), argv + argc);
  std::vector<int> ids;
  std::ranges::transform(words, std::back_inserter(ids),
                         [](char* word) { return std::atoi(word); });
  LMD_REQUIRE(!ids.empty(), lmd::ErrorCode::kConfig, "usage: own_engine MODEL_FOLDER ID...");
  const lmd::model::HfConfig config = lmd::model::read_config(argv[1]);
  const int n_prompt = static_cast<int>(ids.size());
  lmd::ThreadPool threads(2);
  LMD_REQUIRE(config.model.head_dim == Attention::kHeadDim, lmd::ErrorCode::kConfig,
              "compiled for another head_dim than " + std::to_string(config.model.head_dim));
  auto weights = lmd::model::load_weights(argv[1], config.model, config.quantization);
  LMD_REQUIRE(weights.embedding.format == lmd::model::format_index<Format>(),
              lmd::ErrorCode::kConfig, "compiled for weights of another format");
  lmd::engine::arrange_for_cpu(weights, &threads);
  lmd::model::Decoder decoder(config.model, std::move(weights), make_ops(), lmd::Cpu{&threads},
                              n_prompt);
  Sequence sequence(decoder, n_prompt, n_prompt + kNewTokens);
  int next = sequence.feed(ids);
  for (int i = 0; i < kNewTokens; ++i, next = sequence.feed({&next, 1}))
    std::printf("%d%c", next, i + 1 < kNewTokens ? ' ' : '\n');
} catch (const lmd::Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
