/// \file  What writes the KV cache on the GPU, shapes of InternLM2.5-7B: sealing of full pages in all
///        layers, RoPE's angles, and RoPE of keys with append and sealing as prefill does them.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/attention/prefill_append.cuh>
#include <lmd/kernels/cache/seal.cuh>
#include <lmd/kernels/elementwise/rope.cuh>
#include <lmd/quant/kv_formats.hpp>

#include <cmath>
#include <memory>
#include <numeric>

#include "harness.cuh"

using namespace lmd;
using namespace lmd::kernels;
using bench::on_device;
using bench::on_host;

namespace {

constexpr int kDim = 128;
constexpr int kHeads = 32;
constexpr int kKvHeads = 8;
constexpr int kLayers = 32;
constexpr int kWidth = (kHeads + 2 * kKvHeads) * kDim;  // of a row of qkv
constexpr std::int64_t kTile = std::int64_t{cache::kPageTokens} * kDim;
constexpr std::int64_t kOpenTiles = kKvHeads * kTile;  // keys, or values, of a layer's open page

/// Decode steps of 64 sequences of which some fill their page, in turn, so that every step reads open
/// pages that are cold.
template <class P>
class SealSteps {
 public:
  explicit SealSteps(int full) : full_(full) {
    std::vector<std::int32_t> ids(kSequences);
    std::iota(ids.begin(), ids.end(), 0);
    ids_ = on_device(ids);
    std::vector<SequenceChunk> chunks;
    for (int step = 0; step < steps(); ++step) {
      for (int b = 0; b < kSequences; ++b) {
        const bool is_full = full > 0 && b / full == step;
        Half* keys = open_.data() + b * kSlot;
        chunks.push_back({.first_row = b,
                          .n = 1,
                          .position = is_full ? cache::kPageTokens - 1 : b % 63,
                          .open_keys = keys,
                          .open_values = keys + kOpenTiles,
                          .page_ids = ids_.data() + b});
      }
    }
    chunks_ = on_device(chunks);
    pool_.fill_bytes(0x77);
    LMD_CUDA_TRY(cudaDeviceSynchronize());
  }

  [[nodiscard]] int steps() const { return full_ == 0 ? 1 : kSequences / full_; }
  /// Read at 16 bit and written as units.
  [[nodiscard]] std::int64_t bytes() const {
    const std::int64_t descriptors = kSequences * static_cast<std::int64_t>(sizeof(SequenceChunk));
    return descriptors + std::int64_t{full_} * (kSlot * 2 + kPageBytes);
  }
  [[nodiscard]] SealStepArgs args(int step) {
    return {.chunks = chunks_.data() + std::int64_t{step} * kSequences,
            .n_chunks = kSequences,
            .layers = kLayers,
            .kv_heads = kKvHeads,
            .open_layer_stride = 2 * kOpenTiles,
            .pool = pool_.data(),
            .page_bytes = kPageBytes,
            .layer_bytes = kLayerBytes};
  }

  /// Some units of the first step, bit by bit. \throws Error where one differs from Host's.
  void check() {
    LMD_CUDA_TRY(seal_step<P>(Cuda{}, args(0)));
    for (int b = 0; b < full_; b += 7) {
      for (const auto& [layer, kvh] : {std::pair{0, 3}, std::pair{kLayers - 1, kKvHeads - 1}}) {
        const Half* keys = open_.data() + b * kSlot + layer * 2 * kOpenTiles + kvh * kTile;
        const std::vector<Half> host_keys = on_host(keys, kTile);
        const std::vector<Half> host_values = on_host(keys + kOpenTiles, kTile);
        std::vector<std::uint8_t> expected(Unit::kBytes, 0x77);
        seal_unit<Unit, typename P::Open>(
            Host{},
            {.unit = expected.data(), .keys = host_keys.data(), .values = host_values.data()});
        const std::int64_t at = b * kPageBytes + layer * kLayerBytes + kvh * Unit::kBytes;
        LMD_REQUIRE(on_host(pool_.data() + at, Unit::kBytes) == expected, ErrorCode::kInternal,
                    std::string("seal, KV ") + P::Scheme::kName + ": sequence " +
                        std::to_string(b) + " differs from Host");
      }
    }
  }

 private:
  using Unit = typename P::Unit;
  static constexpr int kSequences = 64;
  static constexpr std::int64_t kSlot = kLayers * 2 * kOpenTiles;  // elements of a sequence
  static constexpr std::int64_t kLayerBytes = std::int64_t{kKvHeads} * Unit::kBytes;
  static constexpr std::int64_t kPageBytes = kLayers * kLayerBytes;

