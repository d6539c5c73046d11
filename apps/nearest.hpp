/// \file  The known word that a mistyped one probably means.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

namespace lmd::apps {

/// Letters to insert, delete, replace or swap with their neighbour to make `b` of `a`
/// (optimal string alignment distance).
[[nodiscard]] inline int edit_distance(std::string_view a, std::string_view b) {
  const std::size_t n = b.size() + 1;
  std::vector<int> before(n);
  std::vector<int> last(n);
  std::vector<int> row(n);
  std::iota(last.begin(), last.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = static_cast<int>(i);
    for (std::size_t j = 1; j < n; ++j) {
      const int replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, replaced});
      const bool is_swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (is_swap) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before.swap(last);
    last.swap(row);
  }
  return last[b.size()];
}

/// The word of `known` nearest to `word`: one that `word` abbreviates, else the one with the fewest
/// edits. Empty when nothing is near: more edits than a third of the word's letters, dashes not
/// counted.
[[nodiscard]] inline std::string nearest(std::string_view word,
                                         const std::vector<std::string>& known) {
  constexpr std::size_t kMaxWord = 64;  // nobody mistypes longer ones
  if (word.size() > kMaxWord) return {};
  const auto n_letters =
      static_cast<int>(word.size() - std::min(word.find_first_not_of('-'), word.size()));
  const int limit = n_letters < 4 ? 1 : std::max(2, n_letters / 3);
  int best = limit + 1;
  std::string found;
  for (const std::string& candidate : known) {
    const bool is_prefix = n_letters >= 3 && candidate.starts_with(word);
    const int distance = is_prefix ? 0 : edit_distance(word, candidate);
    if (distance >= best) continue;
    best = distance;
    found = candidate;
  }
  return found;
}

}  // namespace lmd::apps
