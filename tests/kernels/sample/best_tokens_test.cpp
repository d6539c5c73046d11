/// \file  Rank keys and the choice among them, on Host: in the order of argmax.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/linear/linear.hpp>
#include <lmd/kernels/sample/argmax.hpp>
#include <lmd/kernels/sample/best_tokens.hpp>

#include <limits>
#include <vector>

#include "cases/random.hpp"
#include <doctest/doctest.h>

namespace {

using namespace lmd;
using namespace lmd::kernels;

constexpr float kInf = std::numeric_limits<float>::infinity();

/// The token of one row, whose features are the numbers of `logits` themselves: 1 x 1 products.
int greedy(const std::vector<float>& logits) {
  const float x = 1.0f;
  const int n = static_cast<int>(logits.size());
  std::vector<std::uint64_t> keys(static_cast<std::size_t>(best_parts(n)), 1);
  linear<WeightPolicy<quant::WeightFloat>>(
      Host{}, {.best = keys.data(),
               .x = &x,
               .codes = reinterpret_cast<const std::uint8_t*>(logits.data()),
               .m = 1,
               .n = n,
               .k = 1,
               .x_stride = 1,
               .epilogue = LinearEpilogue::kBest});
  int id = 0;
  best_tokens(Host{}, {.ids = &id, .keys = keys.data(), .m = 1, .parts = best_parts(n)});
  return id;
}

}  // namespace

TEST_CASE("keys stand in the order of logits, then of ids, and give both back") {
  const std::vector<float> ascending{-kInf, -1e30f, -2.0f, -1e-40f, 0.0f, 1e-40f, 1.0f, 3e38f};
  for (std::size_t i = 0; i < ascending.size(); ++i) {
    CHECK(key_logit(rank_key(ascending[i], 77)) == ascending[i]);
    CHECK(key_id(rank_key(ascending[i], 77)) == 77);
    CHECK(rank_key(ascending[i], 3) < rank_key(ascending[i], 4));
    CHECK(rank_key(ascending[i], kMaxVocab - 1) < kNoKey);
    CHECK(rank_key(ascending[i], 0) > kInvalidKey);
    if (i > 0) CHECK(rank_key(ascending[i], kMaxVocab - 1) < rank_key(ascending[i - 1], 0));
  }
  CHECK(rank_key(-0.0f, 5) == rank_key(0.0f, 5));
  CHECK(checked_rank_key(kInf, 5) == kInvalidKey);
  CHECK(checked_rank_key(std::numeric_limits<float>::quiet_NaN(), 5) == kInvalidKey);
  CHECK(best_token(kNoKey) == -1);
}

TEST_CASE("the best of parts of 16 is the best of all, the lowest of equals") {
  std::vector<float> logits(40, -1.0f);
  CHECK(greedy(logits) == 0);
  logits[39] = 2.0f;
  CHECK(greedy(logits) == 39);
  logits[17] = logits[18] = 2.0f;
  CHECK(greedy(logits) == 17);
  logits[3] = -kInf;
  CHECK(greedy(logits) == 17);
  logits[20] = kInf;
  CHECK(greedy(logits) == -1);
  logits[20] = std::numeric_limits<float>::quiet_NaN();
  CHECK(greedy(logits) == -1);
  CHECK(greedy(std::vector<float>(20, -kInf)) == -1);
  CHECK(greedy({5.0f}) == 0);
}

TEST_CASE("the best of parts is what argmax says of random logits") {
  test::Random random(1);
  for (const int n : {1, 15, 16, 17, 1000}) {
    std::vector<float> logits(static_cast<std::size_t>(n));
    for (float& x : logits)
      x = static_cast<float>(random.below(50));  // many equals
    CHECK(greedy(logits) == argmax(logits));
  }
}
