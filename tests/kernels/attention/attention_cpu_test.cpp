/// \file  Attention on the Cpu against Host on the same stored bytes: schemes, head sizes, groups,
///        page boundaries, every instruction set.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/thread_pool.hpp>
#include <lmd/kernels/attention/decode_cpu.hpp>
#include <lmd/kernels/attention/prefill_cpu.hpp>
#include <lmd/kernels/attention/step_cpu_extern.hpp>

#include <cstring>
#include <vector>

#include <cases/instruction_sets.hpp>
#include <cases/random.hpp>
#include <doctest/doctest.h>
#include <oracle/compare.hpp>
#include <oracle/guard.hpp>

using namespace lmd;
using namespace lmd::test;

namespace {

constexpr int kPage = cache::kPageTokens;

/// Random keys and values of `tokens` tokens: every page sealed by Host, and at 16 bit.
template <class P>
struct Context {
  using U = typename P::Unit;
  static constexpr int kDim = P::kHeadDim;
  int kv_heads;
  std::int64_t page_halves = std::int64_t{kv_heads} * kDim * kPage;
  std::int64_t page_bytes = std::int64_t{kv_heads} * U::kBytes + 128;
  std::vector<std::int32_t> page_ids;
  std::vector<Half> keys, values;  ///< [pages, kv_heads, ...] as open pages
  std::vector<std::uint8_t> pool;
  double largest = 0.0;

  Context(int tokens, int kv_heads_, std::uint64_t seed) : kv_heads(kv_heads_) {
    Random random(seed);
    const int pages = (tokens + kPage - 1) / kPage;
    keys.resize(static_cast<std::size_t>(pages * page_halves));
    values.resize(keys.size());
    pool.resize(static_cast<std::size_t>(pages * page_bytes));
    for (std::vector<Half>* halves : {&keys, &values}) {
      for (Half& x : *halves) {
        x = to_half(random.normal());
        largest = std::max(largest, std::fabs(double{to_float(x)}));
      }
    }
    for (int page = 0; page < pages; ++page) {
      page_ids.push_back(pages - 1 - page);
      for (int kvh = 0; kvh < kv_heads; ++kvh) {
        const std::int64_t head = page * page_halves + std::int64_t{kvh} * kDim * kPage;
        std::uint8_t* unit = pool.data() + page_ids.back() * page_bytes + kvh * U::kBytes;
        kernels::seal_unit<U>(Host{}, {unit, keys.data() + head, values.data() + head});
      }
    }
  }

  /// The page of `position`, with NaN and infinity from token `used` of it on.
  void open_page(int position, int used, std::vector<Half>& k, std::vector<Half>& v) const {
    const auto first = static_cast<std::ptrdiff_t>(position / kPage * page_halves);
    k.assign(keys.begin() + first, keys.begin() + first + page_halves);
    v.assign(values.begin() + first, values.begin() + first + page_halves);
    for (std::int64_t i = 0; i < page_halves; ++i) {
      if (i % kPage >= used) k[static_cast<std::size_t>(i)] = Half{0x7e00};
      if (i / kDim % kPage >= used) v[static_cast<std::size_t>(i)] = Half{0x7c00};
    }
  }
};

/// |difference| of two ways to add the same products. With |k|, |v| <= m, codes and zeros of one
/// number add up to at most 3 m; n roundings of 2^-24 add up to sqrt(n) of them:
///
///   score:   d = 2 x 2^-24 sqrt(head_dim) 3 m sum |q| / sqrt(head_dim)
///   output:  2 d m  +  2 x 2^-24 sqrt(tokens) 3 m
double bound_of(const float* q, int head_dim, int tokens, double m) {
  double sum = 0.0;
  for (int d = 0; d < head_dim; ++d)
    sum += std::fabs(q[d]);
  const double score = 2 * 0x1p-24 * 3 * m * sum;
  return 2 * score * m + 2 * 0x1p-24 * std::sqrt(tokens) * 3 * m;
}

/// Queries [position, position + n) of a page, through the step: their keys and values are appended
/// once more, which changes nothing.
template <class P>
void check_queries(const Context<P>& context, int group, int position, int n, std::uint64_t seed) {
  constexpr int kDim = P::kHeadDim;
  const int kv_heads = context.kv_heads;
  const int heads = group * kv_heads;
  const int width = (heads + 2 * kv_heads) * kDim;
  std::vector<float> qkv = random_floats(std::int64_t{n} * width, seed);
  std::vector<float> rotation(static_cast<std::size_t>(n * kDim));
  for (int i = 0; i < n * kDim; ++i)
    rotation[static_cast<std::size_t>(i)] = i % kDim < kDim / 2 ? 1.0f : 0.0f;
  std::vector<Half> keys, values;
  context.open_page(position, position % kPage + n, keys, values);
  for (int i = 0; i < n * kv_heads * kDim; ++i) {
    const int row = i / (kv_heads * kDim);
    const int kvh = i / kDim % kv_heads;
    const int d = i % kDim;
    const int t = position % kPage + row;
    float* k = qkv.data() + row * width + (heads + kvh) * kDim + d;
    *k = to_float(keys[static_cast<std::size_t>((kvh * kDim + d) * kPage + t)]);
    k[kv_heads * kDim] = to_float(values[static_cast<std::size_t>((kvh * kPage + t) * kDim + d)]);
  }
  const std::vector<float> queries = qkv;
  std::vector<std::uint8_t> pool = context.pool;
  const kernels::SequenceChunk chunk{
      0, n, position, keys.data(), values.data(), context.page_ids.data()};
  const auto run = [&](auto&& step, float* out) {
    step(kernels::AttentionStepArgs{.out = out,
                                    .qkv = qkv.data(),
                                    .rotation = rotation.data(),
                                    .chunks = &chunk,
                                    .pool = pool.data(),
                                    .page_bytes = context.page_bytes,
                                    .n_chunks = 1,
                                    .heads = heads,
                                    .kv_heads = kv_heads});
  };
  const std::int64_t out_size = std::int64_t{n} * heads * kDim;
  GuardedFloats host(out_size);
  run([](const auto& args) { kernels::attention_step<P>(Host{}, args); }, host.data());
  for (CpuIsa isa : runnable_isas()) {
    GuardedFloats cpu(out_size);
    run([&](const auto& args) { kernels::select_attention_step<P>(isa)(Cpu{}, args); }, cpu.data());
    Comparison comparison;
    for (std::int64_t i = 0; i < out_size; ++i) {
      const std::int64_t row = i / (heads * kDim);
      const float* q = queries.data() + row * width + i / kDim % heads * kDim;
      const int tokens = position + static_cast<int>(row) + 1;
      comparison.add(i / kDim, i % kDim, cpu[i], host[i],
                     bound_of(q, kDim, tokens, context.largest));
    }
    INFO(P::Scheme::kName, ", head_dim ", kDim, ", ", to_string(isa), ", group ", group,
         ", position ", position, ", n ", n, ", seed ", seed, ", worst ", comparison.worst());
    CHECK(cpu.is_intact());
    CHECK(comparison.is_within());
    CHECK(pool == context.pool);
  }
}

template <class P>
void check_policy() {
  const Context<P> context(1025, 1, 51);
  for (int tokens : {1, 63, 64, 65, 128, 129, 511, 512, 513, 1025})
    check_queries(context, 2, tokens - 1, 1, 52);
  const Context<P> two_heads(130, 2, 53);
  for (int group : {1, 2, 3, 4, 6, 7, 8})
    check_queries(two_heads, group, 128, 1, 54);
  check_queries(two_heads, 1, 64, 64, 55);  // so many that codes become floats first
  check_queries(two_heads, 3, 61, 3, 56);   // the last of them fills the page
  check_queries(two_heads, 5, 5, 7, 57);
}

template <int Dim>
void check_all_schemes() {
  for_each_type(quant::KvSchemes{},
                [](auto t) { check_policy<kernels::KvPolicy<typename decltype(t)::type, Dim>>(); });
}

}  // namespace

