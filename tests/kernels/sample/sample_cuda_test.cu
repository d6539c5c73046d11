/// \file  Sampling on the Cuda backend against the Host definition: the same tokens from the same draws.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/stream.cuh>
#include <lmd/kernels/sample/sample.cuh>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cases/random.hpp"
#include "gpu.cuh"
#include "kernels/sample/sample_case.cuh"
#include <doctest/doctest.h>

namespace {

using namespace lmd;
using kernels::DeviceSampleBatch;
using kernels::drawn_on_host;
using kernels::DrawnTokens;
using kernels::is_at_border;
using kernels::LogitBias;
using kernels::SampleBatch;
using kernels::SamplingRow;

constexpr float kInf = std::numeric_limits<float>::infinity();

/// Tokens may differ only at borders; log probabilities by rounding; every number of blocks a row
/// gives the same, with room for their slices or not.
void check(const SampleBatch& b, const std::vector<int>& clusters) {
  const DrawnTokens host = drawn_on_host(b);
  DeviceSampleBatch device(b);
  DrawnTokens first;
  for (const int cluster : clusters) {
    if (cluster > 1 && !gpu_code_arch().has_clusters()) continue;
    for (const int room : {0, 99 * 1024, 48 * 1024}) {
      REQUIRE(kernels::detail::sample_with({.shared_bytes = room}, device.args, cluster) ==
              cudaSuccess);
      const DrawnTokens drawn = device.fetch();
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
void add_every_path(SampleBatch& b, const std::vector<float>& x) {
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

void add_penalties(SampleBatch& b, float spread) {
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

/// One bit in `every`, and those of the first and the last token.
std::vector<std::uint32_t> mask_of(int vocab, int every) {
  std::vector<std::uint32_t> mask(static_cast<std::size_t>(ceil_div(vocab, 32)));
  for (int id = 0; id < vocab; ++id) {
    if (id % every == every / 2 || id == 0 || id == vocab - 1) mask[id / 32] |= 1u << (id % 32);
  }
  return mask;
}

/// Gives a mask to every row that has none; masks of one token too, and of all.
void mask_all(SampleBatch& b) {
  const int strides[] = {2, 7, 1000, 1 << 20, 1};
  for (int i = 0; i < b.m(); ++i)
    b.allowed[i] = mask_of(b.vocab, strides[i % 5]);
}

TEST_CASE("small batches draw what the Host definition draws") {
  if (!has_gpu()) return;
  for (const int vocab : {1, 2, 63, 64, 65, 511, 2047, 2049, 4097}) {
    SampleBatch b(vocab, vocab % 3);
    add_every_path(b, scaled(vocab, 21, 2.0f));
    add_every_path(b, std::vector<float>(vocab, 0.25f));
    if (vocab > 10) add_penalties(b, 2.0f);
    check(b, {1, 2, 8, 16});
    mask_all(b);
    check(b, {1, 2, 8, 16});
  }
}

TEST_CASE("small: rows without an answer give -1 and do not touch their neighbours") {
  if (!has_gpu()) return;
  constexpr int kVocab = 777;
  SampleBatch b(kVocab, 3);
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
  const DrawnTokens host = drawn_on_host(b);
  CHECK(host.ids[0] == -1);
  CHECK(host.ids[3] >= 0);
  CHECK(host.ids[36] == -1);
  CHECK(host.ids[37] == 600);
  CHECK(host.ids[39] == 0);
}

TEST_CASE("batches over models' vocabularies draw what the Host definition draws") {
  if (!has_gpu()) return;
  for (const int vocab : {49'152, 92'544, 151'655}) {
    for (const float spread : {0.01f, 1.0f, 4.0f}) {
      SampleBatch b(vocab);
      const std::vector<float> x = scaled(vocab, 22, spread);
      add_every_path(b, x);
      for (std::uint64_t seed = 100; seed < 116; ++seed)
        b.add({.temperature = 0.9f, .top_p = 0.8f, .top_k = 40, .seed = seed}, x);
      add_penalties(b, spread);
      check(b, {1, 2, 4, 8, 16});
      mask_all(b);
      check(b, {1, 4, 16});
    }
    SampleBatch b(vocab);
    add_every_path(b, std::vector<float>(vocab, 1.0f));
    std::vector<float> peaked = scaled(vocab, 23, 3.0f);
    peaked[vocab / 2] = 40.0f;
    add_every_path(b, peaked);
    check(b, {1, 4});
  }
}

TEST_CASE("small: masked rows without an answer give -1, and rows without a mask have none") {
  if (!has_gpu()) return;
  constexpr int kVocab = 777;
  const std::vector<std::uint32_t> none(static_cast<std::size_t>(ceil_div(kVocab, 32)));
  const std::vector<float> logits = scaled(kVocab, 3, 1.0f);
  SampleBatch b(kVocab, 3);
  const auto add = [&](const std::vector<float>& x, const std::vector<std::uint32_t>& mask) {
    for (const SamplingRow& row : {SamplingRow{.temperature = 0.0f}, SamplingRow{.top_k = 40},
                                   SamplingRow{.top_p = 0.9f, .top_k = 600}}) {
      b.add(row, x);
      b.allowed.back() = mask;
    }
  };
  add(logits, none);
  add(logits, {});
  std::vector<float> bad = logits;
  bad[1] = NAN;  // not allowed, but the row is no row of numbers
  add(bad, mask_of(kVocab, 7));
  bad[1] = kInf;
  add(bad, mask_of(kVocab, 7));
  bad[1] = -kInf;
  add(bad, mask_of(kVocab, 7));
  std::vector<float> elsewhere(kVocab, 1.0f);
  for (int id = 0; id < kVocab; ++id) {
    if ((mask_of(kVocab, 7)[id / 32] >> (id % 32) & 1) != 0) elsewhere[id] = -kInf;
  }
  add(elsewhere, mask_of(kVocab, 7));
  check(b, {1, 4});
  const DrawnTokens host = drawn_on_host(b);
  for (const int group : {0, 2, 3, 5}) {
    for (int i = 0; i < 3; ++i)
      CHECK(host.ids[3 * group + i] == -1);
  }
  for (const int group : {1, 4}) {
    for (int i = 0; i < 3; ++i)
      CHECK(host.ids[3 * group + i] >= 0);
  }
}

TEST_CASE("small: frequencies follow the softmax") {
  if (!has_gpu()) return;
  const std::vector<float> logits = {std::log(0.125f), std::log(0.5f), std::log(0.125f),
                                     std::log(0.25f)};
  constexpr int kDraws = 4000;
  SampleBatch b(4);
  for (int i = 0; i < kDraws; ++i)
    b.add({.top_k = i % 2 == 0 ? 0 : 4, .seed = static_cast<std::uint64_t>(i)}, logits);
  DeviceSampleBatch device(b);
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
  SampleBatch b(kVocab);
  for (int i = 0; i < 4; ++i)
    b.add({.top_k = i % 2 == 0 ? 0 : 50, .seed = 3}, scaled(kVocab, 8, 1.0f));
  DeviceSampleBatch device(b);
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
    CHECK(device.fetch().ids == drawn_on_host(b).ids);
  }
}

}  // namespace
