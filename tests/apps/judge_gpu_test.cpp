/// \file  Which GPUs are refused, and what is said about them: no device is asked.
// SPDX-License-Identifier: Apache-2.0
#include "../../apps/judge_gpu.hpp"

#include <doctest/doctest.h>

using namespace lmd::apps;

namespace {

GpuFacts judged(const GpuAnswers& answers) {
  GpuFacts facts;
  judge_gpu(answers, &facts);
  CHECK(facts.is_usable == facts.problem.empty());
  return facts;
}

GpuAnswers device_of(int compute_capability, bool has_code) {
  return {.cuda_version = 13000,
          .has_driver = true,
          .devices = 1,
          .name = "NVIDIA X",
          .compute_capability = compute_capability,
          .has_code = has_code};
}

}  // namespace

TEST_CASE("a machine without a GPU") {
  const GpuFacts bare = judged({.cuda_version = 13000, .is_driver_too_old = true});
  CHECK(bare.problem == "no NVIDIA driver is installed");
  CHECK_FALSE(bare.is_there);
  const GpuFacts empty = judged({.cuda_version = 13000, .has_driver = true});
  CHECK(empty.problem == "no GPU answers");
  CHECK_FALSE(empty.is_there);
  const GpuFacts failed =
      judged({.cuda_version = 13000, .has_driver = true, .error = "out of memory"});
  CHECK(failed.problem == "no GPU answers: out of memory");
  CHECK_FALSE(failed.is_there);
}

TEST_CASE("a driver that is too old is named with the CUDA that it should know") {
  const GpuFacts facts = judged({.cuda_version = 12080,
                                 .has_driver = true,
                                 .is_driver_too_old = true,
                                 .error = "CUDA driver version is insufficient"});
  CHECK(facts.problem == "the NVIDIA driver is too old for CUDA 12.8");
  CHECK(facts.is_there);
}

TEST_CASE("a GPU that does not answer") {
  GpuAnswers answers = device_of(0, false);
  answers.error = "unspecified launch failure";
  const GpuFacts facts = judged(answers);
  CHECK(facts.problem == "the GPU does not answer: unspecified launch failure");
  CHECK(facts.is_there);
}

TEST_CASE("GPUs are refused by name and compute capability") {
  for (const bool has_code : {false, true}) {
    const GpuFacts old = judged(device_of(75, has_code));
    CHECK(old.problem == "NVIDIA X has compute capability 7.5, lmd needs 8.0 or more");
    CHECK(old.is_there);
  }
  // Also one that is newer than the code.
  for (const int capability : {80, 103, 120}) {
    const GpuFacts other = judged(device_of(capability, false));
    CHECK(other.problem == "NVIDIA X has compute capability " + capability_name(capability) +
                               ", for which this program was not built (CMAKE_CUDA_ARCHITECTURES)");
    CHECK(other.is_there);
  }
  CHECK(capability_name(103) == "10.3");
}

TEST_CASE("GPUs with code are used from compute capability 8.0 on") {
  for (const int capability : {80, 90, 120}) {
    const GpuFacts facts = judged(device_of(capability, true));
    CHECK(facts.is_usable);
    CHECK(facts.is_there);
  }
}
