/// \file  From logits to one token, Cpu backend: few passes over the vocabulary, no sorting of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cpu_features.hpp>
#include <lmd/core/math.hpp>
#include <lmd/kernels/primitive/partial.hpp>
#include <lmd/kernels/primitive/simd_math.hpp>
#include <lmd/kernels/sample/sampler.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace lmd::kernels {

/// Logits whose maximum is known after the first pass: later ones skip blocks by it.
inline constexpr int kLogitBlock = 64;

}  // namespace lmd::kernels

#define LMD_SIMD_BODY_ <lmd/kernels/sample/sampler_cpu.inc>
#include <lmd/kernels/primitive/for_each_isa.inc>

namespace lmd::kernels {

/// Draws the tokens that Sampler draws: same arguments, same order of steps. Where a draw falls
/// within rounding of the border between two tokens, it may take the other one. Holds scratch
/// memory only; one thread at a time.
///
/// Oracle:  Sampler
class CpuSampler {
 public:
  /// `isa` must be one that the processor has.
  explicit CpuSampler(CpuIsa isa = best_cpu_isa())
      : block_maxima_(&scalar::block_maxima), sum_of_weights_(&scalar::sum_of_weights) {
#if defined(__x86_64__)
    if (isa == CpuIsa::kAvx2) {
      block_maxima_ = &avx2::block_maxima;
      sum_of_weights_ = &avx2::sum_of_weights;
    } else if (isa == CpuIsa::kAvx512) {
      block_maxima_ = &avx512::block_maxima;
      sum_of_weights_ = &avx512::sum_of_weights;
    }
#endif
  }

  /// As Sampler::sample.
  int sample(std::span<float> logits, const SamplingParams& p, const SamplingContext& context) {
    adjust(logits, p, context);
    int best = argmax(logits);
    if (best < 0) return -1;
    const double log_sum = context.n_logprobs >= 0 ? list_best(logits, logits[best], context) : 0.0;
    if (!context.allowed.empty()) {
      mask_logits(logits, context.allowed);
      best = argmax(logits);
      if (best < 0) return -1;
    }
    const bool is_greedy = p.temperature == 0.0f || p.top_k == 1;
    const int token = is_greedy ? best : draw(logits, p, context, logits[best]);
    if (context.n_logprobs >= 0)
      context.logprobs->chosen = static_cast<float>(logits[token] - log_sum);
    return token;
  }

  /// The id of the largest logit, the lowest of equals; -1 when any is NaN or +inf or none is
  /// above -inf.
  [[nodiscard]] int argmax(std::span<const float> logits) {
    maxima_.resize(ceil_div<std::size_t>(logits.size(), kLogitBlock));
    if (block_maxima_(logits.data(), std::ssize(logits), maxima_.data()) || logits.empty())
      return -1;
    const auto block = std::ranges::max_element(maxima_);
    if (!(*block > -INFINITY && *block < INFINITY)) return -1;
    const auto first = (block - maxima_.begin()) * kLogitBlock;
    return static_cast<int>(std::find(logits.begin() + first, logits.end(), *block) -
                            logits.begin());
  }

  /// log(sum of exp(logits)), to about 1e-6 of itself.
  [[nodiscard]] double log_sum_exp(std::span<const float> logits) {
    maxima_.resize(ceil_div<std::size_t>(logits.size(), kLogitBlock));
    (void)block_maxima_(logits.data(), std::ssize(logits), maxima_.data());
    const float max = *std::ranges::max_element(maxima_);
    return max + std::log(sum_of_weights_(logits.data(), std::ssize(logits), max, 1.0f));
  }

 private:
  struct Candidate {
    float logit = 0.0f;
    int id = 0;
    double weight = 0.0;  ///< exp((logit - largest) / temperature)
  };
  using Candidates = std::vector<Candidate>;

  static bool is_better(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
  }

  void adjust(std::span<float> logits, const SamplingParams& p, const SamplingContext& c) {
    for (const auto& [id, bias] : p.logit_bias) {
      if (id >= 0 && id < std::ssize(logits)) logits[id] += bias;
    }
    seen_.resize(logits.size(), 0);
    if (p.repetition_penalty != 1.0f) {
      for_each_id(c.tokens, [&](int id, bool is_first) {
        float& x = logits[id];
        if (is_first) x = x < 0.0f ? x * p.repetition_penalty : x / p.repetition_penalty;
      });
    }
    if (p.presence_penalty == 0.0f && p.frequency_penalty == 0.0f) return;
    for_each_id(c.tokens.subspan(c.n_prompt), [&](int id, bool is_first) {
      if (is_first) logits[id] -= p.presence_penalty;
      logits[id] -= p.frequency_penalty;
    });
  }

  /// Calls `f(id, is_first)`: whether it is the first time that the id comes up.
  template <class F>
  void for_each_id(std::span<const int> tokens, F&& f) {
    for (const int id : tokens) {
      f(id, seen_[static_cast<std::size_t>(id)] == 0);
      seen_[static_cast<std::size_t>(id)] = 1;
    }
    for (const int id : tokens)
      seen_[static_cast<std::size_t>(id)] = 0;
  }

