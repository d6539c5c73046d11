/// \file  Who runs when: first come, first served; admitted when the worst case fits.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/memory_plan.hpp>
#include <lmd/engine/sequence.hpp>
#include <lmd/kernels/elementwise/rope.hpp>

#include <algorithm>
#include <deque>
#include <iterator>
#include <memory>

namespace lmd::engine {

/// Owns the sequences and the pages, not their memory. Every sequence that runs has a slot for its
/// open page and a claim on all the sealed pages that it may ever need, so no step can fail for
/// want of memory.
class Scheduler {
 public:
  using SequencePtr = std::unique_ptr<Sequence>;

  Scheduler(const model::ModelConfig& model, const MemoryPlan& plan, const EngineConfig& config)
      : model_(model),
        max_prefill_tokens_(config.max_prefill_tokens),
        has_prefix_cache_(config.has_prefix_cache),
        pool_(plan.n_pages),
        tree_(pool_) {
    for (int slot = plan.max_batch_size - 1; slot >= 0; --slot)
      free_slots_.push_back(slot);
  }

  [[nodiscard]] const std::vector<SequencePtr>& running() const { return running_; }
  [[nodiscard]] int n_waiting() const { return static_cast<int>(waiting_.size()); }
  [[nodiscard]] bool is_idle() const { return waiting_.empty() && running_.empty(); }
  [[nodiscard]] const cache::BlockPool& pool() const { return pool_; }

  void enqueue(SequencePtr sequence) {
    if (waiting_.empty()) is_blocked_ = false;
    waiting_.push_back(std::move(sequence));
  }

  /// Marks a sequence to end before the next step. Unknown ids are ended ones: nothing to do.
  void cancel(RequestId id) {
    const auto mark = [id](const SequencePtr& s) { s->is_cancelled |= s->id == id; };
    std::ranges::for_each(running_, mark);
    std::ranges::for_each(waiting_, mark);
  }

  void cancel_all() {
    const auto mark = [](const SequencePtr& s) { s->is_cancelled = true; };
    std::ranges::for_each(running_, mark);
    std::ranges::for_each(waiting_, mark);
  }

  /// Sequences cancelled while waiting, no longer queued.
  [[nodiscard]] std::vector<SequencePtr> take_cancelled_waiting() {
    const auto first = std::stable_partition(waiting_.begin(), waiting_.end(),
                                             [](const SequencePtr& s) { return !s->is_cancelled; });
    std::vector<SequencePtr> taken(std::make_move_iterator(first),
                                   std::make_move_iterator(waiting_.end()));
    waiting_.erase(first, waiting_.end());
    if (!taken.empty()) is_blocked_ = false;
    return taken;
  }

  /// Lets waiting sequences in, oldest first, as long as a slot is free and the worst case fits.
  void admit() {
    while (!waiting_.empty() && !free_slots_.empty() && try_admit(*waiting_.front())) {
      running_.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
    is_blocked_ = !waiting_.empty();
  }

  /// Decides how many tokens each running sequence brings to the next step: one while decoding,
  /// and all together at most max_prefill_tokens while reading prompts, oldest first. Gives each
  /// the pages that will be sealed.
  void plan_step() {
    int budget = max_prefill_tokens_;
    for (const SequencePtr& s : running_) {
      const int pending = s->n_pending();
      s->n_step = pending == 1 ? 1 : std::min(pending, budget);
      if (pending > 1) budget -= s->n_step;
      give_pages(*s, s->n_cached + s->n_step);
    }
  }

  /// Gives a sequence the pages that it fills with one token behind the step being prepared.
  void plan_ahead(Sequence& s) { give_pages(s, s.n_cached + s.n_step + 1); }

  /// Whether nobody can be let in before somebody ends.
  [[nodiscard]] bool is_closed() const { return waiting_.empty() || is_blocked_; }

  /// The step has run: counts its tokens and remembers the pages that were sealed.
  void finish_step() {
    for (const SequencePtr& s : running_) {
      const int first_sealed = cache::sealed_pages(s->n_cached);
      s->n_cached += s->n_step;
      if (!has_prefix_cache_ || s->has_ended) continue;
      for (int page = first_sealed; page < cache::sealed_pages(s->n_cached); ++page) {
        const std::span<const int> tokens{
            s->tokens.data() + std::ptrdiff_t{page} * cache::kPageTokens, cache::kPageTokens};
        s->tree_node = tree_.insert(s->tree_node, tokens, s->rope_base, s->pages, page);
      }
    }
  }

  /// Takes an ended sequence out and frees what it held.
  SequencePtr remove(std::size_t index) {
    SequencePtr s = std::move(running_[index]);
    running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(index));
    claimed_ -= s->worst_case_pages() - s->pages.size();
    s->pages.clear(pool_);
    free_slots_.push_back(s->slot);
    is_blocked_ = false;
    return s;
  }

 private:
  bool try_admit(Sequence& s) {
    s.rope_base = kernels::dynamic_ntk_base(model_.rope.base, model_.rope.dynamic_factor,
                                            model_.max_position, model_.head_dim, s.n_prompt);
    cache::PrefixTree::Match match;
    if (has_prefix_cache_) {
      match = tree_.match(s.tokens, s.rope_base, cache::reusable_pages(s.n_prompt));
    }
    const int needed = s.worst_case_pages() - static_cast<int>(match.pages.size());
    if (pool_.n_free() + pool_.n_idle() - claimed_ < needed) {
      for (const int page : match.pages)
        pool_.release(page);
      return false;
    }
    claimed_ += needed;
    for (const int page : match.pages)
      s.pages.push_back(page);
    s.tree_node = match.node;
    s.n_cached = s.n_reused = s.pages.size() * cache::kPageTokens;
    s.slot = free_slots_.back();
    free_slots_.pop_back();
    return true;
  }

  void give_pages(Sequence& s, int n_tokens) {
    while (s.pages.size() < cache::sealed_pages(n_tokens)) {
      s.pages.push_back(allocate_page());
      --claimed_;
    }
  }

  int allocate_page() {
    int page = pool_.allocate();
    if (page < 0 && tree_.evict_one()) page = pool_.allocate();
    LMD_REQUIRE(page >= 0, ErrorCode::kInternal, "a claimed page is missing");
    return page;
  }

  model::ModelConfig model_;
  int max_prefill_tokens_;
  bool has_prefix_cache_;
  cache::BlockPool pool_;
  cache::PrefixTree tree_;
  std::vector<int> free_slots_;
  int claimed_ = 0;  // pages promised to running sequences and not yet allocated
  std::deque<SequencePtr> waiting_;
  bool is_blocked_ = false;  // the first of these has been tried, and nothing has become free since
  std::vector<SequencePtr> running_;
};

}  // namespace lmd::engine
