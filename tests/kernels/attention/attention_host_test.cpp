/// \file  Attention on Host: by hand, what quantised pages cost, and when a page is read sealed.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/attention/decode.hpp>

#include <cmath>

#include <doctest/doctest.h>
#include <kernels/attention/step_case.hpp>

using namespace lmd;
using namespace lmd::test;

namespace {

/// A cache of one KV head: one sealed page, then an open one.
template <class U>
struct TinyCache {
  std::vector<std::uint8_t> unit = std::vector<std::uint8_t>(U::kBytes);
  std::vector<Half> keys = std::vector<Half>(U::kHeadDim * cache::kPageTokens, Half{0x7e00});
  std::vector<Half> values = std::vector<Half>(U::kHeadDim * cache::kPageTokens, Half{0x7c00});
  std::int32_t page_id = 0;

  [[nodiscard]] cache::KvView view() const {
    return {unit.data(), &page_id, U::kBytes, keys.data(), values.data()};
  }
  void put(int at, std::initializer_list<int> bytes) {
    for (int byte : bytes)
      unit[static_cast<std::size_t>(at++)] = static_cast<std::uint8_t>(byte);
  }
  /// Token t of the open page: key `k` at element 0, value `v` at element `d`, else zeros.
  void set_open(int t, float k, int d, float v) {
    for (int i = 0; i < U::kHeadDim; ++i) {
      keys[static_cast<std::size_t>(i * cache::kPageTokens + t)] = to_half(i == 0 ? k : 0.0f);
      values[static_cast<std::size_t>(t * U::kHeadDim + i)] = to_half(i == d ? v : 0.0f);
    }
  }
};

/// Attention of one head whose query is (8, 0, 0, ...): scores are the keys' elements 0.
template <class P>
std::vector<float> attend(const TinyCache<typename P::Unit>& cache, int position) {
  std::vector<float> q(P::kHeadDim), out(P::kHeadDim);
  q[0] = 8.0f;
  const cache::KvView view = cache.view();
  kernels::decode_attention<P>(Host{}, {.out = out.data(),
                                        .q = q.data(),
                                        .out_stride = P::kHeadDim,
                                        .q_stride = P::kHeadDim,
                                        .kv = &view,
                                        .positions = &position,
                                        .batch = 1,
                                        .heads = 1,
                                        .kv_heads = 1});
  return out;
}

/// The query at 64 sees 63 sealed tokens of score `others`, token 5 with key 2.5 and values 1 but for
/// 4 at element 1, and itself with key 0 and value 10 at element 2.
template <class P>
void check_sealed(TinyCache<typename P::Unit>& cache, double others) {
  cache.set_open(0, 0.0f, 2, 10.0f);
  const std::vector<float> out = attend<P>(cache, 64);
  const double w = std::exp(2.5);
  const double sum = w + 63 * std::exp(others) + 1;
  INFO(P::Scheme::kName);
  CHECK(out[0] == doctest::Approx(w / sum).epsilon(1e-6));
  CHECK(out[1] == doctest::Approx(4 * w / sum).epsilon(1e-6));
  CHECK(out[2] == doctest::Approx((w + 10) / sum).epsilon(1e-6));
  CHECK(out[63] == doctest::Approx(w / sum).epsilon(1e-6));
}

template <class S>
using Policy64 = kernels::KvPolicy<S, 64>;

/// Step range / codes, for the range of `n` normal numbers (2.6 deviations to either side at 128).
double predicted_nmse(int bits) {
  const double step = 5.2 / ((1 << bits) - 1);
  return step * step / 12.0;
}

}  // namespace

TEST_CASE("one token: its value, whatever its score") {
  TinyCache<Policy64<quant::Kv16>::Unit> cache;
  cache.set_open(0, -100.0f, 3, 7.5f);
  const std::vector<float> out = attend<Policy64<quant::Kv16>>(cache, 0);
  CHECK(out[3] == 7.5f);
  CHECK(out[0] == 0.0f);
}

