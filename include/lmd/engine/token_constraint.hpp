/// \file  What an answer's next token may be, decided token by token: the engine's side of constrained decoding.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace lmd::engine {

/// Belongs to one request. Called on the engine's thread only, between the steps of its sequence.
class TokenConstraint {
 public:
  TokenConstraint() = default;
  TokenConstraint(const TokenConstraint&) = delete;
  TokenConstraint& operator=(const TokenConstraint&) = delete;
  virtual ~TokenConstraint() = default;

  /// Which tokens may be drawn next, stop tokens among them where the answer may end. At least one bit is set.
  ///
  /// Shapes:  [ceil(vocab_size / 32)]; token t is bit t % 32 of word t / 32. Valid until `accept`.
  [[nodiscard]] virtual std::span<const std::uint32_t> allowed() = 0;

  /// The token that was drawn, one of the allowed ones.
  virtual void accept(int token) = 0;
};

}  // namespace lmd::engine
