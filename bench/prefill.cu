/// \file  Prefill's attention step on the GPU: causal, 32 query and 8 KV heads of 128, pages of 64;
///        RoPE, append and sealing inside.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/attention/prefill_step.cuh>
#include <lmd/kernels/elementwise/rope.cuh>
#include <lmd/quant/kv_formats.hpp>

#include <cmath>
#include <memory>
#include <numeric>
#include <random>

#include "decoded_pages.cuh"
#include "harness.cuh"

using namespace lmd;
using namespace lmd::kernels;
using bench::on_device;
using bench::on_host;

namespace {

constexpr int kDim = 128;
constexpr int kHeads = 32;
constexpr int kKvHeads = 8;
constexpr int kWidth = (kHeads + 2 * kKvHeads) * kDim;  // of a row of qkv
constexpr int kGroup = kHeads / kKvHeads;
constexpr double kRopeBase = 1e6;

/// A sequence of `history` tokens that are cached and a chunk of `n` that follow: whole pages both.
/// As many layers of pages as make a cold cycle, all with the same tokens.
template <class P>
class Sequence {
 public:
  Sequence(int history, int n) : history_(history), n_(n) {
    std::mt19937 rng(1);
    std::vector<std::int32_t> ids(static_cast<std::size_t>(pages()));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), rng);
    ids_ = on_device(ids);
    std::vector<PrefillPage> list;
    for (int page = 0; page < pages(); ++page)
      list.push_back({.chunk = 0, .page = page});
    list_ = on_device(list);
    const auto chunk = [&](int position, int tokens) {
      return SequenceChunk{.first_row = position,
                           .n = tokens,
                           .position = position,
                           .open_keys = open_.data(),
                           .open_values = open_.data() + kOpenTile,
                           .page_ids = ids_.data()};
    };
    chunks_ = on_device(std::vector{chunk(0, history), chunk(history, n)});
    make_rotation();
    LMD_CUDA_TRY(cudaDeviceSynchronize());
    for (int layer = 0; history > 0 && layer < layers_; ++layer)
      LMD_CUDA_TRY(prefill_step<P>(Cuda{}, args(layer, true)));
    LMD_CUDA_TRY(cudaDeviceSynchronize());
  }

  [[nodiscard]] int layers() const { return layers_; }
  /// Of the two products, causal: as published figures count them.
  [[nodiscard]] double flops() const { return 4.0 * kHeads * kDim * n_ * (history_ + 0.5 * n_); }
  /// The new rows of qkv read and their queries rewritten, results, pages read once and made once.
  [[nodiscard]] std::int64_t bytes() const {
    return std::int64_t{n_} * 2 * (kWidth + 2 * kHeads * kDim) + pages() * kPageBytes;
  }

  /// The chunk's step, or that of the tokens before it.
  [[nodiscard]] PrefillStepArgs<Half> args(int layer, bool is_history = false) {
    const int first = is_history ? 0 : history_ / cache::kPageTokens;
    const int tokens = is_history ? history_ : n_;
    return {.step = {.out = out_.data(),
                     .qkv = qkv_.data(),
                     .rotation = rotation_.data(),
                     .chunks = chunks_.data() + (is_history ? 0 : 1),
                     .pool = pool_.data() + layer * pages() * kPageBytes,
                     .page_bytes = kPageBytes,
                     .n_chunks = 1,
                     .heads = kHeads,
                     .kv_heads = kKvHeads},
            .pages = list_.data() + first,
            .n_pages = tokens / cache::kPageTokens,
            .scratch = scratch_.data()};
  }

  /// Runs the step once and compares some rows with f64 on the same cache. Returns the largest
  /// relative error of a row.
  /// \throws Error where it is more than four roundings of Half: queries times scales, weights,
  /// weights times scales, the result.
  double check() {
    std::vector<Sample> samples;
    for (const int token : {history_, history_ + 63, history_ + n_ / 2 + 1, history_ + n_ - 1}) {
      const int t = token % cache::kPageTokens;
      samples.push_back({token, on_host(qkv_.data() + std::int64_t{token - t} * kWidth,
                                        std::int64_t{t + 1} * kWidth)});
    }
    LMD_CUDA_TRY(prefill_step<P>(Cuda{}, args(0)));
    double worst = 0;
    for (const int kvh : {0, kKvHeads - 1}) {
      const std::vector<float> sealed = decode_pages(kvh);
      for (const Sample& sample : samples) {
        const int head = kvh * kGroup + sample.token % kGroup;
        const std::vector<Half> found =
            on_host(out_.data() + (std::int64_t{sample.token} * kHeads + head) * kDim, kDim);
        worst = bench::worse(worst, attend(sample, head, sealed).error_of(found));
      }
    }
    LMD_REQUIRE(worst < 0x1p-9, ErrorCode::kInternal,
                std::string("prefill, KV ") + P::Scheme::kName + ", " + std::to_string(n_) +
                    " tokens behind " + std::to_string(history_) + ": wrong by " +
                    std::to_string(worst));
    return worst;
  }

 private:
  using Unit = typename P::Unit;
  static constexpr std::int64_t kPageBytes = std::int64_t{kKvHeads} * Unit::kBytes;
  static constexpr std::int64_t kOpenTile = std::int64_t{kKvHeads} * cache::kPageTokens * kDim;

  /// A token, and its page's rows of qkv up to it, before the step.
  struct Sample {
    int token;
    std::vector<Half> rows;  ///< [token % 64 + 1, kWidth]
  };

  [[nodiscard]] std::int64_t pages() const { return (history_ + n_) / cache::kPageTokens; }

  void make_rotation() {
    std::vector<int> positions(static_cast<std::size_t>(history_ + n_));
    std::iota(positions.begin(), positions.end(), 0);
    const DeviceBuffer<int> device_positions = on_device(positions);
    const DeviceBuffer<double> bases = on_device(std::vector<double>(positions.size(), kRopeBase));
    LMD_CUDA_TRY(rope_rotation(Cuda{}, {.rotation = rotation_.data(),
                                        .positions = device_positions.data(),
                                        .bases = bases.data(),
                                        .n = history_ + n_,
                                        .head_dim = kDim}));
  }

  /// [tokens][keys, values][kDim] of a KV head, as the pages of layer 0 hold them.
  [[nodiscard]] std::vector<float> decode_pages(int kvh) const {
    return bench::decoded_pages<Unit>(pool_.data() + std::int64_t{kvh} * Unit::kBytes, kPageBytes,
                                      ids_.data(), pages());
  }

  /// One row of the definition: pages before the token's own as they are sealed, its own at 16 bit.
  [[nodiscard]] static bench::AttentionSum attend(const Sample& sample,
                                                  int head,
                                                  const std::vector<float>& sealed) {
    const int before = sample.token / cache::kPageTokens * cache::kPageTokens;
    const auto row = [&](int t) { return sample.rows.data() + std::int64_t{t - before} * kWidth; };
    const int kvh = head / kGroup;
    bench::AttentionSum sum(rotated(row(sample.token) + head * kDim, sample.token));
    for (int t = 0; t < before; ++t) {
      const float* key = sealed.data() + std::int64_t{t} * 2 * kDim;
      sum.add(key, key + kDim);
    }
    std::vector<float> value(kDim);
    for (int t = before; t <= sample.token; ++t) {
      for (int d = 0; d < kDim; ++d)
        value[d] = to_float(row(t)[(kHeads + kKvHeads + kvh) * kDim + d]);
      sum.add(rotated(row(t) + (kHeads + kvh) * kDim, t).data(), value.data());
    }
    return sum;
  }

  /// A head as RoPE leaves it, rounded to Half.
  [[nodiscard]] static std::vector<float> rotated(const Half* head, int position) {
    std::vector<float> rotation(kDim);
    rope_rotation(Host{}, {.rotation = rotation.data(),
                           .positions = &position,
                           .bases = &kRopeBase,
                           .n = 1,
                           .head_dim = kDim});
    std::vector<Half> turned(head, head + kDim);
    rotate_head(turned.data(), rotation.data(), kDim);
    std::vector<float> made;
    for (const Half x : turned)
      made.push_back(to_float(x));
    return made;
  }

  int history_;
  int n_;
  int layers_ = bench::cold_copies(pages() * kPageBytes);
  DeviceBuffer<std::uint8_t> pool_{pages() * kPageBytes * layers_};
  DeviceBuffer<Half> qkv_ = bench::normal_buffer<Half>(std::int64_t{history_ + n_} * kWidth, 1);
  DeviceBuffer<Half> out_{std::int64_t{history_ + n_} * kHeads * kDim};
  DeviceBuffer<float> rotation_{std::int64_t{history_ + n_} * kDim};
  DeviceBuffer<Half> open_ = bench::normal_buffer<Half>(2 * kOpenTile, 2);
  DeviceBuffer<Half> scratch_{pages() * 2 * kOpenTile};
  DeviceBuffer<std::int32_t> ids_;
  DeviceBuffer<PrefillPage> list_;
  DeviceBuffer<SequenceChunk> chunks_;
};