  int full_;
  DeviceBuffer<Half> open_ = bench::normal_buffer<Half>(kSequences * kSlot, 1);
  DeviceBuffer<std::uint8_t> pool_{kSequences * kPageBytes};
  DeviceBuffer<std::int32_t> ids_;
  DeviceBuffer<SequenceChunk> chunks_;
};

template <class P>
void add_seal_rows() {
  for (const int full : {0, 1, 16, 64}) {
    const std::string name =
        std::string("seal/kv") + P::Scheme::kName + "/pages:" + std::to_string(full);
    for (const bench::Timing timing : {bench::Timing::kEdges, bench::Timing::kChained}) {
      bench::add_lazy_row(name, timing, [full] {
        const auto made = std::make_shared<SealSteps<P>>(full);
        made->check();
        return bench::Row{.bytes = made->bytes(),
                          .copies = std::max(24, made->steps()),
                          .queue = [made](Cuda ctx, int i) {
                            LMD_CUDA_TRY(seal_step<P>(ctx, made->args(i % made->steps())));
                          }};
      });
    }
  }
}

/// Prompts of `tokens` tokens, as many as make a cold cycle (but at most 500: what a few tokens read
/// is in the cache when the engine comes to it).
class Prompts {
 public:
  using P = FragmentKvPolicy<quant::Kv16, kDim>;

  explicit Prompts(int tokens)
      : tokens_(tokens), copies_(std::clamp(bench::cold_copies(bytes()), 24, 500)) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(pages()));
    std::iota(ids.begin(), ids.end(), 0);
    ids_ = on_device(ids);
    std::vector<SequenceChunk> chunks;
    for (int c = 0; c < copies_; ++c) {
      Half* keys = open_.data() + c * 2 * kOpenTiles;
      chunks.push_back({.first_row = c * tokens,
                        .n = tokens,
                        .open_keys = keys,
                        .open_values = keys + kOpenTiles,
                        .page_ids = ids_.data()});
    }
    chunks_ = on_device(chunks);
    std::vector<PrefillPage> list;
    for (int page = 0; page < pages(); ++page)
      list.push_back({.chunk = 0, .page = page});
    list_ = on_device(list);
    std::vector<int> positions(static_cast<std::size_t>(copies_) * tokens);
    for (std::size_t i = 0; i < positions.size(); ++i)
      positions[i] = static_cast<int>(i % tokens);
    positions_ = on_device(positions);
    bases_ = on_device(std::vector<double>(positions.size(), kBase));
    for (int c = 0; c < copies_; ++c)
      make_angles(Cuda{}, c);
    LMD_CUDA_TRY(cudaDeviceSynchronize());
  }

  [[nodiscard]] int copies() const { return copies_; }
  /// Keys and values read and written; angles.
  [[nodiscard]] std::int64_t bytes() const {
    return std::int64_t{tokens_} * (8 * kKvHeads * kDim + 4 * kDim);
  }
  [[nodiscard]] std::int64_t angle_bytes() const { return std::int64_t{tokens_} * (12 + 4 * kDim); }

  void make_angles(Cuda ctx, int copy) {
    const std::int64_t first = std::int64_t{copy} * tokens_;
    LMD_CUDA_TRY(rope_rotation(ctx, {.rotation = rotation_.data() + first * kDim,
                                     .positions = positions_.data() + first,
                                     .bases = bases_.data() + first,
                                     .n = tokens_,
                                     .head_dim = kDim}));
  }

  /// The first kernel of prefill_step: it seals what becomes full, too.
  void append(Cuda ctx, int copy) {
    const PrefillStepArgs<Half> args{
        .step = {.qkv = qkv_.data(),
                 .rotation = rotation_.data(),
                 .chunks = chunks_.data() + copy,
                 .pool = pool_.data() + copy * pages() * kPageBytes,
                 .page_bytes = kPageBytes,
                 .n_chunks = 1,
                 .heads = kHeads,
                 .kv_heads = kKvHeads},
        .pages = list_.data(),
        .n_pages = pages(),
        .scratch = scratch_.data() + std::int64_t{copy} * pages() * 2 * kOpenTiles};
    LMD_CUDA_TRY(launch(ctx,
                        {.grid = static_cast<unsigned>(pages() * kKvHeads),
                         .block = static_cast<unsigned>(kernels::detail::kAppendThreads)},
                        &kernels::detail::prefill_append_kernel<P, Half>, args));
  }

  /// The last token's keys against f64. Returns the relative error.
  /// \throws Error where it is more than two roundings of Half.
  double check() {
    const int t = tokens_ - 1;
    const std::vector<Half> row = on_host(qkv_.data() + std::int64_t{t} * kWidth, kWidth);
    append(Cuda{}, 0);
    const bool is_open = tokens_ % cache::kPageTokens != 0;
    const std::vector<Half> open = on_host(open_.data(), kOpenTiles);
    const std::vector<std::uint8_t> page =
        on_host(pool_.data() + t / cache::kPageTokens * kPageBytes, kPageBytes);
    double error = 0;
    double size = 0;
    for (int i = 0; i < kKvHeads * kDim; ++i) {
      const int r = i % kDim % (kDim / 2);
      const double angle = t * std::pow(kBase, -2.0 * r / kDim);
      const bool is_low = i % kDim < kDim / 2;
      const double own = to_float(row[kHeads * kDim + i]);
      const double other = to_float(row[kHeads * kDim + i + (is_low ? kDim / 2 : -kDim / 2)]);
      const double key = own * std::cos(angle) + (is_low ? -other : other) * std::sin(angle);
      const int in_page = t % cache::kPageTokens;
      const std::int64_t at =
          i / kDim * kTile + cache::FragmentOpenOrder::key_at(in_page, i % kDim, kDim);
      const float made =
          is_open ? to_float(open[at])
                  : P::Unit::key(page.data() + i / kDim * P::Unit::kBytes, in_page, i % kDim);
      error += std::pow(made - key, 2);
      size += key * key;
    }
    const double relative = std::sqrt(error / size);
    LMD_REQUIRE(
        relative < 0x1p-10, ErrorCode::kInternal,
        "append of " + std::to_string(tokens_) + " tokens: wrong by " + std::to_string(relative));
    return relative;
  }

 private:
  static constexpr double kBase = 1e6;
  static constexpr std::int64_t kPageBytes = kKvHeads * P::Unit::kBytes;

  [[nodiscard]] int pages() const { return ceil_div(tokens_, cache::kPageTokens); }

  int tokens_;
  int copies_;
  DeviceBuffer<Half> qkv_ = bench::normal_buffer<Half>(std::int64_t{copies_} * tokens_ * kWidth, 1);
  DeviceBuffer<float> rotation_{std::int64_t{copies_} * tokens_ * kDim};
  DeviceBuffer<Half> open_ = bench::normal_buffer<Half>(copies_ * 2 * kOpenTiles, 2);
  DeviceBuffer<Half> scratch_{std::int64_t{copies_} * pages() * 2 * kOpenTiles};
  DeviceBuffer<std::uint8_t> pool_{copies_ * pages() * kPageBytes};
  DeviceBuffer<std::int32_t> ids_;
  DeviceBuffer<SequenceChunk> chunks_;
  DeviceBuffer<PrefillPage> list_;
  DeviceBuffer<int> positions_;
  DeviceBuffer<double> bases_;
};

