/// \file  A grammar as what the engine asks before it draws a token.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/token_constraint.hpp>
#include <lmd/text/token_mask.hpp>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace lmd::serve {

/// Holds one answer to a grammar. Stop tokens are allowed exactly where the grammar can end; other special tokens
/// only where it demands them.
class GrammarConstraint final : public engine::TokenConstraint {
 public:
  /// \param vocab_size  of the model; rows behind the tokenizer's are never allowed
  /// \throws Error(kConfig) when there is no stop id: the answer could not end.
  GrammarConstraint(std::shared_ptr<text::TokenMasks> masks,
                    std::vector<int> stop_ids,
                    int vocab_size);

  [[nodiscard]] std::span<const std::uint32_t> allowed() override;
  void accept(int token) override;
};

}  // namespace lmd::serve
