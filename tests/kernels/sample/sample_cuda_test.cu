/// \file  Sampling on the Cuda backend against the Host definition: the same tokens from the same draws.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/stream.cuh>
#include <lmd/kernels/sample/sample.cuh>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "cases/random.hpp"
#include "gpu.cuh"
#include "oracle/device_guard.cuh"
#include <doctest/doctest.h>

namespace {

using namespace lmd;
using kernels::LogitBias;
using kernels::SampleArgs;
using kernels::SamplingRow;

constexpr float kInf = std::numeric_limits<float>::infinity();

/// A batch in host memory: every row has parameters, logits and history of its own.
struct Batch {
  int vocab = 0;
  std::int64_t stride = 0;
  std::vector<SamplingRow> rows;
  std::vector<float> logits;             ///< [rows, stride]
  std::vector<std::vector<int>> tokens;  ///< prompt and answer of each row
  std::vector<std::vector<LogitBias>> bias;

  explicit Batch(int n, int padding = 0) : vocab(n), stride(n + padding) {}

  void add(const SamplingRow& row, const std::vector<float>& x, std::vector<int> history = {1, 2}) {
    rows.push_back(row);
    for (int& id : history)
      id %= vocab;
    tokens.push_back(std::move(history));
    bias.emplace_back();
    logits.resize(rows.size() * static_cast<std::size_t>(stride),
                  NAN);  // nobody may read between rows
    std::copy(x.begin(), x.end(), logits.end() - stride);
  }
  [[nodiscard]] int m() const { return static_cast<int>(rows.size()); }
};

struct Drawn {
  std::vector<int> ids;
  std::vector<float> logprobs;
};

Drawn on_host(const Batch& b) {
  Drawn drawn{std::vector<int>(b.rows.size()), std::vector<float>(b.rows.size())};
  std::vector<SamplingRow> rows = b.rows;
  std::vector<int> n_tokens;
  for (int i = 0; i < b.m(); ++i) {
    rows[i].tokens = b.tokens[i].data();
    rows[i].bias = b.bias[i].data();
    rows[i].n_bias = static_cast<int>(b.bias[i].size());
    n_tokens.push_back(static_cast<int>(b.tokens[i].size()));
  }
  kernels::sample(Host{}, {.ids = drawn.ids.data(),
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
class DeviceBatch {
 public:
  explicit DeviceBatch(const Batch& b)
      : logits_(b.logits), ids_(b.m()), logprobs_(b.m()), m_(b.m()) {
    std::vector<SamplingRow> rows = b.rows;
    std::vector<int> n_tokens;
    for (int i = 0; i < m_; ++i) {
      tokens_.emplace_back(b.tokens[i]);
      bias_.emplace_back(b.bias[i]);
      rows[i].tokens = tokens_.back().data();
      rows[i].bias = bias_.back().data();
      rows[i].n_bias = static_cast<int>(b.bias[i].size());
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
  Drawn fetch() {
    Drawn drawn{ids_.fetch(), logprobs_.fetch()};
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
  std::vector<test::OnDevice<SamplingRow>> rows_;
  std::vector<test::OnDevice<int>> n_tokens_;
  int m_;
};

/// Whether row i's draw falls so close to the token's share of the mass that rounding may decide.
/// Sums in double over the sorted row. A weight is off by a rounding of its argument, up to 16 in the
/// mass that counts, on both sides: 2^-19 of the whole.
bool is_at_border(const Batch& b, int i, int token) {
  const SamplingRow& p = b.rows[i];
  std::vector<float> x(b.logits.begin() + i * b.stride, b.logits.begin() + i * b.stride + b.vocab);
  kernels::SamplingParams greedy{.temperature = 0.0f,
                                 .repetition_penalty = p.repetition_penalty,
                                 .presence_penalty = p.presence_penalty,
                                 .frequency_penalty = p.frequency_penalty};
  for (const LogitBias& bias : b.bias[i])
    greedy.logit_bias.emplace_back(bias.id, bias.value);
  kernels::SamplingContext context;
  context.tokens = b.tokens[i];
  context.n_prompt = p.n_prompt;
  const int best = kernels::Sampler{}.sample(x, greedy, context);
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
  const double target = kernels::uniform_draw(p.seed, b.tokens[i].size()) * kept;
  return high >= 0.0 && target > low - tolerance && target < high + tolerance;
}

/// Tokens may differ only at borders; log probabilities by rounding; every number of blocks a row
/// gives the same, with room for their slices or not.
void check(const Batch& b, const std::vector<int>& clusters) {
  const Drawn host = on_host(b);
  DeviceBatch device(b);
  Drawn first;
  for (const int cluster : clusters) {
    if (cluster > 1 && !gpu_code_arch().has_clusters()) continue;
    for (const int room : {0, 99 * 1024, 48 * 1024}) {
      REQUIRE(kernels::detail::sample_with({.shared_bytes = room}, device.args, cluster) ==
              cudaSuccess);
      const Drawn drawn = device.fetch();
      if (first.ids.empty()) first = drawn;
      CHECK_MESSAGE(drawn.ids == first.ids, "vocab ", b.vocab, " cluster ", cluster, " room ",
                    room);
      CHECK_MESSAGE(drawn.logprobs == first.logprobs, "vocab ", b.vocab, " cluster ", cluster,
                    " room ", room);
    }
  }
  int different = 0;
  for (int i = 0; i < b.m(); ++i) {
    const SamplingRow& p = b.rows[i];
    if (host.ids[i] != first.ids[i]) {
      ++different;
      CHECK_MESSAGE(is_at_border(b, i, first.ids[i]), "vocab ", b.vocab, " row ", i, " top_k ",
                    p.top_k, " top_p ", p.top_p, " min_p ", p.min_p, " T ", p.temperature, ": ",
                    first.ids[i], ", expected ", host.ids[i]);
    } else {
      // exp within 2 ulp of each term, two roundings of the result.
      const double bound = 0x1p-21 + 0x1p-22 * std::fabs(host.logprobs[i]);
      CHECK_MESSAGE(std::fabs(host.logprobs[i] - first.logprobs[i]) <= bound, "vocab ", b.vocab,
                    " row ", i, ": ", first.logprobs[i], ", expected ", host.logprobs[i]);
    }
  }
  // Of a flat row of 150,000 tokens, one border in 2^-19 * 150,000 = 0.3 of a token's share.
  CHECK_MESSAGE(different * 10 <= b.m(), "vocab ", b.vocab, ": ", different, " of ", b.m());
}

std::vector<float> scaled(int n, std::uint64_t seed, float spread) {
  std::vector<float> x = test::random_floats(n, seed);
  for (float& value : x)
    value *= spread;
  return x;
}

/// Parameters that reach every path, on the given logits.
void add_every_path(Batch& b, const std::vector<float>& x) {
  const SamplingRow some[] = {
      {.temperature = 0.0f},
      {.top_k = 1},
      {},
      {.temperature = 0.8f, .top_p = 0.8f, .top_k = 40},
      {.temperature = 1e-40f, .top_k = 5},
      {.temperature = 1.7f, .top_k = 512},
      {.temperature = 0.3f, .top_k = 513},
      {.top_p = 0.9f, .top_k = 3000},
      {.top_p = 0.95f},
      {.top_p = 1e-10f},
      {.top_p = 0.9f, .min_p = 0.1f},
      {.temperature = 1.7f, .min_p = 0.05f},
      {.min_p = 1.0f},
      {.top_p = 0.7f, .min_p = 0.02f, .top_k = 50},
      {.top_p = 0.5f, .top_k = 1 << 30},
  };
  std::uint64_t seed = 1;
  for (SamplingRow row : some) {
    row.seed = seed++;
    b.add(row, x);
  }
}

void add_penalties(Batch& b, float spread) {
  const int last = b.vocab - 1;
  const int half = b.vocab / 2;
  const std::vector<int> history = {5, 6, 7, 7, 9, 9, 9, 3, 5, 9, last, half, 0, last, half};
  SamplingRow row{.top_p = 0.9f, .repetition_penalty = 1.3f, .n_prompt = 3, .seed = 77};
  b.add(row, scaled(b.vocab, 41, spread), history);
  row = {.temperature = 0.0f, .presence_penalty = 0.7f, .frequency_penalty = 0.3f, .n_prompt = 2};
  b.add(row, scaled(b.vocab, 42, spread), history);
  row = {.repetition_penalty = 1e-7f,
         .presence_penalty = -1.1f,
         .frequency_penalty = 1.7f,
         .top_k = 20,
         .n_prompt = 4,
         .seed = 5};
  b.add(row, scaled(b.vocab, 43, spread), history);
  row = {.temperature = 0.5f, .top_k = 7, .seed = 6};
  b.add(row, scaled(b.vocab, 44, spread));
  b.bias.back() = {{b.vocab - 1, 3.0f}, {0, -2.5f}, {b.vocab, 100.0f}, {-1, 100.0f}};
}

TEST_CASE("small batches draw what the Host definition draws") {
  if (!has_gpu()) return;
  for (const int vocab : {1, 2, 63, 64, 65, 511, 2047, 2049, 4097}) {
    Batch b(vocab, vocab % 3);
    add_every_path(b, scaled(vocab, 21, 2.0f));
    add_every_path(b, std::vector<float>(vocab, 0.25f));
    if (vocab > 10) add_penalties(b, 2.0f);
    check(b, {1, 2, 8, 16});
  }
}

TEST_CASE("small: rows without an answer give -1 and do not touch their neighbours") {
  if (!has_gpu()) return;
  constexpr int kVocab = 777;
  Batch b(kVocab, 3);
  for (const float bad : {NAN, -NAN, kInf}) {
    for (const int at : {0, 500, kVocab - 1}) {
      std::vector<float> x = scaled(kVocab, 3, 1.0f);
      x[at] = bad;
      b.add({.temperature = 0.0f}, x);
      b.add({.top_k = 40}, x);
      b.add({.top_p = 0.9f}, x);
      x[at] = -kInf;  // is no fault
      b.add({.top_p = 0.9f}, x);
    }
  }
  b.add({}, std::vector<float>(kVocab, -kInf));
  std::vector<float> lonely(kVocab, -kInf);
  lonely[600] = -7.0f;
  b.add({.top_k = 40}, lonely);
  b.add({}, lonely);
  std::vector<float> zeros(kVocab, -0.0f);
  zeros[700] = 0.0f;  // equal to the others: the lowest id wins
  b.add({.temperature = 0.0f}, zeros);
  b.add({.top_k = 3}, zeros);
  check(b, {1, 4});
  const Drawn host = on_host(b);
  CHECK(host.ids[0] == -1);
  CHECK(host.ids[3] >= 0);
  CHECK(host.ids[36] == -1);
  CHECK(host.ids[37] == 600);
  CHECK(host.ids[39] == 0);
}

TEST_CASE("small: argmax gives the ids of the definition") {
  if (!has_gpu()) return;
  for (const int vocab : {1, 3, 4, 5, 2047, 2049, 5000, 92'544}) {
    constexpr int kM = 5;
    std::vector<float> x = scaled(kM * vocab, 9, 1.0f);
    std::fill(x.begin() + vocab, x.begin() + 2 * vocab, 1.5f);
    if (vocab > 1) x[3 * vocab - 1] = NAN;
    if (vocab > 2) x[3 * vocab + 1] = x[4 * vocab - 1] = 50.0f;
    test::OnDevice<float> logits(x);
    test::GuardedDevice<int> ids(kM);
    kernels::ArgmaxArgs args{
        .ids = ids.data(), .logits = logits.data(), .stride = vocab, .m = kM, .vocab = vocab};
    REQUIRE(kernels::argmax(Cuda{}, args) == cudaSuccess);
    const std::vector<int> got = ids.fetch();
    CHECK(ids.is_intact());
    std::vector<int> expected(kM);
    args.ids = expected.data();
    args.logits = x.data();
    kernels::argmax(Host{}, args);
    CHECK_MESSAGE(got == expected, "vocab ", vocab);
  }
}

TEST_CASE("batches over models' vocabularies draw what the Host definition draws") {
  if (!has_gpu()) return;
  for (const int vocab : {49'152, 92'544, 151'655}) {
    for (const float spread : {0.01f, 1.0f, 4.0f}) {
      Batch b(vocab);
      const std::vector<float> x = scaled(vocab, 22, spread);
      add_every_path(b, x);
      for (std::uint64_t seed = 100; seed < 116; ++seed)
        b.add({.temperature = 0.9f, .top_p = 0.8f, .top_k = 40, .seed = seed}, x);
      add_penalties(b, spread);
      check(b, {1, 2, 4, 8, 16});
    }
    Batch b(vocab);
    add_every_path(b, std::vector<float>(vocab, 1.0f));
    std::vector<float> peaked = scaled(vocab, 23, 3.0f);
    peaked[vocab / 2] = 40.0f;
    add_every_path(b, peaked);
    check(b, {1, 4});
  }
}

TEST_CASE("small: frequencies follow the softmax") {
  if (!has_gpu()) return;
  const std::vector<float> logits = {std::log(0.125f), std::log(0.5f), std::log(0.125f),
                                     std::log(0.25f)};
  constexpr int kDraws = 4000;
  Batch b(4);
  for (int i = 0; i < kDraws; ++i)
    b.add({.top_k = i % 2 == 0 ? 0 : 4, .seed = static_cast<std::uint64_t>(i)}, logits);
  DeviceBatch device(b);
  REQUIRE(kernels::sample(Cuda{}, device.args) == cudaSuccess);
  std::vector<int> counts(4);
  for (const int id : device.fetch().ids)
    ++counts[id];
  for (std::size_t i = 0; i < 4; ++i) {
    const double share = std::exp(double{logits[i]});
    // Five deviations of a binomial distribution.
    CHECK(std::fabs(counts[i] - kDraws * share) < 5.0 * std::sqrt(kDraws * share * (1.0 - share)));
  }
}

TEST_CASE("small: a recorded step draws anew when its position moves") {
  if (!has_gpu()) return;
  constexpr int kVocab = 1000;
  Batch b(kVocab);
  for (int i = 0; i < 4; ++i)
    b.add({.top_k = i % 2 == 0 ? 0 : 50, .seed = 3}, scaled(kVocab, 8, 1.0f));
  DeviceBatch device(b);
  Stream stream;
  const Graph graph = Graph::capture(stream.get(), [&] {
    for (int copy = 0; copy < 2; ++copy)
      LMD_CUDA_TRY(kernels::sample({.stream = stream.get(), .overlap = true}, device.args));
  });
  for (const int position : {1, 2, 7, 8}) {
    for (auto& history : b.tokens)
      history.assign(static_cast<std::size_t>(position), 0);
    const std::vector<int> positions(4, position);
    LMD_CUDA_TRY(cudaMemcpy(device.n_tokens(), positions.data(), 16, cudaMemcpyDefault));
    graph.launch(stream.get());
    stream.synchronize();
    CHECK(device.fetch().ids == on_host(b).ids);
  }
}

}  // namespace
