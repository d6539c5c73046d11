/// \file  RoPE and the write into the open page: Host by hand, Cpu against it.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/thread_pool.hpp>
#include <lmd/kernels/cache/append_cpu.hpp>

#include <vector>

#include <cases/instruction_sets.hpp>
#include <cases/random.hpp>
#include <doctest/doctest.h>
#include <oracle/compare.hpp>

using namespace lmd;
using namespace lmd::test;

namespace {

struct AppendCase {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int position = 0;
  int n = 0;
};

struct AppendState {
  std::vector<float> qkv, rotation;
  std::vector<Half> keys, values;

  AppendState(const AppendCase& c, std::uint64_t seed, bool is_exact)
      : qkv(random_floats(std::int64_t{c.n} * (c.heads + 2 * c.kv_heads) * c.head_dim, seed)),
        rotation(static_cast<std::size_t>(c.n * c.head_dim)),
        keys(static_cast<std::size_t>(c.kv_heads * c.head_dim * 64), Half{0x1234}),
        values(keys) {
    Random random(seed + 1);
    for (float& x : rotation)  // powers of two: products need no rounding
      x = is_exact ? 1.0f / static_cast<float>(1 << random.below(4))
                   : static_cast<float>(std::cos(6.3 * random.uniform()));
  }

  kernels::AppendArgs args(const AppendCase& c) {
    return {.qkv = qkv.data(),
            .qkv_stride = std::int64_t{c.heads + 2 * c.kv_heads} * c.head_dim,
            .rotation = rotation.data(),
            .open_keys = keys.data(),
            .open_values = values.data(),
            .position = c.position,
            .n = c.n,
            .heads = c.heads,
            .kv_heads = c.kv_heads,
            .head_dim = c.head_dim};
  }
};

constexpr AppendCase kCases[] = {
    {1, 1, 32, 0, 1}, {9, 3, 64, 63, 1}, {4, 2, 96, 130, 62}, {8, 1, 128, 64, 64}, {7, 7, 64, 5, 7},
};

bool equal_bits(const std::vector<Half>& a, const std::vector<Half>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), [](Half x, Half y) { return x.bits == y.bits; });
}

}  // namespace

TEST_CASE("Host: pairs (r, r + d / 2) turn; keys lie by channel, values by token") {
  const AppendCase c{1, 1, 32, 64 + 3, 1};
  AppendState s(c, 1, true);
  for (float& x : s.qkv)
    x = 0.0f;
  s.qkv[1] = 3.0f, s.qkv[17] = 4.0f;            // the query's pair 1
  s.qkv[32 + 2] = 1.0f, s.qkv[32 + 18] = 2.0f;  // the key's pair 2
  s.qkv[64 + 31] = 2049.0f;                     // rounds to 2048 at 16 bit
  for (int r = 0; r < 16; ++r) {
    s.rotation[static_cast<std::size_t>(r)] = 0.0f;  // a quarter turn
    s.rotation[static_cast<std::size_t>(16 + r)] = 1.0f;
  }
  kernels::append(Host{}, s.args(c));
  CHECK(s.qkv[1] == -4.0f);
  CHECK(s.qkv[17] == 3.0f);
  CHECK(to_float(s.keys[2 * 64 + 3]) == -2.0f);
  CHECK(to_float(s.keys[18 * 64 + 3]) == 1.0f);
  CHECK(s.keys[2 * 64 + 4].bits == 0x1234);
  CHECK(s.values[3 * 32 + 31].bits == 0x6800);
  CHECK(s.values[4 * 32].bits == 0x1234);
}

TEST_CASE("Cpu: equal bit by bit where no product is rounded") {
  for (const AppendCase& c : kCases) {
    AppendState host(c, 3, true);
    kernels::append(Host{}, host.args(c));
    for (CpuIsa isa : runnable_isas()) {
      AppendState cpu(c, 3, true);
      kernels::select_append_heads(isa)(cpu.args(c), 0, c.kv_heads);
      INFO(to_string(isa), ", head_dim ", c.head_dim, ", position ", c.position, ", n ", c.n);
      CHECK(cpu.qkv == host.qkv);
      CHECK(equal_bits(cpu.keys, host.keys));
      CHECK(equal_bits(cpu.values, host.values));
    }
  }
}

TEST_CASE("Cpu: at any angle within the roundings of two products") {
  for (const AppendCase& c : kCases) {
    AppendState before(c, 4, false);
    AppendState host(c, 4, false);
    AppendState cpu(c, 4, false);
    kernels::append(Host{}, host.args(c));
    ThreadPool pool(2);
    kernels::append(Cpu{&pool}, cpu.args(c));
    Comparison rotated;
    for (std::size_t i = 0; i < cpu.qkv.size(); ++i) {
      // |x| and |y| are below 6: each product is off by at most 2^-24 of 6, the sum by 2^-24 of 12.
      rotated.add(0, static_cast<std::int64_t>(i), cpu.qkv[i], host.qkv[i], 4 * 6 * 0x1p-24 * 2);
    }
    INFO("head_dim ", c.head_dim, ", seed 4, worst ", rotated.worst());
    CHECK(rotated.is_within());
    CHECK(equal_bits(cpu.values, host.values));
  }
}

TEST_CASE("Cpu: 16-bit numbers round to nearest even, beyond the range to infinity") {
  const AppendCase c{1, 1, 32, 0, 1};
  const float numbers[] = {2049.0f,  2051.0f,    65519.0f, 65520.0f,
                           0x1p-25f, 0x1.8p-24f, -1e30f,   0x1p-14f};
  for (CpuIsa isa : runnable_isas()) {
    AppendState s(c, 5, true);
    for (int i = 0; i < 8; ++i)
      s.qkv[static_cast<std::size_t>(64 + i)] = numbers[i];
    kernels::select_append_heads(isa)(s.args(c), 0, 1);
    const std::uint16_t expected[] = {0x6800, 0x6802, 0x7bff, 0x7c00,
                                      0x0000, 0x0002, 0xfc00, 0x0400};
    for (int i = 0; i < 8; ++i)
      CHECK(s.values[static_cast<std::size_t>(i)].bits == expected[i]);
  }
}
