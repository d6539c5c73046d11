/// \file  A project that adds lmd as a sub-folder.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/math.hpp>
#include <lmd/json/json.hpp>

int main() {
  const lmd::json::Json value = lmd::json::parse("[1, 2, 3]", "literal");
  return lmd::round_up(static_cast<int>(value.size()), 4) == 4 ? 0 : 1;
}
