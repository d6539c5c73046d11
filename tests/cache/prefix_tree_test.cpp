/// \file  Pages, references and the reuse of prefixes.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/cache/prefix_tree.hpp>

#include <numeric>

#include <doctest/doctest.h>

using namespace lmd;
using cache::BlockPool;
using cache::PageTable;
using cache::PrefixTree;

namespace {

constexpr double kBase = 10000.0;

std::vector<int> counting(int n, int first = 0) {
  std::vector<int> tokens(static_cast<std::size_t>(n));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

std::span<const int> page_of(const std::vector<int>& tokens, int page) {
  return std::span(tokens).subspan(static_cast<std::size_t>(page) * 64, 64);
}

/// A sequence that computed all full pages of `tokens` itself and has ended.
void remember(PrefixTree& tree, BlockPool& pool, const std::vector<int>& tokens, double base) {
  PageTable table;
  int node = PrefixTree::kRoot;
  for (int page = 0; page < cache::sealed_pages(static_cast<int>(tokens.size())); ++page) {
    table.push_back(pool.allocate());
    node = tree.insert(node, page_of(tokens, page), base, table, page);
  }
  table.clear(pool);
}

}  // namespace

TEST_CASE("a pool hands out every page once and takes it back with its last reference") {
  BlockPool pool(3);
  const int a = pool.allocate();
  const int b = pool.allocate();
  const int c = pool.allocate();
  CHECK(a != b);
  CHECK(b != c);
  CHECK(a != c);
  CHECK(pool.allocate() == -1);
  pool.retain(b);
  pool.release(b);
  CHECK(pool.n_free() == 0);
  pool.release(b);
  CHECK(pool.n_free() == 1);
  CHECK(pool.allocate() == b);
  pool.release(a);
  CHECK_THROWS_AS(pool.release(a), Error);
}

TEST_CASE("a prompt takes whole pages, and never the one that its last token is in") {
  CHECK(cache::reusable_pages(1) == 0);
  CHECK(cache::reusable_pages(64) == 0);
  CHECK(cache::reusable_pages(65) == 1);
  CHECK(cache::reusable_pages(128) == 1);
  CHECK(cache::reusable_pages(129) == 2);
  CHECK(cache::sealed_pages(63) == 0);
  CHECK(cache::sealed_pages(64) == 1);
}

TEST_CASE("equal prefixes are found, unequal ones and other bases are not") {
  BlockPool pool(8);
  PrefixTree tree(pool);
  const std::vector<int> tokens = counting(200);
  remember(tree, pool, tokens, kBase);
  CHECK(tree.size() == 3);
  CHECK(pool.n_idle() == 3);

  PrefixTree::Match all = tree.match(tokens, kBase, 3);
  CHECK(all.pages.size() == 3);
  CHECK(pool.n_idle() == 0);
  for (const int page : all.pages)
    pool.release(page);
  CHECK(pool.n_idle() == 3);

  std::vector<int> other = tokens;
  other[64] = 7;  // the second page differs in its first token
  const PrefixTree::Match first = tree.match(other, kBase, 3);
  CHECK(first.pages.size() == 1);
  pool.release(first.pages[0]);
  CHECK(tree.match(tokens, 2 * kBase, 3).pages.empty());
  CHECK(tree.match(counting(200, 1), kBase, 3).pages.empty());
}

TEST_CASE("a page is found only after its own prefix") {
  BlockPool pool(8);
  PrefixTree tree(pool);
  std::vector<int> tokens = counting(128);
  remember(tree, pool, tokens, kBase);
  std::rotate(tokens.begin(), tokens.begin() + 64, tokens.end());  // second page first
  CHECK(tree.match(tokens, kBase, 2).pages.empty());
}

TEST_CASE("two sequences that compute the same page end up sharing one") {
  BlockPool pool(8);
  PrefixTree tree(pool);
  const std::vector<int> tokens = counting(64);
  PageTable a;
  PageTable b;
  a.push_back(pool.allocate());
  b.push_back(pool.allocate());
  const int node = tree.insert(PrefixTree::kRoot, tokens, kBase, a, 0);
  CHECK(tree.insert(PrefixTree::kRoot, tokens, kBase, b, 0) == node);
  CHECK(a[0] == b[0]);
  CHECK(pool.references(a[0]) == 3);
  CHECK(pool.n_free() == 7);
  a.clear(pool);
  b.clear(pool);
  CHECK(pool.n_idle() == 1);
}

TEST_CASE("the least recently used leaf is forgotten first, pages in use never") {
  BlockPool pool(4);
  PrefixTree tree(pool);
  const std::vector<int> older = counting(128, 1000);
  const std::vector<int> newer = counting(128, 2000);
  remember(tree, pool, older, kBase);
  remember(tree, pool, newer, kBase);
  CHECK(pool.n_free() == 0);
  const PrefixTree::Match held = tree.match(older, kBase, 2);  // now the newer in use
  CHECK(held.pages.size() == 2);
  CHECK(tree.evict_one());
  CHECK(tree.evict_one());
  CHECK_FALSE(tree.evict_one());
  CHECK(pool.n_free() == 2);
  CHECK(tree.match(newer, kBase, 2).pages.empty());
  for (const int page : held.pages)
    pool.release(page);
  CHECK(tree.evict_one());
  const PrefixTree::Match rest = tree.match(older, kBase, 2);
  CHECK(rest.pages.size() == 1);  // the leaf went, its parent stayed
  pool.release(rest.pages[0]);
}

TEST_CASE("references balance over many random lives") {
  BlockPool pool(16);
  PrefixTree tree(pool);
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::vector<int> tokens = counting(64 * 4 + 1, static_cast<int>(random() % 3) * 10000);
    tokens[static_cast<std::size_t>(random() % tokens.size())] = static_cast<int>(random() % 2);
    PageTable table;
    const PrefixTree::Match match = tree.match(tokens, kBase, 4);
    int node = match.node;
    for (const int page : match.pages)
      table.push_back(page);
    for (int page = table.size(); page < 4; ++page) {
      int id = pool.allocate();
      if (id < 0) {
        REQUIRE(tree.evict_one());
        id = pool.allocate();
      }
      REQUIRE(id >= 0);
      table.push_back(id);
      node = tree.insert(node, page_of(tokens, page), kBase, table, page);
    }
    table.clear(pool);
    REQUIRE(pool.n_free() + pool.n_idle() == 16);
    REQUIRE(pool.n_idle() == tree.size());
  }
}
