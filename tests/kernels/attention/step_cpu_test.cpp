/// \file  The attention step on the Cpu: against Host, and bit by bit for every chunking, batch and
///        number of threads.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/thread_pool.hpp>
#include <lmd/kernels/attention/step_cpu_extern.hpp>

#include <cases/instruction_sets.hpp>
#include <doctest/doctest.h>
#include <kernels/attention/step_case.hpp>

using namespace lmd;
using namespace lmd::test;

namespace {

template <class P>
StepResult<typename P::Unit> run_cpu(const StepInput& input,
                                     CpuIsa isa,
                                     int chunk,
                                     ThreadPool* pool) {
  const kernels::AttentionStep step = kernels::select_attention_step<P>(isa);
  return run_steps<typename P::Unit>({&input}, chunks_of(chunk, input.shape.tokens),
                                     [&](auto args) { step(Cpu{pool}, args); })[0];
}

template <class P>
void check_against_host(int heads, int kv_heads) {
  const StepInput input({200, heads, kv_heads, P::kHeadDim}, 7, Rotation::kPowers);
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
  const auto input_of = [&](int n, std::uint64_t seed) {
    return StepInput({n, heads, kv_heads, P::kHeadDim}, seed, Rotation::kPowers);
  };
  const StepInput input = input_of(tokens, 11);
  const StepInput second = input_of(tokens / 2, 12);
  const StepInput third = input_of(tokens / 3 + 64, 13);
  ThreadPool two(2);
  ThreadPool three(3);
  for (CpuIsa isa : runnable_isas()) {
    if (isa == CpuIsa::kScalar && best_cpu_isa() != CpuIsa::kScalar && tokens > 100) continue;
    const auto alone = run_cpu<P>(input, isa, 1, nullptr);
    for (int chunk : {1, 7, 64, 65, 512}) {
      for (ThreadPool* pool : {static_cast<ThreadPool*>(nullptr), &two, &three}) {
        INFO(P::Scheme::kName, " ", P::kHeadDim, " ", to_string(isa), " ", heads, "/", kv_heads,
             " chunk ", chunk, " threads ", pool == nullptr ? 1 : pool->size());
        CHECK(equal_bytes(run_cpu<P>(input, isa, chunk, pool), alone));
      }
    }
    const kernels::AttentionStep step = kernels::select_attention_step<P>(isa);
    const auto batch = run_steps<typename P::Unit>({&second, &input, &third}, chunks_of(50, tokens),
                                                   [&](auto args) { step(Cpu{&two}, args); });
    CHECK(equal_bytes(batch[1], alone));
    CHECK(equal_bytes(batch[0], run_cpu<P>(second, isa, 1, nullptr)));
    CHECK(equal_bytes(batch[2], run_cpu<P>(third, isa, 512, nullptr)));
  }
}

}  // namespace

TEST_CASE("the cache is that of Host bit by bit, the output within rounding") {
  for_each_type(quant::KvSchemes{}, [](auto t) {
    using S = typename decltype(t)::type;
    check_against_host<kernels::KvPolicy<S, 64>>(2, 1);
    check_against_host<kernels::KvPolicy<S, 96>>(1, 1);
    check_against_host<kernels::KvPolicy<S, 128>>(2, 2);
  });
}

TEST_CASE("chunking, batch and threads never change a bit") {
  for_each_type(quant::KvSchemes{}, [](auto t) {
    using S = typename decltype(t)::type;
    check_bit_equality<kernels::KvPolicy<S, 64>>(6, 2, 300);
    check_bit_equality<kernels::KvPolicy<S, 96>>(2, 2, 260);
    check_bit_equality<kernels::KvPolicy<S, 128>>(7, 1, 90);
  });
}

TEST_CASE("contexts of several spans are shared between threads without a difference") {
  check_bit_equality<kernels::KvPolicy<quant::Kv4, 64>>(3, 1, 1100);
  check_bit_equality<kernels::KvPolicy<quant::Kv16, 128>>(2, 2, 700);
}
