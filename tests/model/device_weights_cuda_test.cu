/// \file  What errors of kernels and of formats without kernels say. No device is asked.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/model/device_weights.cuh>

#include <string>

#include "model/test_files.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::model;
using test::error_of;

TEST_CASE("a kernel that fails is named with its shape") {
  CHECK(error_of([] { try_kernel(cudaSuccess, "rms_norm", 3, 4096); }).empty());
  CHECK(error_of([] { try_kernel(cudaErrorInvalidValue, "rms_norm", 3, 4096); }) ==
        "rms_norm [3, 4096]: cudaErrorInvalidValue, invalid argument");
}

TEST_CASE("a kernel's name says format and activations") {
  CHECK(kernel_name<Half>("linear", format_index<quant::WeightInt4<128>>()) ==
        "linear " + std::string(quant::WeightInt4<128>::kName) + ", f16 activations");
  CHECK(kernel_name<BFloat16>("linear", format_index<quant::WeightBFloat16>()) ==
        "linear " + std::string(quant::WeightBFloat16::kName) + ", bf16 activations");
}

TEST_CASE("a format without kernels is refused by name") {
  const CudaOps<Half> none{};
  const int format = format_index<quant::WeightFloat>();
  CHECK(error_of([&] { (void)linear_ops(none, format); }) ==
        std::string("weights of format ") + quant::WeightFloat::kName +
            " have no kernels on the GPU; use --device cpu, or lmd convert --dtype float16");
}
