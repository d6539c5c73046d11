/// \file  What sealed pages hold, as numbers, and attention over them in f64: what rows of attention are
///        checked with.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/tile.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include "buffers.cuh"

namespace lmd::bench {

namespace detail {

/// A block for each page, a thread for each element of the head.
template <class U>
__global__ void decode_pages_kernel(const std::uint8_t* units,
                                    std::int64_t page_bytes,
                                    const std::int32_t* ids,
                                    float* decoded) {
  constexpr int kDim = U::kHeadDim;
  const std::uint8_t* unit = units + ids[blockIdx.x] * page_bytes;
  float* to = decoded + std::int64_t{blockIdx.x} * cache::kPageTokens * 2 * kDim;
  for (int t = 0; t < cache::kPageTokens; ++t) {
    to[t * 2 * kDim + threadIdx.x] = U::key(unit, t, static_cast<int>(threadIdx.x));
    to[(t * 2 + 1) * kDim + threadIdx.x] = U::value(unit, t, static_cast<int>(threadIdx.x));
  }
}

}  // namespace detail

/// [tokens][keys, values][head_dim] of one KV head of `pages` pages.
///
/// Shapes:  units: that head's unit of page 0 of the pool, page_bytes apart; ids [pages], device memory.
template <class U>
[[nodiscard]] std::vector<float> decoded_pages(const std::uint8_t* units,
                                               std::int64_t page_bytes,
                                               const std::int32_t* ids,
                                               std::int64_t pages) {
  if (pages == 0) return {};
  DeviceBuffer<float> decoded(pages * cache::kPageTokens * 2 * U::kHeadDim);
  detail::decode_pages_kernel<U>
      <<<static_cast<unsigned>(pages), U::kHeadDim>>>(units, page_bytes, ids, decoded.data());
  LMD_CUDA_TRY(cudaGetLastError());
  return on_host(decoded.data(), decoded.size());
}

/// The larger of two errors; one that is not a number counts as the larger.
[[nodiscard]] inline double worse(double a, double b) {
  return a >= b || std::isnan(a) ? a : b;
}

/// One query's running softmax in f64.
class AttentionSum {
 public:
  explicit AttentionSum(std::vector<float> query) : query_(std::move(query)), out_(query_.size()) {}

  /// A token's key and value [head_dim].
  void add(const float* key, const float* value) {
    double score = 0;
    for (std::size_t d = 0; d < query_.size(); ++d)
      score += double{query_[d]} * key[d];
    score /= std::sqrt(static_cast<double>(query_.size()));
    const double larger = std::max(max_, score);
    const double shrink = std::exp(max_ - larger);
    const double weight = std::exp(score - larger);
    sum_ = sum_ * shrink + weight;
    for (std::size_t d = 0; d < out_.size(); ++d)
      out_[d] = out_[d] * shrink + weight * value[d];
    max_ = larger;
  }

  /// How far a row is from the result, relative.
  [[nodiscard]] double error_of(const std::vector<Half>& row) const {
    double error = 0;
    double size = 0;
    for (std::size_t d = 0; d < out_.size(); ++d) {
      error += std::pow(to_float(row[d]) - out_[d] / sum_, 2);
      size += std::pow(out_[d] / sum_, 2);
    }
    return std::sqrt(error / size);
  }

 private:
  std::vector<float> query_;
  std::vector<double> out_;
  double max_ = -INFINITY;
  double sum_ = 0;
};

}  // namespace lmd::bench
