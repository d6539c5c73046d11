/// \file  A language model as a textbook prints it: every operation is a Host definition, clear and
///        slow, for one sequence, a token at a time, of no more tokens than the model was made for.
///
///     host_only MODEL_FOLDER ID...        the ids of a prompt in, the ids of 24 more tokens out
// SPDX-License-Identifier: Apache-2.0
#include <lmd/cache/geometry.hpp>
#include <lmd/cache/page_table.hpp>
#include <lmd/kernels/attention/step.hpp>
#include <lmd/kernels/elementwise/embed.hpp>
#include <lmd/kernels/elementwise/rope.hpp>
#include <lmd/kernels/elementwise/silu_mul.hpp>
#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/norm/rms_norm.hpp>
#include <lmd/model/hf_config.hpp>
#include <lmd/model/load_weights.hpp>
#include <lmd/quant/kv_formats.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <vector>

namespace {

using namespace lmd;
using Attention = kernels::KvPolicy<quant::Kv16, 64>;
using Weights = kernels::WeightPolicy<quant::WeightHalf>;
using Floats = std::vector<float>;
constexpr int kNewTokens = 24;

struct Textbook {
  const model::ModelConfig& c;
  const model::DecoderWeights& w;
  int n_pages;  // of 64 tokens
  cache::CacheGeometry geometry{c.n_layers, c.n_kv_heads, c.head_dim, Attention::Unit::kBytes};
  Buffer<std::uint8_t> pool{n_pages * geometry.page_bytes()};  // sealed pages
  Buffer<Half> open{geometry.open_elements()};                 // the page being filled
  std::vector<std::int32_t> page_ids = {};  // where in the pool page i of the sequence lies
  int position = 0;                         // of the next token

  /// The best token after `id`:  x += wo attention(norm(x)),  x += down(silu(gate h) * (up h)).
  int feed(int id) {
    Floats x(static_cast<std::size_t>(c.hidden_size));
    Floats rotation(static_cast<std::size_t>(c.head_dim));
    const std::uint8_t* const table = w.embedding.codes.data();
    const double scale = 1.0 / c.rope.linear_factor;
    kernels::embed<Weights>(Host{},
                            {x.data(), &id, table, nullptr, 1, c.vocab_size, c.hidden_size});
    kernels::rope_rotation(Host{},
                           {rotation.data(), &position, &c.rope.base, scale, 1, c.head_dim});
    for (int l = 0; l < c.n_layers; ++l) {
      const model::LayerWeights& layer = w.layers[static_cast<std::size_t>(l)];
      const Floats qkv = linear(layer.qkv[0], norm(x, layer.attention_norm));
      add(x, linear(layer.attention_out, attention(l, qkv, rotation)));
      const Floats gate_up = linear(layer.gate_up[0], norm(x, layer.mlp_norm));
      Floats gated(gate_up.size() / 2);
      kernels::silu_mul(Host{}, {gated.data(), gate_up.data(), 1, c.intermediate_size});
      add(x, linear(layer.down, gated));
    }
    ++position;
    const Floats logits = linear(w.head.n > 0 ? w.head : w.embedding, norm(x, w.final_norm));
    return static_cast<int>(std::ranges::max_element(logits) - logits.begin());
  }

  Floats norm(Floats x, const Buffer<float>& weight) const {
    kernels::rms_norm(Host{},
                      {x.data(), x.data(), nullptr, weight.data(), c.rms_eps, 1, c.hidden_size});
    return x;
  }

  static Floats linear(const model::Matrix& m, const Floats& x) {
    LMD_REQUIRE(m.format == model::format_index<Weights::Format>(), ErrorCode::kConfig,
                "this example is compiled for float16 weights");
    Floats y(static_cast<std::size_t>(m.n));
    kernels::linear<Weights>(Host{}, {.y = y.data(),
                                      .x = x.data(),
                                      .codes = m.codes.data(),
                                      .bias = m.bias.data(),
                                      .m = 1,
                                      .n = m.n,
                                      .k = m.k,
                                      .x_stride = m.k,
                                      .y_stride = m.n});
    return y;
  }

  Floats attention(int l, Floats qkv, const Floats& rotation) {
    Floats out(static_cast<std::size_t>(c.q_size()));
    Half* const keys = open.data() + geometry.open_keys_at(l);
    Half* const values = open.data() + geometry.open_values_at(l);
    const kernels::SequenceChunk token{0, 1, position, keys, values, page_ids.data()};
    std::uint8_t* const sealed = pool.data() + l * geometry.layer_bytes();
    kernels::attention_step<Attention>(
        Host{}, {out.data(), qkv.data(), rotation.data(), &token, sealed, geometry.page_bytes(), 1,
                 c.n_heads, c.n_kv_heads});
    return out;
  }

  static void add(Floats& x, const Floats& y) {
    std::ranges::transform(x, y, x.begin(), std::plus{});
  }
};

}  // namespace

int main(int argc, char** argv) try {
  LMD_REQUIRE(argc > 2, ErrorCode::kConfig, "usage: host_only MODEL_FOLDER ID...");
  const model::HfConfig config = model::read_config(argv[1]);
  const model::ModelConfig& c = config.model;
  LMD_REQUIRE(c.head_dim == Attention::kHeadDim, ErrorCode::kConfig, "compiled for heads of 64");
  const auto weights = model::load_weights(argv[1], c, config.quantization);
  Textbook model{c, weights, cache::sealed_pages(argc + kNewTokens)};
  model.page_ids.resize(static_cast<std::size_t>(model.n_pages));
  std::iota(model.page_ids.begin(), model.page_ids.end(), 0);
  int next = 0;
  for (int i = 2; i < argc; ++i)
    next = model.feed(std::atoi(argv[i]));
  for (int i = 0; i < kNewTokens; ++i, next = model.feed(next))
    std::printf("%d%c", next, i + 1 < kNewTokens ? ' ' : '\n');
} catch (const lmd::Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