template <class P>
void add_rows() {
  const auto add = [](const std::string& name, int history, int n) {
    const std::string full = std::string("prefill/kv") + P::Scheme::kName + "/" + name;
    for (const bench::Timing timing : {bench::Timing::kBurst, bench::Timing::kSustained}) {
      bench::add_lazy_row(full, timing, [=] {
        const auto made = std::make_shared<Sequence<P>>(history, n);
        const double error = made->check();
        return bench::Row{.bytes = made->bytes(),
                          .copies = made->layers(),
                          .queue =
                              [made](Cuda ctx, int i) {
                                LMD_CUDA_TRY(prefill_step<P>(ctx, made->args(i % made->layers())));
                              },
                          .flops = made->flops(),
                          .error = error};
      });
    }
  };
  add("2k", 0, 2048);
  add("8k", 0, 8192);
  add("32k", 0, 32768);
  add("512_over_8k", 8192, 512);
  add("2048_over_8k", 8192, 2048);
}

}  // namespace

int main(int argc, char** argv) {
  add_rows<FragmentKvPolicy<quant::Kv16, kDim>>();
  add_rows<FragmentKvPolicy<quant::Kv8, kDim>>();
  add_rows<FragmentKvPolicy<quant::Kv4, kDim>>();
  add_rows<FragmentKvPolicy<quant::Kv4c, kDim>>();
  add_rows<FragmentKvPolicy<quant::Kv8V4, kDim>>();
  return bench::run(argc, argv);
}
