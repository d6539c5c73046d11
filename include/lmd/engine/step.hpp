/// \file  What the sequences bring to a step of the executor.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/executor.hpp>
#include <lmd/engine/sequence.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <span>
#include <vector>

namespace lmd::engine {

/// The mask of a request's constraint, or none. Where the constraint fails it is `nothing` [ceil(vocab / 32)],
/// in which no bit is set: what draws from it ends.
[[nodiscard]] inline std::span<const std::uint32_t> allowed_tokens(
    const Request& r, const std::vector<std::uint32_t>& nothing) {
  if (r.constraint == nullptr) return {};
  try {
    const std::span<const std::uint32_t> mask = r.constraint->allowed();
    if (mask.size() == nothing.size()) return mask;
  } catch (...) {
  }
  return nothing;
}

/// Tells a request's constraint what was drawn. False where that fails.
[[nodiscard]] inline bool accept_token(const Request& r, int token) {
  if (r.constraint == nullptr) return true;
  try {
    r.constraint->accept(token);
    return true;
  } catch (...) {
    return false;
  }
}

/// Whether a mask has a token of the vocabulary that is not one of `ids`.
[[nodiscard]] inline bool allows_others(std::span<const std::uint32_t> allowed,
                                        std::span<const int> ids,
                                        int vocab_size) {
  for (std::size_t w = 0; w < allowed.size(); ++w) {
    for (std::uint32_t word = allowed[w]; word != 0; word &= word - 1) {
      const int token = static_cast<int>(32 * w) + std::countr_zero(word);
      if (token >= vocab_size) return false;
      if (std::ranges::find(ids, token) == ids.end()) return true;
    }
  }
  return false;
}

/// Items point into `draws` and into the sequences, which stay where they are until the step is finished.
struct Step {
  std::vector<StepItem> items;
  std::vector<DrawRequest> draws;

  /// Room for n sequences.
  void clear(std::size_t n) {
    items.clear();
    draws.clear();
    draws.reserve(n);
  }

  [[nodiscard]] std::int64_t n_tokens() const {
    std::int64_t n = 0;
    for (const StepItem& item : items)
      n += std::ssize(item.ids);
    return n;
  }

  /// Adds the next s.n_step tokens of a sequence.
  void add(const Sequence& s) {
    items.push_back({.slot = s.slot,
                     .position = s.n_cached,
                     .ids = std::span(s.tokens).subspan(static_cast<std::size_t>(s.n_cached),
                                                        static_cast<std::size_t>(s.n_step)),
                     .rope_base = s.rope_base,
                     .page_ids = page_ids(s)});
  }

  /// Adds the token that the step in front draws for a sequence.
  void add_following(const Sequence& s) {
    static constexpr int kUnknown = -1;
    items.push_back({.slot = s.slot,
                     .position = s.n_cached + 1,
                     .ids = {&kUnknown, 1},
                     .follows = s.draw,
                     .rope_base = s.rope_base,
                     .page_ids = page_ids(s)});
  }

  /// A token is drawn behind the item that was added last, the sequence's, from those `allowed` [ceil(vocab
  /// / 32)], or from all. Stop tokens come early only where nothing else may. Returns the draw's place.
  int add_draw(const Sequence& s, std::span<const std::uint32_t> allowed, int vocab_size) {
    StepItem& item = items.back();
    const bool follows = item.follows >= 0;
    DrawRequest& draw = draws.emplace_back();
    draw = {.params = &s.request.sampling,
            .tokens = s.tokens,
            .n_prompt = s.n_prompt,
            .follows = follows,
            .allowed = allowed,
            .n_logprobs = s.request.n_logprobs};
    const bool is_early = s.n_generated() + (follows ? 1 : 0) < s.request.min_new_tokens;
    if (is_early && (allowed.empty() || allows_others(allowed, s.request.stop_ids, vocab_size)))
      draw.banned = s.request.stop_ids;
    item.draw = &draw;
    return static_cast<int>(draws.size()) - 1;
  }

 private:
  [[nodiscard]] static std::span<const std::int32_t> page_ids(const Sequence& s) {
    return {s.pages.data(), static_cast<std::size_t>(s.pages.size())};
  }
};

}  // namespace lmd::engine