  /// All tokens whose logit is at least `least`.
  void collect(std::span<const float> logits, float least) {
    candidates_.clear();
    for (std::size_t b = 0; b < maxima_.size(); ++b) {
      if (!(maxima_[b] >= least)) continue;
      const std::size_t first = b * kLogitBlock;
      const std::size_t end = std::min(first + kLogitBlock, logits.size());
      for (std::size_t i = first; i < end; ++i) {
        if (logits[i] >= least) candidates_.push_back({logits[i], static_cast<int>(i), 0.0});
      }
    }
  }

  /// The k best tokens, in no order. The k-th largest of the blocks' maxima has at least k logits
  /// at or above it, so only those few are looked at.
  void collect_best(std::span<const float> logits, std::size_t k) {
    float least = -INFINITY;
    if (k < maxima_.size()) {
      order_ = maxima_;
      std::nth_element(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(k - 1),
                       order_.end(), [](float a, float b) { return a > b; });
      least = order_[k - 1];
    }
    collect(logits, least);
    if (candidates_.size() <= k) return;
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(k),
                     candidates_.end(), &is_better);
    candidates_.resize(k);
  }

  double weigh(float max, float temperature) {
    double total = 0.0;
    for (Candidate& c : candidates_) {
      c.weight = std::exp((c.logit - max) / temperature);
      total += c.weight;
    }
    return total;
  }

  /// Collects the best tokens that hold at least `mass`, and some more. Each step down looks for
  /// tokens e^4 times less likely.
  void collect_mass(std::span<const float> logits, float max, float temperature, double mass) {
    constexpr float kStep = 4.0f;
    constexpr float kNone = 104.0f;  // e^-104 is 0 in f32
    for (float distance = kStep; distance < kNone; distance += kStep) {
      collect(logits, max - distance * temperature);
      if (weigh(max, temperature) >= mass) return;
    }
    collect(logits, -INFINITY);
    weigh(max, temperature);
  }

  struct Prefix {
    std::ptrdiff_t last = 0;  ///< of the candidates, once the better ones stand before it
    double mass = 0.0;        ///< with it
  };

  /// The fewest best of the first `n` candidates that hold `mass` (or more than it, where
  /// `is_strict`): a selection by halves, which orders only as far as needed.
  Prefix select(std::ptrdiff_t n, double mass, bool is_strict) {
    std::ptrdiff_t low = 0;
    std::ptrdiff_t high = n;
    double above = 0.0;
    const auto is_enough = [&](double sum) { return is_strict ? sum > mass : sum >= mass; };
    while (high - low > 1) {
      const std::ptrdiff_t middle = low + (high - low) / 2;
      const auto at = candidates_.begin();
      std::nth_element(at + low, at + middle, at + high, &is_better);
      double sum = above;
      for (std::ptrdiff_t i = low; i < middle; ++i)
        sum += candidates_[static_cast<std::size_t>(i)].weight;
      if (is_enough(sum)) {
        high = middle;
      } else {
        low = middle;
        above = sum;
      }
    }
    return {low, above + candidates_[static_cast<std::size_t>(low)].weight};
  }

  int draw(std::span<const float> logits,
           const SamplingParams& p,
           const SamplingContext& c,
           float max) {
    const double u = uniform_draw(p.seed, c.tokens.size());
    double total = 0.0;
    if (p.top_k > 0 && p.top_k < std::ssize(logits)) {
      collect_best(logits, static_cast<std::size_t>(p.top_k));
      total = weigh(max, p.temperature);
    } else {
      total = sum_of_weights_(logits.data(), std::ssize(logits), max, 1.0f / p.temperature);
      // Without a limit only the tokens up to the draw matter.
      const bool is_limited = p.top_p < 1.0f || p.min_p > 0.0f;
      collect_mass(logits, max, p.temperature, (is_limited ? double{p.top_p} : u) * total);
    }
    double kept = total;
    auto n = std::ssize(candidates_);
    if (p.top_p < 1.0f) {
      const Prefix prefix = select(n, p.top_p * total, false);
      n = prefix.last + 1;
      kept = prefix.mass;
    }
    if (p.min_p > 0.0f) {
      const auto end = std::partition(candidates_.begin(), candidates_.begin() + n,
                                      [&](const Candidate& x) { return x.weight >= p.min_p; });
      n = end - candidates_.begin();
      kept = 0.0;
      for (std::ptrdiff_t i = 0; i < n; ++i)
        kept += candidates_[static_cast<std::size_t>(i)].weight;
    }
    return candidates_[static_cast<std::size_t>(select(n, u * kept, true).last)].id;
  }

  /// Lists the best tokens. Returns log(sum of exp(logits)). Behind `argmax` of the same logits.
  double list_best(std::span<const float> logits, float max, const SamplingContext& c) {
    const double log_sum =
        max + std::log(sum_of_weights_(logits.data(), std::ssize(logits), max, 1.0f));
    c.logprobs->top.clear();
    if (c.n_logprobs == 0) return log_sum;
    collect_best(logits, static_cast<std::size_t>(c.n_logprobs));
    std::ranges::sort(candidates_, &is_better);
    for (const Candidate& x : candidates_)
      c.logprobs->top.emplace_back(x.id, static_cast<float>(x.logit - log_sum));
    return log_sum;
  }

  bool (*block_maxima_)(const float*, std::int64_t, float*);
  double (*sum_of_weights_)(const float*, std::int64_t, float, float);
  std::vector<float> maxima_;  ///< [vocab / 64] after argmax
  std::vector<float> order_;
  std::vector<std::uint8_t> seen_;  ///< [vocab] zero between calls
  Candidates candidates_;
};

}  // namespace lmd::kernels
