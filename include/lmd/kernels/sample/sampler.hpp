/// \file  From logits to one token, host backend: the definition of the operation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/kernels/sample/uniform_draw.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace lmd::kernels {

struct SamplingParams {
  float temperature = 1.0f;         ///< 0: greedy
  int top_k = 0;                    ///< 0: all; 1: greedy
  float top_p = 1.0f;               ///< smallest set of tokens that holds this much probability
  float min_p = 0.0f;               ///< tokens below this share of the best one's probability go
  float repetition_penalty = 1.0f;  ///< on every token of prompt and answer; 1: none
  float presence_penalty = 0.0f;    ///< subtracted once from tokens of the answer
  float frequency_penalty = 0.0f;   ///< subtracted per occurrence in the answer
  std::uint64_t seed = 0;
  std::vector<std::pair<int, float>> logit_bias = {};  ///< id and what is added to its logit

  /// Whether logits depend on the tokens so far.
  [[nodiscard]] bool has_penalties() const {
    return repetition_penalty != 1.0f || presence_penalty != 0.0f || frequency_penalty != 0.0f;
  }
};

/// \throws Error(kConfig) naming the parameter, its value and its range.
inline void validate(const SamplingParams& p) {
  const auto require = [](bool ok, const char* name, double value, const char* range) {
    LMD_REQUIRE(ok, ErrorCode::kConfig,
                std::string(name) + ' ' + std::to_string(value) + ": must be " + range);
  };
  require(p.temperature >= 0.0f && p.temperature <= 2.0f, "temperature", p.temperature,
          "in [0, 2]");
  require(p.top_k >= 0, "top_k", p.top_k, "0 (all) or more");
  require(p.top_p > 0.0f && p.top_p <= 1.0f, "top_p", p.top_p, "in (0, 1]");
  require(p.min_p >= 0.0f && p.min_p <= 1.0f, "min_p", p.min_p, "in [0, 1]");
  require(p.repetition_penalty > 0.0f && p.repetition_penalty <= 1000.0f, "repetition_penalty",
          p.repetition_penalty, "in (0, 1000]");
  require(p.presence_penalty >= -2.0f && p.presence_penalty <= 2.0f, "presence_penalty",
          p.presence_penalty, "in [-2, 2]");
  require(p.frequency_penalty >= -2.0f && p.frequency_penalty <= 2.0f, "frequency_penalty",
          p.frequency_penalty, "in [-2, 2]");
}

/// Natural logarithms of probabilities before mask, temperature and filters.
struct TokenLogprobs {
  float chosen = 0.0f;
  std::vector<std::pair<int, float>> top;  ///< best first: id and log probability
};

/// What a draw may depend on beside the logits.
struct SamplingContext {
  std::span<const int> tokens;  ///< prompt, then answer so far
  int n_prompt = 0;             ///< of these, the prompt
  /// [ceil(vocab / 32)] tokens that may be drawn: t is bit t % 32 of word t / 32. Empty: all.
  std::span<const std::uint32_t> allowed = {};
  int n_logprobs = -1;                ///< -1: none wanted
  TokenLogprobs* logprobs = nullptr;  ///< filled when wanted
};

/// The id of the largest logit, the lowest of equals; -1 when any is NaN or +inf or none is above
/// -inf.
[[nodiscard]] inline int argmax(std::span<const float> logits) {
  int best = -1;
  float largest = -std::numeric_limits<float>::infinity();
  for (int i = 0; i < std::ssize(logits); ++i) {
    if (!(logits[i] < std::numeric_limits<float>::infinity())) return -1;
    if (logits[i] > largest) {
      largest = logits[i];
      best = i;
    }
  }
  return best;
}

/// Sets the logits of tokens that are not allowed to -inf. An empty `allowed` changes nothing.
///
/// Shapes:  logits [vocab]; allowed [ceil(vocab / 32)], as in SamplingContext.
inline void mask_logits(std::span<float> logits, std::span<const std::uint32_t> allowed) {
  for (std::size_t w = 0; w < allowed.size(); ++w) {
    const std::uint32_t word = allowed[w];
    if (word == ~0u) continue;
    const std::size_t end = std::min(32 * (w + 1), logits.size());
    for (std::size_t i = 32 * w; i < end; ++i) {
      if ((word >> (i % 32) & 1) == 0) logits[i] = -std::numeric_limits<float>::infinity();
    }
  }
}

