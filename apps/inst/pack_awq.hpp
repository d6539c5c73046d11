/// \file  Plain rows -> the packed words of AWQ checkpoints: the inverse of quant::unpack_awq.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/thread_pool.hpp>
#include <lmd/quant/awq_checkpoint.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace lmd::apps {

/// The tensors of one module.
struct AwqWords {
  std::vector<std::uint32_t> qweight;  ///< [k, n / 8]
  std::vector<std::uint32_t> qzeros;   ///< [k / GroupSize, n / 8]
  std::vector<Half> scales;            ///< [k / GroupSize, n]
};

/// `rows` [n], n a multiple of 8, lists the matrix's rows in the order of the file.
///
/// Shapes:  codes [.., k / 2] bytes in PlainOrder; params [.., k / GroupSize].
template <int GroupSize>
[[nodiscard]] AwqWords pack_awq(const std::uint8_t* codes,
                                const typename quant::WeightInt4<GroupSize>::Params* params,
                                int k,
                                std::span<const int> rows,
                                ThreadPool* pool) {
  constexpr std::int64_t kTile = 64;  // inputs: their lines of the output stay in the cache
  const auto n = static_cast<std::int64_t>(rows.size());
  const std::int64_t words = n / 8;
  const std::int64_t groups = k / GroupSize;
  AwqWords to{std::vector<std::uint32_t>(static_cast<std::size_t>(k * words)),
              std::vector<std::uint32_t>(static_cast<std::size_t>(groups * words)),
              std::vector<Half>(static_cast<std::size_t>(groups * n))};
  parallel_ranges(pool, k, kTile, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t tile = begin; tile < end; tile += kTile) {
      for (std::int64_t word = 0; word < words; ++word) {
        for (std::int64_t l = tile; l < std::min(end, tile + kTile); l += 2) {
          std::uint32_t even[8];
          std::uint32_t odd[8];
          for (int c = 0; c < 8; ++c) {
            const std::uint8_t pair = codes[(std::int64_t{rows[word * 8 + c]} * k + l) / 2];
            even[c] = pair & 15u;
            odd[c] = pair >> 4;
          }
          to.qweight[l * words + word] = quant::awq_word(even);
          to.qweight[(l + 1) * words + word] = quant::awq_word(odd);
        }
      }
    }
  });
  parallel_ranges(pool, groups, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t g = begin; g < end; ++g) {
      for (std::int64_t word = 0; word < words; ++word) {
        std::uint32_t zeros[8];
        for (int c = 0; c < 8; ++c) {
          const auto& group = params[rows[word * 8 + c] * groups + g];
          zeros[c] = group.zero;
          to.scales[g * n + word * 8 + c] = group.scale;
        }
        to.qzeros[g * words + word] = quant::awq_word(zeros);
      }
    }
  });
  return to;
}

}  // namespace lmd::apps
