/// \file  What of a sequence's tokens is sent to a device that keeps them: changes, and never too little.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/engine/token_mirror.hpp>

#include <random>
#include <vector>

#include <doctest/doctest.h>

using namespace lmd;

TEST_CASE("only tokens behind the first difference are new") {
  engine::TokenMirror mirror(2);
  CHECK(mirror.update(0, std::vector<int>{1, 2, 3}) == 0);
  CHECK(mirror.n_known(0, std::vector<int>{1, 2, 3}) == 3);
  CHECK(mirror.update(0, std::vector<int>{1, 2, 3, 4}) == 3);
  CHECK(mirror.update(0, std::vector<int>{1, 2, 3, 4}) == 4);
  CHECK(mirror.update(1, std::vector<int>{1, 2, 3, 4}) == 0);     // another slot
  CHECK(mirror.update(0, std::vector<int>{1, 2, 9, 4, 5}) == 2);  // another sequence
  CHECK(mirror.update(0, std::vector<int>{1, 2}) == 2);
  CHECK(mirror.update(0, std::vector<int>{1, 2, 9}) == 2);  // what was cut is not trusted
  CHECK(mirror.update(0, std::vector<int>{}) == 0);
  CHECK(mirror.update(0, std::vector<int>{1}) == 0);
}

TEST_CASE("a device that takes the changes has the tokens, whoever is in the slots") {
  constexpr int kSlots = 3;
  std::mt19937 random(5);
  engine::TokenMirror mirror(kSlots);
  std::vector<std::vector<int>> device(kSlots, std::vector<int>(64, -1));
  std::vector<std::vector<int>> tokens(kSlots);
  for (int step = 0; step < 2000; ++step) {
    const std::size_t slot = random() % kSlots;
    std::vector<int>& sequence = tokens[slot];
    if (sequence.size() > 60 || random() % 20 == 0) {  // another one begins, often alike
      sequence.resize(random() % 5);
      for (int& id : sequence)
        id = static_cast<int>(random() % 2);
    }
    sequence.push_back(static_cast<int>(random() % 2));
    const int known = mirror.n_known(static_cast<int>(slot), sequence);
    REQUIRE(mirror.update(static_cast<int>(slot), sequence) == known);
    for (std::size_t i = static_cast<std::size_t>(known); i < sequence.size(); ++i)
      device[slot][i] = sequence[i];
    REQUIRE(std::equal(sequence.begin(), sequence.end(), device[slot].begin()));
  }
}
