/// \file  The attention step on the Cpu: against Host, and bit by bit for every chunking, batch and
///        number of threads.
// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <kernels/attention/step_case.hpp>

using namespace lmd;
using namespace lmd::test;

namespace {

double nmse(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0.0;
  double power = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = double{a[i]} - double{b[i]};
    error += difference * difference;
    power += double{b[i]} * double{b[i]};
  }
  return error / power;
}

template <class P>
StepResult<typename P::Unit> run_cpu(const StepInput& input,
                                     CpuIsa isa,
                                     int chunk,
                                     ThreadPool* pool) {
  return run_steps<typename P::Unit>(
      {&input}, chunks_of(chunk, input.shape.tokens),
      [&](auto args) { kernels::select_attention_step<P>(isa)(Cpu{pool}, args); })[0];
}

template <class P>
void check_against_host(int heads, int kv_heads) {
  constexpr unsigned kSeed = 7;
  const StepInput input({200, heads, kv_heads, P::kHeadDim}, kSeed);
  const auto host = run_steps<typename P::Unit>(
      {&input}, {65, 135}, [](auto args) { kernels::attention_step<P>(Host{}, args); })[0];
  for (CpuIsa isa : runnable_isas()) {
    const auto cpu = run_cpu<P>(input, isa, 77, nullptr);
    INFO(P::Scheme::kName, " ", P::kHeadDim, " ", to_string(isa), " ", heads, "/", kv_heads);
    CHECK(equal_bytes(cpu.units, host.units));
    CHECK(equal_bytes(cpu.open_keys, host.open_keys));
    CHECK(equal_bytes(cpu.open_values, host.open_values));
    // Sums of 64 to 200 rounded products on both sides: some 16 roundings of 2^-24 in the mean.
    CHECK(nmse(cpu.out, host.out) < std::pow(32.0 * 0x1p-24, 2));
  }
}

template <class P>
void check_bit_equality(int heads, int kv_heads, int tokens) {
  const StepInput input({tokens, heads, kv_heads, P::kHeadDim}, 11);
  const StepInput second({tokens / 2, heads, kv_heads, P::kHeadDim}, 12);
  const StepInput third({tokens / 3 + 64, heads, kv_heads, P::kHeadDim}, 13);
  ThreadPool two(2);
  ThreadPool three(3);
  for (CpuIsa isa : runnable_isas()) {
    if (isa == CpuIsa::kScalar && best_cpu_isa() != CpuIsa::kScalar && tokens > 300) continue;
    const auto alone = run_cpu<P>(input, isa, 1, nullptr);
    for (int chunk : {1, 7, 64, 65, 512}) {
      for (ThreadPool* pool : {static_cast<ThreadPool*>(nullptr), &two, &three}) {
        INFO(P::Scheme::kName, " ", P::kHeadDim, " ", to_string(isa), " ", heads, "/", kv_heads,
             " chunk ", chunk, " threads ", pool == nullptr ? 1 : pool->size());
        CHECK(equal_bytes(run_cpu<P>(input, isa, chunk, pool), alone));
      }
    }
    const auto batch = run_steps<typename P::Unit>(
        {&second, &input, &third}, chunks_of(50, tokens),
        [&](auto args) { kernels::select_attention_step<P>(isa)(Cpu{&two}, args); });
    CHECK(equal_bytes(batch[1], alone));
    CHECK(equal_bytes(batch[0], run_cpu<P>(second, isa, 1, nullptr)));
    CHECK(equal_bytes(batch[2], run_cpu<P>(third, isa, 512, nullptr)));
  }
}

}  // namespace

TEST_CASE("the cache is that of Host bit by bit, the output within rounding") {
  for_each_type(quant::KvSchemes{}, [](auto t) {
    using S = typename decltype(t)::type;
    check_against_host<kernels::KvPolicy<S, 64>>(6, 2);
    check_against_host<kernels::KvPolicy<S, 96>>(3, 1);
    check_against_host<kernels::KvPolicy<S, 128>>(4, 1);
  });
}

TEST_CASE("chunking, batch and threads never change a bit") {
  for_each_type(quant::KvSchemes{}, [](auto t) {
    using S = typename decltype(t)::type;
    check_bit_equality<kernels::KvPolicy<S, 64>>(6, 2, 700);
    check_bit_equality<kernels::KvPolicy<S, 96>>(2, 2, 260);
    check_bit_equality<kernels::KvPolicy<S, 128>>(7, 1, 300);
  });
}
