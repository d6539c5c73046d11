/// \file  Paged decode attention on the GPU, 32 query and 8 KV heads of 128, RoPE and append inside.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/attention/decode.cuh>
#include <lmd/kernels/elementwise/rope.hpp>
#include <lmd/quant/kv_formats.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>

#include "decoded_pages.cuh"
#include "harness.cuh"

using namespace lmd;
using namespace lmd::kernels;

namespace {

constexpr int kHeads = 32;
constexpr int kKvHeads = 8;
constexpr std::uint16_t kOpenBits = 0x3434;  // of every element of an open page
constexpr float kCosine = 0.70710678f;       // and sine, of every angle

/// Fills a pool with random codes; parameters that make keys and values of size about 1.
template <class P>
__global__ void fill_units_kernel(std::uint8_t* pool, std::int64_t units, unsigned seed) {
  using U = typename P::Unit;
  const std::int64_t words = units * (U::kBytes / 4);
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < words;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    std::uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ull + seed;
    x ^= x >> 31;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 29;
    auto word = static_cast<std::uint32_t>(x);
    const int at = static_cast<int>(i % (U::kBytes / 4)) * 4;
    const bool is_key = at < U::kValuesAt;
    const bool is_value = !is_key && at < U::kKeyParamsAt;
    const bool is_key_param = !is_key && !is_value && at < U::kValueParamsAt;
    if ((is_key && P::Scheme::Key::kBits == 16) || (is_value && P::Scheme::Value::kBits == 16)) {
      word = (word & 0x83ff83ffu) | 0x34003400u;  // halves of size 0.25 to 0.5
    } else if (!is_key && !is_value) {
      const float size = (word & 255) / 256.0f + 0.5f;
      const int bits = is_key_param ? P::Scheme::Key::kBits : P::Scheme::Value::kBits;
      const float scale = size / (1 << (bits - 1));
      word = to_half(scale).bits | static_cast<std::uint32_t>(to_half(-size).bits)
                                       << 16;  // codes around 0
    }
    reinterpret_cast<std::uint32_t*>(pool)[i] = word;
  }
}

/// One layer's cache for `lengths`, as many layers as make a cold cycle.
template <class P>
struct Cache {
  static constexpr int kDim = P::kHeadDim;
  static constexpr std::int64_t kOpenTile = std::int64_t{kKvHeads} * cache::kPageTokens * kDim;
  std::vector<int> lengths;
  int n_pages = 0;
  int layers = 0;
  std::int64_t bytes = 0;  ///< that one step reads
  double flops = 0;        ///< of its products
  DeviceBuffer<std::uint8_t> pool;
  DeviceBuffer<Half> open, qkv, out;
  DeviceBuffer<float> rotation, partial;
  DeviceBuffer<int> counters;
  DeviceBuffer<std::int32_t> plan;
  DeviceBuffer<std::int32_t> ids;
  DeviceBuffer<SequenceChunk> chunks;

