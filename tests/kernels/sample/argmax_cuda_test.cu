/// \file  The best token of each row on the Cuda backend against the Host definition.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/sample/argmax.cuh>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cases/random.hpp"
#include "gpu.cuh"
#include "oracle/device_guard.cuh"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

TEST_CASE("argmax gives the ids of the definition") {
  if (!has_gpu()) return;
  for (const int vocab : {1, 3, 4, 5, 2047, 2049, 5000, 92'544}) {
    constexpr int kM = 5;
    std::vector<float> x = test::random_floats(kM * vocab, 9);
    std::fill(x.begin() + vocab, x.begin() + 2 * vocab, 1.5f);
    if (vocab > 1) x[3 * vocab - 1] = NAN;
    if (vocab > 2) x[3 * vocab + 1] = x[4 * vocab - 1] = 50.0f;
    test::OnDevice<float> logits(x);
    test::GuardedDevice<int> ids(kM);
    ArgmaxArgs args{
        .ids = ids.data(), .logits = logits.data(), .stride = vocab, .m = kM, .vocab = vocab};
    REQUIRE(argmax(Cuda{}, args) == cudaSuccess);
    const std::vector<int> got = ids.fetch();
    CHECK(ids.is_intact());
    std::vector<int> expected(kM);
    args.ids = expected.data();
    args.logits = x.data();
    argmax(Host{}, args);
    CHECK_MESSAGE(got == expected, "vocab ", vocab);
  }
}
