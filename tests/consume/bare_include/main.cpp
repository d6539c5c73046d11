/// \file  Uses lmd with nothing but -std=c++20 -I include.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/half.hpp>

int main() {
  return lmd::to_float(lmd::to_half(1.5f)) == 1.5f ? 0 : 1;
}