void add_append_rows() {
  for (const int tokens : {1, 64, 256, 2048, 8192}) {
    const std::string suffix = "/t:" + std::to_string(tokens);
    for (const bench::Timing timing : {bench::Timing::kEdges, bench::Timing::kChained}) {
      bench::add_lazy_row("rope_append" + suffix, timing, [tokens] {
        const auto made = std::make_shared<Prompts>(tokens);
        const double error = made->check();
        return bench::Row{
            .bytes = made->bytes(),
            .copies = made->copies(),
            .queue = [made](Cuda ctx, int i) { made->append(ctx, i % made->copies()); },
            .flops = 3.0 * tokens * kKvHeads * kDim,
            .error = error};
      });
    }
    for (const bench::Timing timing : {bench::Timing::kEdges, bench::Timing::kChained}) {
      bench::add_lazy_row("rope_angles" + suffix, timing, [tokens] {
        const auto made = std::make_shared<Prompts>(tokens);
        return bench::Row{
            .bytes = made->angle_bytes(),
            .copies = made->copies(),
            .queue = [made](Cuda ctx, int i) { made->make_angles(ctx, i % made->copies()); }};
      });
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  add_seal_rows<FragmentKvPolicy<quant::Kv16, kDim>>();
  add_seal_rows<FragmentKvPolicy<quant::Kv8, kDim>>();
  add_seal_rows<FragmentKvPolicy<quant::Kv4, kDim>>();
  add_seal_rows<FragmentKvPolicy<quant::Kv4c, kDim>>();
  add_seal_rows<FragmentKvPolicy<quant::Kv8V4, kDim>>();
  add_append_rows();
  return bench::run(argc, argv);
}