  explicit Cache(std::vector<int> tokens) : lengths(std::move(tokens)) {
    const auto n = static_cast<std::int64_t>(lengths.size());
    for (const int length : lengths) {
      n_pages += length / cache::kPageTokens;
      bytes += std::int64_t{length / cache::kPageTokens} * kKvHeads * P::Unit::kBytes +
               std::int64_t{length % cache::kPageTokens + 1} * kKvHeads * kDim * 2 * 2;
      flops += 4.0 * kHeads * kDim * (length + 1);
    }
    layers = bench::cold_copies(bytes);
    const std::int64_t units = std::int64_t{n_pages} * kKvHeads;
    pool = DeviceBuffer<std::uint8_t>(units * P::Unit::kBytes * layers + 16);
    fill_units_kernel<P><<<1024, 256>>>(pool.data(), units * layers, 1);
    LMD_CUDA_TRY(cudaGetLastError());
    open = DeviceBuffer<Half>(n * 2 * kOpenTile * layers);
    open.fill_bytes(kOpenBits & 0xff);
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    std::vector<Half> rows(n * (kHeads + 2 * kKvHeads) * kDim);
    for (auto& v : rows)
      v = to_half(normal(rng));
    qkv = DeviceBuffer<Half>(static_cast<std::int64_t>(rows.size()));
    qkv.copy_from(rows);
    out = DeviceBuffer<Half>(n * kHeads * kDim);
    std::vector<float> angles(n * kDim, kCosine);
    rotation = DeviceBuffer<float>(static_cast<std::int64_t>(angles.size()));
    rotation.copy_from(angles);
    int sms = 0;
    LMD_CUDA_TRY(multiprocessors(Cuda{}, &sms));
    partial = DeviceBuffer<float>(decode_partial_elements<P>(sms));
    counters = DeviceBuffer<int>(decode_counters(static_cast<int>(n) * kKvHeads));
    counters.fill_bytes(0);
    std::vector<std::int32_t> all(std::max(n_pages, 1));
    std::iota(all.begin(), all.end(), 0);
    std::shuffle(all.begin(), all.end(), rng);
    ids = DeviceBuffer<std::int32_t>(static_cast<std::int64_t>(all.size()));
    ids.copy_from(all);
    std::vector<SequenceChunk> made;
    int page = 0;
    for (int b = 0; b < n; ++b) {
      Half* keys = open.data() + b * 2 * kOpenTile;
      made.push_back({.first_row = b,
                      .n = 1,
                      .position = lengths[b],
                      .open_keys = keys,
                      .open_values = keys + kOpenTile,
                      .page_ids = ids.data() + page});
      page += lengths[b] / cache::kPageTokens;
    }
    chunks = DeviceBuffer<SequenceChunk>(n);
    chunks.copy_from(made);
    plan = DeviceBuffer<std::int32_t>(decode_plan_elements(sms, static_cast<int>(n) * kKvHeads));
    LMD_CUDA_TRY(decode_plan<P>(Cuda{}, {.plan = plan.data(),
                                         .chunks = chunks.data(),
                                         .n_chunks = static_cast<int>(n),
                                         .kv_heads = kKvHeads}));
    LMD_CUDA_TRY(cudaDeviceSynchronize());
  }

  [[nodiscard]] DecodeStepArgs<Half> args(int layer) {
    const auto n = static_cast<std::int64_t>(lengths.size());
    return {
        .step = {.out = out.data(),
                 .qkv = qkv.data(),
                 .rotation = rotation.data(),
                 .chunks = chunks.data(),
                 .pool = pool.data() + std::int64_t{layer} * n_pages * kKvHeads * P::Unit::kBytes,
                 .page_bytes = std::int64_t{kKvHeads} * P::Unit::kBytes,
                 .n_chunks = static_cast<int>(n),
                 .heads = kHeads,
                 .kv_heads = kKvHeads},
        .open_at = layer * n * 2 * kOpenTile,
        .workspace = {.partial = partial.data(), .counters = counters.data(), .plan = plan.data()}};
  }

  /// Runs a step of layer 0 and compares query heads of the first and the last sequence with f64 over
  /// the same cache. Returns the largest relative error of a row.
  /// \throws Error where it is more than four roundings of Half: queries times scales, weights,
  /// weights times scales, the result.
  double check() {
    LMD_CUDA_TRY(decode_step<P>(Cuda{}, args(0)));
    double worst = 0;
    for (const int b : {0, static_cast<int>(lengths.size()) - 1}) {
      for (const int head : {0, kHeads - 1}) {
        const std::vector<Half> found =
            bench::on_host(out.data() + (std::int64_t{b} * kHeads + head) * kDim, kDim);
        worst = bench::worse(worst, attend(b, head).error_of(found));
      }
    }
    LMD_REQUIRE(worst < 0x1p-9, ErrorCode::kInternal,
                std::string("decode, KV ") + P::Scheme::kName + ", " +
                    std::to_string(lengths.size()) + " sequences, the first of " +
                    std::to_string(lengths.front()) + ": wrong by " + std::to_string(worst));
    return worst;
  }