/// Draws tokens. Holds scratch memory only: a draw depends on its arguments alone.
class Sampler {
 public:
  /// Bias and penalties, mask, temperature, top-k, softmax, top-p, min-p, draw, in this order. `logits`
  /// [vocab] are changed. A draw depends on the seed and on the position of the token.
  ///
  ///   repetition: x < 0 ? x * p : x / p   presence: x - p   frequency: x - p * count
  ///
  /// Log probabilities are the model's, of the logits before the mask: what is drawn under a mask has
  /// the probability that it would have had without, and the best tokens need not be allowed.
  ///
  /// Returns -1 when the logits have a NaN or +inf, or nothing that is allowed is above -inf.
  /// Source: repetition penalty, Keskar et al., CTRL, 2019; top-p, Holtzman et al., 2019.
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

 private:
  static void adjust(std::span<float> logits, const SamplingParams& p, const SamplingContext& c) {
    for (const auto& [id, bias] : p.logit_bias) {
      if (id >= 0 && id < std::ssize(logits)) logits[id] += bias;
    }
    if (p.repetition_penalty != 1.0f) {
      std::vector<int> seen(c.tokens.begin(), c.tokens.end());
      std::ranges::sort(seen);
      seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
      for (const int id : seen) {
        float& x = logits[id];
        x = x < 0.0f ? x * p.repetition_penalty : x / p.repetition_penalty;
      }
    }
    if (p.presence_penalty == 0.0f && p.frequency_penalty == 0.0f) return;
    std::vector<int> answer(c.tokens.begin() + c.n_prompt, c.tokens.end());
    std::ranges::sort(answer);
    for (std::size_t i = 0; i < answer.size(); ++i) {
      if (i == 0 || answer[i] != answer[i - 1]) logits[answer[i]] -= p.presence_penalty;
      logits[answer[i]] -= p.frequency_penalty;
    }
  }

  /// Candidates leave a heap best first, so that only as many are ordered as are kept.
  int draw(std::span<const float> logits,
           const SamplingParams& p,
           const SamplingContext& c,
           float max) {
    const auto weight = [&](int id) { return std::exp((logits[id] - max) / p.temperature); };
    const auto is_worse = [&](int a, int b) {
      return logits[a] < logits[b] || (logits[a] == logits[b] && a > b);
    };
    ids_.resize(logits.size());
    std::iota(ids_.begin(), ids_.end(), 0);
    if (p.top_k > 0 && p.top_k < std::ssize(logits)) {
      const auto kth = ids_.begin() + p.top_k;
      std::nth_element(ids_.begin(), kth, ids_.end(), [&](int a, int b) { return is_worse(b, a); });
      ids_.erase(kth, ids_.end());
    }
    double total = 0.0;
    for (const int id : ids_)
      total += weight(id);
    std::make_heap(ids_.begin(), ids_.end(), is_worse);
    double kept = 0.0;
    auto end = ids_.end();
    while (end != ids_.begin()) {
      const double w = weight(ids_.front());
      const bool is_first = end == ids_.end();
      if (!is_first && (kept >= p.top_p * total || w < p.min_p)) break;
      kept += w;
      std::pop_heap(ids_.begin(), end--, is_worse);
      if (w == 0.0) break;
    }
    double left = uniform_draw(p.seed, c.tokens.size()) * kept;
    int token = ids_.back();
    for (auto at = ids_.end(); at-- != end;) {
      token = *at;
      left -= weight(token);
      if (left < 0.0) break;
    }
    return token;
  }

  /// Lists the best tokens. Returns log(sum of exp(logits)).
  double list_best(std::span<const float> logits, float max, const SamplingContext& c) {
    double sum = 0.0;
    for (const float x : logits)
      sum += std::exp(static_cast<double>(x) - max);
    const double log_sum = max + std::log(sum);
    c.logprobs->top.clear();
    ids_.resize(logits.size());
    std::iota(ids_.begin(), ids_.end(), 0);
    const auto n = std::min<std::size_t>(static_cast<std::size_t>(c.n_logprobs), ids_.size());
    std::partial_sort(
        ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(n), ids_.end(),
        [&](int a, int b) { return logits[a] > logits[b] || (logits[a] == logits[b] && a < b); });
    for (std::size_t i = 0; i < n; ++i)
      c.logprobs->top.emplace_back(ids_[i], static_cast<float>(logits[ids_[i]] - log_sum));
    return log_sum;
  }

  std::vector<int> ids_;
};

}  // namespace lmd::kernels