TEST_CASE("two tokens: weights 1 and e") {
  TinyCache<Policy64<quant::Kv16>::Unit> cache;
  cache.set_open(0, 0.0f, 0, 1.0f);
  cache.set_open(1, 1.0f, 0, 3.0f);
  const std::vector<float> out = attend<Policy64<quant::Kv16>>(cache, 1);
  CHECK(out[0] == doctest::Approx(2.4621171572600096).epsilon(1e-6));  // (1 + 3 e) / (1 + e)
}

TEST_CASE("sealed pages by hand-written bytes, every scheme") {
  const std::initializer_list<int> key_params = {0x00, 0x34, 0x00, 0x38};    // 0.25, 0.5
  const std::initializer_list<int> value_params = {0x00, 0x38, 0x00, 0x3c};  // 0.5, 1
  SUBCASE("4") {
    TinyCache<Policy64<quant::Kv4>::Unit> c;
    c.put(2, {0x80});              // channel 0, tokens 4 and 5
    c.put(2048 + 5 * 32, {0x60});  // token 5, elements 0 and 1
    c.put(4096 + 5 * 4, key_params);
    c.put(4352 + 5 * 4, value_params);
    check_sealed<Policy64<quant::Kv4>>(c, 0.0);
  }
  SUBCASE("8") {
    TinyCache<Policy64<quant::Kv8>::Unit> c;
    c.put(5, {8});
    c.put(4096 + 5 * 64 + 1, {6});
    c.put(8192 + 5 * 4, key_params);
    c.put(8448 + 5 * 4, value_params);
    check_sealed<Policy64<quant::Kv8>>(c, 0.0);
  }
  SUBCASE("k8v4") {
    TinyCache<Policy64<quant::Kv8V4>::Unit> c;
    c.put(5, {8});
    c.put(4096 + 5 * 32, {0x60});
    c.put(6144 + 5 * 4, key_params);
    c.put(6400 + 5 * 4, value_params);
    check_sealed<Policy64<quant::Kv8V4>>(c, 0.0);
  }
  SUBCASE("4c") {
    TinyCache<Policy64<quant::Kv4c>::Unit> c;
    c.put(2, {0x80});
    c.put(2048 + 5 * 32, {0x60});
    c.put(4096, key_params);  // of channel 0, so that the other tokens score 0.5
    c.put(4352 + 5 * 4, value_params);
    check_sealed<Policy64<quant::Kv4c>>(c, 0.5);
  }
  SUBCASE("16") {
    TinyCache<Policy64<quant::Kv16>::Unit> c;
    c.put(5 * 2, {0x00, 0x41});  // 2.5
    for (int d = 0; d < 64; ++d)
      c.put(8192 + (5 * 64 + d) * 2, {0x00, d == 1 ? 0x44 : 0x3c});
    check_sealed<Policy64<quant::Kv16>>(c, 0.0);
  }
}

TEST_CASE("sealed pages cost what their steps predict") {
  const StepInput input({257, 2, 1, 128}, 21, Rotation::kNone);
  const auto run = [&]<class S>(S) {
    using P = kernels::KvPolicy<S, 128>;
    return run_steps<typename P::Unit>(
               {&input}, {257}, [](auto args) { kernels::attention_step<P>(Host{}, args); })[0]
        .out;
  };
  const std::vector<float> exact = run(quant::Kv16{});
  for_each_type(quant::KvSchemes{}, [&](auto t) {
    using S = typename decltype(t)::type;
    constexpr int kBits = std::min(S::Key::kBits, S::Value::kBits);
    const double error = nmse(run(S{}), exact);
    INFO(S::kName, ": ", error);
    if (kBits == 16) {
      CHECK(error == 0.0);
    } else {
      CHECK(error <= 4.0 * predicted_nmse(kBits));
      CHECK(error > 0.0);
    }
  });
}