 private:
  /// One row of the definition, given the fill of open pages.
  [[nodiscard]] bench::AttentionSum attend(int b, int head) const {
    using Unit = typename P::Unit;
    const int kvh = head / (kHeads / kKvHeads);
    const std::int64_t pages = lengths[b] / cache::kPageTokens;
    std::int64_t first_page = 0;
    for (int i = 0; i < b; ++i)
      first_page += lengths[i] / cache::kPageTokens;
    const std::vector<Half> row =
        bench::on_host(qkv.data() + std::int64_t{b} * (kHeads + 2 * kKvHeads) * kDim,
                       (kHeads + 2 * kKvHeads) * kDim);
    bench::AttentionSum sum(rotated(row.data() + head * kDim));
    const std::vector<float> sealed = bench::decoded_pages<Unit>(
        pool.data() + std::int64_t{kvh} * Unit::kBytes, std::int64_t{kKvHeads} * Unit::kBytes,
        ids.data() + first_page, pages);
    for (std::int64_t t = 0; t < pages * cache::kPageTokens; ++t)
      sum.add(sealed.data() + t * 2 * kDim, sealed.data() + (t * 2 + 1) * kDim);
    const std::vector<float> filled(kDim, to_float(Half{kOpenBits}));
    for (int t = 0; t < lengths[b] % cache::kPageTokens; ++t)
      sum.add(filled.data(), filled.data());
    std::vector<float> value;
    for (int d = 0; d < kDim; ++d)
      value.push_back(to_float(row[(kHeads + kKvHeads + kvh) * kDim + d]));
    sum.add(rotated(row.data() + (kHeads + kvh) * kDim).data(), value.data());
    return sum;
  }

  /// By an eighth of a turn, rounded to Half.
  [[nodiscard]] static std::vector<float> rotated(const Half* head) {
    const std::vector<float> angles(kDim, kCosine);
    std::vector<Half> turned(head, head + kDim);
    rotate_head(turned.data(), angles.data(), kDim);
    std::vector<float> made;
    for (const Half x : turned)
      made.push_back(to_float(x));
    return made;
  }
};

template <class P>
void add_row(const std::string& name, const std::vector<int>& lengths) {
  // Made when the row is reached and gone with it: not all caches fit side by side.
  for (const bench::Timing timing : {bench::Timing::kEdges, bench::Timing::kChained}) {
    bench::add_lazy_row(std::string("kv") + P::Scheme::kName + "/" + name, timing, [lengths] {
      auto made = std::make_shared<Cache<P>>(lengths);
      const double error = made->check();
      return bench::Row{.bytes = made->bytes,
                        .copies = std::max(24, made->layers),
                        .queue =
                            [made](Cuda ctx, int i) {
                              LMD_CUDA_TRY(decode_step<P>(ctx, made->args(i % made->layers)));
                            },
                        .flops = made->flops,
                        .error = error};
    });
  }
}

template <class S>
void add_rows() {
  using P = FragmentKvPolicy<S, 128>;
  const auto uniform = [](int batch, int context) { return std::vector<int>(batch, context + 32); };
  constexpr int kMostTokens = 1 << 21;  // of a step: with KV 16, 8.6 GB a layer
  for (const int batch : {1, 8, 16, 32, 64, 256}) {
    for (const int thousands : {1, 4, 8, 32, 128}) {
      const int context = thousands * 1024;
      if (batch * context <= kMostTokens)
        add_row<P>(std::to_string(batch) + "x" + std::to_string(thousands) + "k",
                   uniform(batch, context));
    }
  }
  std::vector<int> skewed(31, 1024 + 32);
  skewed.push_back(65536 + 32);
  add_row<P>("1x64k+31x1k", skewed);
  // Lengths of a trace, and the same number of tokens shared out evenly.
  std::mt19937 rng(1);
  std::lognormal_distribution<double> lengths(std::log(1024.0), 1.0);
  std::vector<int> ragged;
  for (int i = 0; i < 64; ++i)
    ragged.push_back(static_cast<int>(std::clamp(lengths(rng), 64.0, 32768.0)));
  add_row<P>("64xlognormal", ragged);
  add_row<P>("64xmean",
             std::vector<int>(64, std::accumulate(ragged.begin(), ragged.end(), 0) / 64));
}

}  // namespace

int main(int argc, char** argv) {
  add_rows<quant::Kv16>();
  add_rows<quant::Kv8>();
  add_rows<quant::Kv4>();
  add_rows<quant::Kv4c>();
  add_rows<quant::Kv8V4>();
  return bench::run(argc, argv);
}
