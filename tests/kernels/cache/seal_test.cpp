/// \file  Sealing: Host by hand, Cpu equal to it bit by bit.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/cache/seal_cpu.hpp>
#include <lmd/quant/kv_formats.hpp>

#include <algorithm>
#include <vector>

#include <cases/instruction_sets.hpp>
#include <cases/random.hpp>
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::test;

namespace {

using Halves = std::vector<Half>;

/// Numbers of one page: [head_dim, 64] or [64, head_dim].
Halves page_of(int head_dim, float (*number)(Random&, int), std::uint64_t seed) {
  Random random(seed);
  Halves page(static_cast<std::size_t>(head_dim) * cache::kPageTokens);
  for (std::size_t i = 0; i < page.size(); ++i)
    page[i] = to_half(number(random, static_cast<int>(i)));
  return page;
}

struct Kind {
  const char* name;
  float (*number)(Random&, int);
};

constexpr Kind kKinds[] = {
    {"normal", [](Random& r, int) { return r.normal(); }},
    {"ties", [](Random& r, int) { return static_cast<float>(r.below(31)) * 0.5f; }},
    {"constant", [](Random&, int i) { return i % 128 < 64 ? 3.25f : 0.0f; }},
    {"subnormal", [](Random& r, int) { return static_cast<float>(r.below(40) - 20) * 0x1p-24f; }},
    {"large", [](Random& r, int) { return r.normal() * 30000.0f; }},
    {"outliers",
     [](Random& r, int) { return r.below(50) == 0 ? 500.0f * r.normal() : r.normal(); }},
    {"zeros of both signs", [](Random& r, int) { return r.below(2) == 0 ? 0.0f : -0.0f; }},
    {"infinities", [](Random& r, int) { return r.below(90) == 0 ? INFINITY : r.normal(); }},
    {"some NaN", [](Random& r, int) { return r.below(90) == 0 ? NAN : r.normal(); }},
    {"NaN only", [](Random&, int) { return static_cast<float>(NAN); }},
};

template <class U>
void check_cpu_equals_host() {
  for (const Kind& kind : kKinds) {
    constexpr std::uint64_t kSeed = 5;
    const Halves keys = page_of(U::kHeadDim, kind.number, kSeed);
    const Halves values = page_of(U::kHeadDim, kind.number, kSeed + 1);
    constexpr int kGuard = 64;
    std::vector<std::uint8_t> host(U::kBytes + 2 * kGuard, 0x77);
    kernels::seal_unit<U>(Host{}, {host.data() + kGuard, keys.data(), values.data()});
    for (CpuIsa isa : runnable_isas()) {
      std::vector<std::uint8_t> cpu(U::kBytes + 2 * kGuard, 0x77);
      kernels::select_seal_unit<U>(isa)({cpu.data() + kGuard, keys.data(), values.data()});
      const auto at = std::mismatch(cpu.begin(), cpu.end(), host.begin()).first - cpu.begin();
      INFO(kind.name, ", scheme ", U::Scheme::kName, ", ", U::kHeadDim, ", ", to_string(isa),
           ": first difference at byte ", at - kGuard, ", seed ", kSeed);
      CHECK(cpu == host);
    }
  }
}

}  // namespace

TEST_CASE("Host: parameters from the stored numbers, codes with the stored parameters") {
  using U = cache::SealedUnit<quant::Kv4, 64>;
  Halves keys(64 * 64, to_half(1.0f));
  Halves values(64 * 64, to_half(-2.0f));
  // Token 3: keys from -1.5 to 6, so step 0.5. Channel 9 holds 0.25: 3.5 steps, up to 4.
  for (int d = 0; d < 64; ++d)
    keys[static_cast<std::size_t>(d * 64 + 3)] = to_half(d == 0 ? -1.5f : d == 9 ? 0.25f : 6.0f);
  // Token 2: values 0 but for element 5, which is 30: step 2.
  for (int d = 0; d < 64; ++d)
    values[static_cast<std::size_t>(2 * 64 + d)] = to_half(d == 5 ? 30.0f : 0.0f);
  std::vector<std::uint8_t> unit(U::kBytes, 0xee);
  kernels::seal_unit<U>(Host{}, {unit.data(), keys.data(), values.data()});
  CHECK(unit[0 * 32 + 1] == 0x00);  // channel 0: token 2 constant, token 3 the smallest
  CHECK(unit[9 * 32 + 1] == 0x40);
  CHECK(unit[1 * 32 + 1] == 0xf0);
  CHECK(unit[2048 + 2 * 32 + 2] == 0xf0);  // token 2, elements 4 and 5
  CHECK(unit[2048 + 2 * 32 + 3] == 0x00);
  const std::uint8_t key_params[] = {0x00, 0x3c, 0x00, 0x3c, 0x00, 0x38, 0x00, 0xbe};
  CHECK(std::equal(key_params, key_params + 8, unit.begin() + 4096 + 2 * 4));  // 1, 1; 0.5, -1.5
  const std::uint8_t value_params[] = {0x00, 0x40, 0x00, 0x00, 0x00, 0x3c, 0x00, 0xc0};
  CHECK(std::equal(value_params, value_params + 8, unit.begin() + 4352 + 2 * 4));  // 2, 0; 1, -2
}

TEST_CASE("Host: 4c shares parameters along a channel of keys") {
  using U = cache::SealedUnit<quant::Kv4c, 64>;
  Halves keys(64 * 64);
  for (int t = 0; t < 64; ++t)
    keys[static_cast<std::size_t>(8 * 64 + t)] = to_half(t % 2 == 0 ? 0.0f : 7.5f);
  const Halves values(64 * 64);
  std::vector<std::uint8_t> unit(U::kBytes);
  kernels::seal_unit<U>(Host{}, {unit.data(), keys.data(), values.data()});
  const std::uint8_t params[] = {0x00, 0x3c, 0x00, 0x00, 0x00, 0x38, 0x00, 0x00};
  CHECK(std::equal(params, params + 8, unit.begin() + 4096 + 7 * 4));  // constant 0; step 0.5
  CHECK(unit[8 * 32] == 0xf0);
  CHECK(unit[9 * 32] == 0x00);
}

TEST_CASE("Cpu: every byte is Host's") {
  for_each_type(quant::KvSchemes{}, [](auto t) {
    using S = typename decltype(t)::type;
    check_cpu_equals_host<cache::SealedUnit<S, 64>>();
    check_cpu_equals_host<cache::SealedUnit<S, 96>>();
    check_cpu_equals_host<cache::SealedUnit<S, 128>>();
  });
}