TEST_CASE("head size 64") {
  check_all_schemes<64>();
}
TEST_CASE("head size 96") {
  check_all_schemes<96>();
}
TEST_CASE("head size 128") {
  check_all_schemes<128>();
}

TEST_CASE("decode and prefill as operations of their own give the bits of each other") {
  using P = kernels::KvPolicy<quant::Kv8V4, 64>;
  const Context<P> context(330, 2, 61);
  const int position = 300;
  const int n = 20;
  const int heads = 6;
  std::vector<Half> keys, values;
  context.open_page(position, position % kPage + n, keys, values);
  const cache::KvView view{context.pool.data(), context.page_ids.data(), context.page_bytes,
                           keys.data(), values.data()};
  const std::vector<float> q = random_floats(n * heads * 64, 62);
  ThreadPool pool(2);
  std::vector<float> whole(q.size()), decoded(q.size());
  kernels::prefill_attention<P>(Cpu{&pool}, {.out = whole.data(),
                                             .q = q.data(),
                                             .out_stride = heads * 64,
                                             .q_stride = heads * 64,
                                             .kv = view,
                                             .position = position,
                                             .n = n,
                                             .heads = heads,
                                             .kv_heads = 2});
  std::vector<cache::KvView> views(n, view);
  std::vector<int> positions;
  for (int i = 0; i < n; ++i)
    positions.push_back(position + i);
  const kernels::DecodeAttnArgs args{.out = decoded.data(),
                                     .q = q.data(),
                                     .out_stride = heads * 64,
                                     .q_stride = heads * 64,
                                     .kv = views.data(),
                                     .positions = positions.data(),
                                     .batch = n,
                                     .heads = heads,
                                     .kv_heads = 2};
  kernels::decode_attention<P>(Cpu{&pool}, args);
  CHECK(std::memcmp(whole.data(), decoded.data(), whole.size() * sizeof(float)) == 0);
  std::vector<float> host(q.size());
  kernels::DecodeAttnArgs host_args = args;
  host_args.out = host.data();
  kernels::decode_attention<P>(Host{}, host_args);
  Comparison comparison;
  for (std::size_t i = 0; i < host.size(); ++i) {
    comparison.add(static_cast<std::int64_t>(i / 64), static_cast<std::int64_t>(i % 64), decoded[i],
                   host[i], bound_of(q.data() + i / 64 * 64, 64, position + n, context.largest));
  }
  INFO("seed 61, worst ", comparison.worst());
  CHECK(comparison.is_within());
}
