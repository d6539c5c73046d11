/// \file  Runs of tokens arrive in their places, and nothing beside them changes.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/sample/token_runs.cuh>

#include <vector>

#include "gpu.cuh"
#include "oracle/device_guard.cuh"
#include <doctest/doctest.h>

using namespace lmd;
using kernels::TokenRun;

TEST_CASE("small: runs of any length arrive as the definition has them") {
  if (!has_gpu()) return;
  constexpr int kSlot = 1000;
  const std::vector<int> lengths = {1, 0, 127, 128, 129, 1000, 2};
  const std::vector<int> offsets = {999, 5, 0, 3, 64, 0, 998};
  const int n_slots = static_cast<int>(lengths.size());
  std::vector<int> from;
  std::vector<int> expected(lengths.size() * kSlot, -1);  // as the guarded buffer begins
  std::vector<TokenRun> on_host;
  for (int n : lengths) {
    for (int i = 0; i < n; ++i)
      from.push_back(static_cast<int>(from.size()) * 7 + 1);
  }
  test::OnDevice<int> device_from(from);
  test::GuardedDevice<int> device_to(n_slots * kSlot);
  std::vector<TokenRun> on_device;
  int at = 0;
  for (int r = 0; r < n_slots; ++r) {
    const int to = r * kSlot + offsets[r];
    on_host.push_back({expected.data() + to, from.data() + at, lengths[r]});
    on_device.push_back({device_to.data() + to, device_from.data() + at, lengths[r]});
    at += lengths[r];
  }
  kernels::copy_token_runs(Host{}, {on_host.data(), n_slots});
  test::OnDevice<TokenRun> runs(on_device);
  REQUIRE(kernels::copy_token_runs(Cuda{}, {runs.data(), n_slots}) == cudaSuccess);
  CHECK(device_to.fetch() == expected);
  CHECK(device_to.is_intact());
  CHECK(kernels::copy_token_runs(Cuda{}, {}) == cudaSuccess);
}
