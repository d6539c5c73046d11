/// \file  Batches of rows to draw tokens from, in both memories, and what rounding may decide.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/kernels/sample/sample.cuh>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "oracle/device_guard.cuh"
#include <doctest/doctest.h>

namespace lmd::kernels {

/// A batch in host memory: every row has parameters, logits and history of its own.
struct SampleBatch {
  int vocab = 0;
  std::int64_t stride = 0;
  std::vector<SamplingRow> rows;
  std::vector<float> logits;             ///< [rows, stride]
  std::vector<std::vector<int>> tokens;  ///< prompt and answer of each row
  std::vector<std::vector<LogitBias>> bias;
  std::vector<std::vector<std::uint32_t>> allowed;  ///< empty: all tokens

  explicit SampleBatch(int n, int padding = 0) : vocab(n), stride(n + padding) {}

  void add(const SamplingRow& row, const std::vector<float>& x, std::vector<int> history = {1, 2}) {
    rows.push_back(row);
    for (int& id : history)
      id %= vocab;
    tokens.push_back(std::move(history));
    bias.emplace_back();
    allowed.emplace_back();
    logits.resize(rows.size() * static_cast<std::size_t>(stride),
                  NAN);  // nobody may read between rows
    std::copy(x.begin(), x.end(), logits.end() - stride);
  }
  [[nodiscard]] int m() const { return static_cast<int>(rows.size()); }
};

struct DrawnTokens {
  std::vector<int> ids;
  std::vector<float> logprobs;
};

inline DrawnTokens drawn_on_host(const SampleBatch& b) {
  DrawnTokens drawn{std::vector<int>(b.rows.size()), std::vector<float>(b.rows.size())};
  std::vector<SamplingRow> rows = b.rows;
  std::vector<int> n_tokens;
  for (int i = 0; i < b.m(); ++i) {
    rows[i].tokens = b.tokens[i].data();
    rows[i].bias = b.bias[i].data();
    rows[i].n_bias = static_cast<int>(b.bias[i].size());
    if (!b.allowed[i].empty()) rows[i].allowed = b.allowed[i].data();
    n_tokens.push_back(static_cast<int>(b.tokens[i].size()));
  }
  sample(Host{}, {.ids = drawn.ids.data(),
                  .logprobs = drawn.logprobs.data(),
                  .logits = b.logits.data(),
                  .rows = rows.data(),
                  .n_tokens = n_tokens.data(),
                  .stride = b.stride,
                  .m = b.m(),
                  .vocab = b.vocab});
  return drawn;
}

/// The batch in device memory.
class DeviceSampleBatch {
 public:
  explicit DeviceSampleBatch(const SampleBatch& b)
      : logits_(b.logits), ids_(b.m()), logprobs_(b.m()), m_(b.m()) {
    std::vector<SamplingRow> rows = b.rows;
    std::vector<int> n_tokens;
    for (int i = 0; i < m_; ++i) {
      tokens_.emplace_back(b.tokens[i]);
      bias_.emplace_back(b.bias[i]);
      allowed_.emplace_back(b.allowed[i]);
      rows[i].tokens = tokens_.back().data();
      rows[i].bias = bias_.back().data();
      rows[i].n_bias = static_cast<int>(b.bias[i].size());
      if (!b.allowed[i].empty()) rows[i].allowed = allowed_.back().data();
      n_tokens.push_back(static_cast<int>(b.tokens[i].size()));
    }
    rows_.emplace_back(rows);
    n_tokens_.emplace_back(n_tokens);
    args = {.ids = ids_.data(),
            .logprobs = logprobs_.data(),
            .logits = logits_.data(),
            .rows = rows_[0].data(),
            .n_tokens = n_tokens_[0].data(),
            .stride = b.stride,
            .m = m_,
            .vocab = b.vocab};
  }
  DrawnTokens fetch() {
    DrawnTokens drawn{ids_.fetch(), logprobs_.fetch()};
    CHECK(ids_.is_intact());
    CHECK(logprobs_.is_intact());
    return drawn;
  }
  [[nodiscard]] int* n_tokens() { return n_tokens_[0].data(); }

  SampleArgs args;

 private:
  test::OnDevice<float> logits_;
  test::GuardedDevice<int> ids_;
  test::GuardedDevice<float> logprobs_;
  std::vector<test::OnDevice<int>> tokens_;
  std::vector<test::OnDevice<LogitBias>> bias_;
  std::vector<test::OnDevice<std::uint32_t>> allowed_;
  std::vector<test::OnDevice<SamplingRow>> rows_;
  std::vector<test::OnDevice<int>> n_tokens_;
  int m_;
};

/// Whether row i's draw falls so close to the token's share of the mass that rounding may decide.
/// Sums in double over the sorted row. A weight is off by a rounding of its argument, up to 16 in the
/// mass that counts, on both sides: 2^-19 of the whole.
inline bool is_at_border(const SampleBatch& b, int i, int token) {
  const SamplingRow& p = b.rows[i];
  std::vector<float> x(b.logits.begin() + i * b.stride, b.logits.begin() + i * b.stride + b.vocab);
  SamplingParams greedy{.temperature = 0.0f,
                        .repetition_penalty = p.repetition_penalty,
                        .presence_penalty = p.presence_penalty,
                        .frequency_penalty = p.frequency_penalty};
  for (const LogitBias& bias : b.bias[i])
    greedy.logit_bias.emplace_back(bias.id, bias.value);
  SamplingContext context;
  context.tokens = b.tokens[i];
  context.n_prompt = p.n_prompt;
  context.allowed = b.allowed[i];
  const int best = Sampler{}.sample(x, greedy, context);
  if (best < 0 || token < 0 || p.temperature == 0.0f) return false;
  std::vector<int> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int a, int c) { return x[a] > x[c] || (x[a] == x[c] && a < c); });
  if (p.top_k > 0 && p.top_k < b.vocab) order.resize(static_cast<std::size_t>(p.top_k));
  const auto weight = [&](int id) {
    return std::exp((double{x[id]} - double{x[best]}) / p.temperature);
  };
  double total = 0.0;
  for (const int id : order)
    total += weight(id);
  const double tolerance = 0x1p-19 * total;
  double kept = 0.0, low = -1.0, high = -1.0;
  for (const int id : order) {
    const double w = weight(id);
    if (kept > 0.0 && (kept >= p.top_p * total + tolerance || w < p.min_p * (1 - 0x1p-19))) break;
    if (id == token) low = kept;
    kept += w;
    if (id == token) high = kept;
  }
  const double target = uniform_draw(p.seed, b.tokens[i].size()) * kept;
  return high >= 0.0 && target > low - tolerance && target < high + tolerance;
}

}  // namespace lmd::kernels
