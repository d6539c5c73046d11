/// \file  The Host definition of linear on bytes written by hand, one weight format after another.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/linear/linear.hpp>

#include <cstring>
#include <vector>

#include "cases/random.hpp"
#include "cases/weights.hpp"
#include <doctest/doctest.h>

namespace {

using namespace lmd;

template <class F, class Order = quant::PlainOrder>
std::vector<float> multiply(const std::vector<std::uint8_t>& codes,
                            const std::vector<std::uint8_t>& params,
                            const std::vector<float>& x,
                            int n,
                            const float* bias = nullptr) {
  std::vector<float> y(static_cast<std::size_t>(n), 1000.0f);
  const int k = static_cast<int>(x.size());
  kernels::linear<kernels::WeightPolicy<F, Order>>(Host{}, {.y = y.data(),
                                                            .x = x.data(),
                                                            .codes = codes.data(),
                                                            .params = params.data(),
                                                            .bias = bias,
                                                            .m = 1,
                                                            .n = n,
                                                            .k = k,
                                                            .x_stride = k,
                                                            .y_stride = n});
  return y;
}

/// Half precision by hand: 0x3c00 is 1, 0x3800 0.5, 0xb800 -0.5, 0x4000 2, 0xc100 -2.5.
TEST_CASE("float weights are little-endian elements, row by row") {
  const std::vector<std::uint8_t> f32 = {0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0};  // 1, -2
  CHECK(multiply<quant::WeightFloat>(f32, {}, {3, 5}, 1)[0] == -7.0f);
  const std::vector<std::uint8_t> f16 = {0x00, 0x3c, 0x00, 0xc1, 0x00, 0x38, 0x00, 0x40};
  const std::vector<float> y = multiply<quant::WeightHalf>(f16, {}, {2, 4}, 2);
  CHECK(y[0] == -8.0f);                                             // 1 * 2 - 2.5 * 4
  CHECK(y[1] == 9.0f);                                              // 0.5 * 2 + 2 * 4
  const std::vector<std::uint8_t> bf16 = {0x80, 0x3f, 0x40, 0xc0};  // 1, -3
  CHECK(multiply<quant::WeightBFloat16>(bf16, {}, {5, 1}, 1)[0] == 2.0f);
}

TEST_CASE("AWQ weights: (code - zero) * scale, low nibble first") {
  std::vector<std::uint8_t> codes(32, 0x33);  // two rows of 32, all code 3
  codes[0] = 0xf1;                            // row 0: input 0 has code 1, input 1 code 15
  codes[16 + 15] = 0x0f;                      // row 1: input 30 has code 15, input 31 code 0
  // scale 0.5, zero 3; scale 2, zero 8. The last byte of each means nothing.
  const std::vector<std::uint8_t> params = {0x00, 0x38, 3, 77, 0x00, 0x40, 8, 99};
  std::vector<float> x(32, 0.0f);
  x[0] = 1.0f, x[1] = 10.0f, x[30] = 100.0f, x[31] = 1000.0f;
  const std::vector<float> y = multiply<quant::WeightInt4<32>>(codes, params, x, 2);
  CHECK(y[0] == 0.5f * (1 - 3) + 10.0f * 0.5f * (15 - 3));
  CHECK(y[1] == -10.0f * 1 - 10.0f * 10 + 100.0f * 2 * (15 - 8) + 1000.0f * 2 * (0 - 8));
}

TEST_CASE("a group is kGroupSize neighbouring inputs") {
  std::vector<std::uint8_t> codes(128, 0x11);
  // Two groups of 128: scale 1, zero 0; scale 2, zero 0.
  const std::vector<std::uint8_t> params = {0x00, 0x3c, 0, 0, 0x00, 0x40, 0, 0};
  std::vector<float> x(256, 0.0f);
  x[127] = 1.0f, x[128] = 10.0f;
  CHECK(multiply<quant::WeightInt4<128>>(codes, params, x, 1)[0] == 21.0f);
}

TEST_CASE("affine 4-bit weights: scale * code + minimum; paired order is 16 apart") {
  std::vector<std::uint8_t> codes(16, 0);
  codes[2] = 0xa5;  // plain: inputs 4 and 5; paired: inputs 2 and 18
  const std::vector<std::uint8_t> params = {0x00, 0x38, 0x00, 0xb8};  // 0.5, -0.5
  std::vector<float> x(32, 0.0f);
  x[4] = 1.0f, x[5] = 10.0f;
  CHECK(multiply<quant::WeightAffine4<32>>(codes, params, x, 1)[0] == 2.0f + 45.0f);
  x.assign(32, 0.0f);
  x[2] = 1.0f, x[18] = 10.0f;
  CHECK(multiply<quant::WeightAffine4<32>, quant::PairedOrder>(codes, params, x, 1)[0] ==
        2.0f + 45.0f);
}

TEST_CASE("int8 weights: scale * signed code") {
  std::vector<std::uint8_t> codes(32, 0);
  codes[0] = 0x80, codes[1] = 0x7f, codes[31] = 0xff;  // -128, 127, -1
  std::vector<float> x(32, 1.0f);
  CHECK(multiply<quant::WeightInt8<32>>(codes, {0x00, 0x38}, x, 1)[0] == -1.0f);  // 0.5 * -2
}

TEST_CASE("bias is added; kAdd adds to what is there") {
  const std::vector<std::uint8_t> one = {0, 0, 0x80, 0x3f};
  const float bias = 4.0f;
  CHECK(multiply<quant::WeightFloat>(one, {}, {3}, 1, &bias)[0] == 7.0f);
  const float x = 3.0f;
  float y = 100.0f;
  kernels::linear<kernels::WeightPolicy<quant::WeightFloat>>(
      Host{}, {.y = &y,
               .x = &x,
               .codes = one.data(),
               .bias = &bias,
               .m = 1,
               .n = 1,
               .k = 1,
               .x_stride = 1,
               .y_stride = 1,
               .epilogue = kernels::LinearEpilogue::kAdd});
  CHECK(y == 107.0f);
}

template <class F>
void check_orders() {
  constexpr int kInputs = 256, kRows = 3;
  test::StoredWeights w = test::random_weights<F>(kRows, kInputs, 5);
  const std::vector<float> x = test::random_floats(kInputs, 6);
  const std::vector<std::uint8_t> params(w.params.begin(), w.params.end());
  const std::vector<std::uint8_t> plain(w.codes.begin(), w.codes.end());
  if (F::kBits == 4) quant::pair_nibbles(w.codes.data(), kRows * kInputs);
  const std::vector<std::uint8_t> paired(w.codes.begin(), w.codes.end());
  CHECK(multiply<F, quant::PlainOrder>(plain, params, x, kRows) ==
        multiply<F, quant::PairedOrder>(paired, params, x, kRows));
}

TEST_CASE("both orders of codes hold the same weights") {
  for_each_type(quant::WeightFormats{}, [](auto t) { check_orders<typename decltype(t)::type>(); });
}

}  // namespace
