/// \file  What errors of CUDA calls say. No device is asked.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/cuda.cuh>

#include <string>

#include <doctest/doctest.h>

using namespace lmd;

namespace {

struct Caught {
  ErrorCode code = {};
  std::string text;
};

template <class F>
Caught caught(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {};
}

cudaError_t failing(int value) {
  return value == 3 ? cudaErrorInvalidValue : cudaSuccess;
}

}  // namespace

TEST_CASE("an error of a CUDA call names its place, the call and the error") {
  const Caught made = caught(
      [] { throw_cuda_error(cudaErrorMemoryAllocation, "cudaMalloc(&p, 7)", "dir/a.cuh", 42); });
  CHECK(made.code == ErrorCode::kCuda);
  CHECK(made.text == "dir/a.cuh:42: cudaMalloc(&p, 7): cudaErrorMemoryAllocation, out of memory");
}

TEST_CASE("LMD_CUDA_TRY throws where it stands, and only for errors") {
  CHECK(caught([] { LMD_CUDA_TRY(failing(2)); }).text.empty());
  int line = 0;
  const Caught found = caught([&] {
    line = __LINE__ + 1;
    LMD_CUDA_TRY(failing(3));
  });
  CHECK(found.code == ErrorCode::kCuda);
  CHECK(found.text == std::string(__FILE__) + ":" + std::to_string(line) +
                          ": failing(3): cudaErrorInvalidValue, invalid argument");
}

TEST_CASE("LMD_CUDA_RETURN_IF_ERROR returns the first error") {
  const auto both = [](int first, int second) -> cudaError_t {
    LMD_CUDA_RETURN_IF_ERROR(failing(first));
    LMD_CUDA_RETURN_IF_ERROR(failing(second) == cudaSuccess ? cudaSuccess
                                                            : cudaErrorMemoryAllocation);
    return cudaSuccess;
  };
  CHECK(both(1, 2) == cudaSuccess);
  CHECK(both(3, 3) == cudaErrorInvalidValue);
  CHECK(both(1, 3) == cudaErrorMemoryAllocation);
}
