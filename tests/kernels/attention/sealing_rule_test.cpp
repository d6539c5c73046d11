/// \file  The query that fills its page reads it at 16 bit, the next one reads it sealed; what lies
///        beyond a query is never read.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/attention/step_cpu_extern.hpp>

#include <cmath>
#include <functional>

#include <cases/instruction_sets.hpp>
#include <doctest/doctest.h>
#include <kernels/attention/step_case.hpp>

using namespace lmd;
using namespace lmd::test;

namespace {

constexpr int kDim = 64;
using Element = std::function<double(int t, int d)>;

/// Attention of query `position` of a one-head input, in double.
std::vector<double> reference(const StepInput& in,
                              int position,
                              const Element& key,
                              const Element& value) {
  const float* q = in.qkv.data() + position * in.shape.qkv_width();
  std::vector<double> out(kDim);
  double sum = 0.0;
  for (int t = 0; t <= position; ++t) {
    double score = 0.0;
    for (int d = 0; d < kDim; ++d)
      score += q[d] * key(t, d);
    const double weight = std::exp(score / std::sqrt(double{kDim}));
    sum += weight;
    for (int d = 0; d < kDim; ++d)
      out[static_cast<std::size_t>(d)] += weight * value(t, d);
  }
  for (double& x : out)
    x /= sum;
  return out;
}

double worst(const std::vector<float>& out, int position, const std::vector<double>& expected) {
  double difference = 0.0;
  for (int d = 0; d < kDim; ++d) {
    const auto at = static_cast<std::size_t>(d);
    difference = std::max(difference, std::fabs(out[position * kDim + at] - expected[at]));
  }
  return difference;
}

template <class P, class Step>
void check_rule(Step&& step, const std::vector<int>& schedule) {
  constexpr std::uint64_t kSeed = 31;
  const StepInput in({130, 1, 1, kDim}, kSeed, Rotation::kNone);
  const auto result = run_steps<typename P::Unit>({&in}, schedule, step)[0];
  const auto half_key = [&](int t, int d) {
    return to_float(to_half(in.qkv[t * in.shape.qkv_width() + kDim + d]));
  };
  const auto half_value = [&](int t, int d) {
    return to_float(to_half(in.qkv[t * in.shape.qkv_width() + 2 * kDim + d]));
  };
  for (int position : {62, 63, 64, 65, 127, 128}) {
    const auto with_sealed = [&](int sealed_pages) {
      const auto pick = [&](int t, float sealed, float open) {
        return t / cache::kPageTokens < sealed_pages ? sealed : open;
      };
      const auto unit = [&](int t) {
        const int page = std::min(t / cache::kPageTokens, 1);
        return result.units.data() + page * P::Unit::kBytes;
      };
      return reference(
          in, position,
          [&](int t, int d) { return pick(t, P::Unit::key(unit(t), t % 64, d), half_key(t, d)); },
          [&](int t, int d) {
            return pick(t, P::Unit::value(unit(t), t % 64, d), half_value(t, d));
          });
    };
    const int page = position / cache::kPageTokens;
    const double right = worst(result.out, position, with_sealed(page));
    INFO(P::Scheme::kName, ", position ", position, ", seed ", kSeed);
    // |score| below 40, so 40 x 64 x 2^-24 of it is rounding at most, and so is the weights' share.
    CHECK(right < 40 * 64 * 0x1p-24);
    if (P::Scheme::Value::kBits == 16) continue;
    // One page more or less would show: a step of int8 is 1 / 50, averaged over 64 tokens.
    if (page > 0) CHECK(worst(result.out, position, with_sealed(page - 1)) > 20 * right);
    if (page < 2 && position >= 62)
      CHECK(worst(result.out, position, with_sealed(page + 1)) > 20 * right);
  }
}

}  // namespace

TEST_CASE("a page is read at 16 bit by its own queries, and sealed by later ones") {
  for_each_type(quant::KvSchemes{}, [](auto t) {
    using P = kernels::KvPolicy<typename decltype(t)::type, kDim>;
    for (const std::vector<int>& schedule :
         {chunks_of(1, 130), std::vector<int>{63, 1, 1, 65}, std::vector<int>{130}}) {
      check_rule<P>([](auto args) { kernels::attention_step<P>(Host{}, args); }, schedule);
      for (CpuIsa isa : runnable_isas()) {
        const kernels::AttentionStep step = kernels::select_attention_step<P>(isa);
        check_rule<P>([&](auto args) { step(Cpu{}, args); }, schedule);
      }
    }
  });
}

TEST_CASE("an infinite key or value spoils no earlier query") {
  using P = kernels::KvPolicy<quant::Kv4, kDim>;
  StepInput in({70, 2, 1, kDim}, 41, Rotation::kNone);
  const StepInput clean = in;
  const int row = 50 * in.shape.qkv_width();
  in.qkv[static_cast<std::size_t>(row + 2 * kDim + 7)] = 1e9f;  // key: infinite at 16 bit
  in.qkv[static_cast<std::size_t>(row + 3 * kDim + 9)] = -1e9f;
  const auto first_rows = [&](const std::vector<float>& out) {
    return std::vector<float>(out.begin(), out.begin() + 50 * in.shape.out_width());
  };
  for (CpuIsa isa : runnable_isas()) {
    const kernels::AttentionStep step = kernels::select_attention_step<P>(isa);
    const auto run = [&](const StepInput& input, int chunk) {
      return run_steps<P::Unit>({&input}, chunks_of(chunk, 70),
                                [&](auto args) { step(Cpu{}, args); })[0];
    };
    for (int chunk : {1, 3, 70}) {
      INFO(to_string(isa), ", chunk ", chunk);
      CHECK(equal_bytes(first_rows(run(in, chunk).out), first_rows(run(clean, chunk).out)));
    }
    CHECK(std::isfinite(first_rows(run(in, 70).out)[0]));
  }
}
