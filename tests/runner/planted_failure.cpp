/// \file  One case that passes and one that fails: proves that the runner can report red.
// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

TEST_CASE("this one passes") {
  CHECK(1 + 1 == 2);
}

TEST_CASE("this one fails on purpose") {
  CHECK(1 + 1 == 3);
}
