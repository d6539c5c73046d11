/// \file  Who runs when: which requests are let in, what each brings to a step, who gives way when memory
///        runs out.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/engine/fair_queue.hpp>
#include <lmd/engine/memory_plan.hpp>
#include <lmd/kernels/elementwise/rope.hpp>

#include <algorithm>
#include <deque>

namespace lmd::engine {

/// Counters since the start.
struct SchedulerCounts {
  std::int64_t prompt_tokens = 0;  ///< of requests that have started
  std::int64_t reused_tokens = 0;  ///< of these, taken from the prefix tree
  std::int64_t preemptions = 0;
};

/// Tokens of prompts at most in a step in which `n_decode` sequences decode. A quarter of all is theirs at
/// least, so that nobody is read for long because many decode.
[[nodiscard]] constexpr int prompt_share(int max_prefill_tokens, int n_decode) {
  return std::max({max_prefill_tokens - n_decode, max_prefill_tokens / 4, 1});
}

/// Owns the sequences and the pages, not their memory.
///
/// A sequence is let in when there is a slot, and pages for its tokens and the first
/// `admitted_answer_tokens` of its answer. When pages run out, the newest sequence that runs gives its own
/// back: its tokens are kept and go through the decoder once more when it is let in again, before
/// anybody who has not started, without what is still in the prefix tree. So sequences start, stand in
/// `running`, and give way in one order: the oldest never gives way, the pool holds it at full length, and
/// whoever has started comes to its end once those before it have.
class Scheduler {
 public:
  Scheduler(const model::ModelConfig& model, const MemoryPlan& plan, const EngineConfig& config)
      : model_(model),
        max_prefill_tokens_(config.max_prefill_tokens),
        admitted_answer_tokens_(config.admitted_answer_tokens),
        has_prefix_cache_(config.has_prefix_cache),
        pool_(plan.n_pages),
        tree_(pool_) {
    for (int slot = plan.max_batch_size - 1; slot >= 0; --slot)
      free_slots_.push_back(slot);
  }

  [[nodiscard]] const std::vector<SequencePtr>& running() const { return running_; }
  [[nodiscard]] const std::deque<SequencePtr>& preempted() const { return preempted_; }
  [[nodiscard]] const FairQueue& queue() const { return queue_; }
  [[nodiscard]] const cache::BlockPool& pool() const { return pool_; }
  [[nodiscard]] const SchedulerCounts& counts() const { return counts_; }
  [[nodiscard]] bool is_idle() const {
    return queue_.is_empty() && preempted_.empty() && running_.empty();
  }

  /// \throws std::bad_alloc; the sequence is the caller's then.
  void enqueue(SequencePtr&& sequence) { queue_.push(std::move(sequence)); }

  /// Marks a sequence to end before the next step. Unknown ids are ended ones: nothing to do.
  void cancel(RequestId id) {
    for_each([id](Sequence& s) { s.is_cancelled |= s.id == id; });
  }

  /// Sequences without a slot for which `is_wanted(sequence)` holds, no longer waiting.
  template <class Predicate>
  [[nodiscard]] std::vector<SequencePtr> take_waiting_if(Predicate&& is_wanted) {
    std::vector<SequencePtr> taken = queue_.take_if(is_wanted);
    const auto first = std::stable_partition(preempted_.begin(), preempted_.end(),
                                             [&](const SequencePtr& s) { return !is_wanted(*s); });
    std::move(first, preempted_.end(), std::back_inserter(taken));
    preempted_.erase(first, preempted_.end());
    return taken;
  }

  /// Lets sequences in, as long as there are a slot and enough pages for the next one.
  void admit(Clock::time_point now) {
    while (!is_closed()) {
      Sequence& candidate = *next();
      if (!try_admit(candidate)) {
        blocked_ = {candidate.id, n_unclaimed()};
        return;
      }
      SequencePtr s = take_next();
      if (s->progress.started == kNotStarted) note_start(*s, now);
      running_.push_back(std::move(s));
    }
  }

  /// Whether nobody can be let in before something becomes free.
  [[nodiscard]] bool is_closed() const {
    const Sequence* s = next();
    return s == nullptr || free_slots_.empty() ||
           (s->id == blocked_.id && n_unclaimed() <= blocked_.n_unclaimed);
  }

  /// Decides how many tokens each running sequence brings to the next step, oldest first: one while decoding;
  /// while reading, what others leave of max_prefill_tokens. Gives each the pages that will be sealed, and
  /// takes them from the newest where there are no more. No step is under way.
  void plan_step() {
    const auto n_decode = static_cast<int>(
        std::ranges::count_if(running_, [](const SequencePtr& s) { return s->n_pending() == 1; }));
    int budget = prompt_share(max_prefill_tokens_, n_decode);
    for (std::size_t i = 0; i < running_.size(); ++i) {
      Sequence& s = *running_[i];
      const int pending = s.n_pending();
      s.n_step = pending == 1 ? 1 : std::min(pending, budget);
      if (pending > 1) budget -= s.n_step;
      while (!give_pages(s, s.n_cached + s.n_step)) {
        const bool is_itself = running_.back().get() == &s;
        LMD_REQUIRE(running_.size() > 1, ErrorCode::kInternal, "one sequence has too few pages");
        preempt_newest();
        if (is_itself) return;
      }
    }
  }

  /// Pages that a sequence will fill with one token behind the step that is under way.
  [[nodiscard]] static int n_pages_ahead(const Sequence& s) {
    return cache::sealed_pages(s.n_cached + s.n_step + 1) - s.pages.size();
  }

  /// Gives a sequence those. \pre they are available.
  void plan_ahead(Sequence& s) {
    LMD_REQUIRE(give_pages(s, s.n_cached + s.n_step + 1), ErrorCode::kInternal,
                "no page for a step ahead");
  }

  /// Pages that nobody holds.
  [[nodiscard]] int n_available() const { return pool_.n_free() + pool_.n_idle(); }

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

  /// Adds a token that was drawn.
  void append(Sequence& s, int token) {
    s.tokens.push_back(token);
    queue_.charge(s.request.client, 1);
  }

  /// Takes a running sequence out and frees what it held.
  SequencePtr remove(std::size_t index) {
    SequencePtr s = std::move(running_[index]);
    running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(index));
    n_claimed_ -= s->n_claimed();
    s->pages.clear(pool_);
    free_slots_.push_back(std::exchange(s->slot, -1));
    return s;
  }

 private:
  template <class F>
  void for_each(F&& f) {
    for (const SequencePtr& s : running_)
      f(*s);
    for (const SequencePtr& s : preempted_)
      f(*s);
    queue_.for_each(f);
  }

  /// Who is let in next; null where nobody waits.
  [[nodiscard]] Sequence* next() const {
    return preempted_.empty() ? queue_.next() : preempted_.front().get();
  }
  [[nodiscard]] SequencePtr take_next() {
    if (preempted_.empty()) return queue_.pop();
    SequencePtr s = std::move(preempted_.front());
    preempted_.pop_front();
    return s;
  }

  /// Pages that nobody holds nor was promised.
  [[nodiscard]] int n_unclaimed() const { return n_available() - n_claimed_; }

  bool try_admit(Sequence& s) {
    s.rope_base = kernels::dynamic_ntk_base(model_.rope.base, model_.rope.dynamic_factor,
                                            model_.max_position, model_.head_dim, s.n_prompt);
    cache::PrefixTree::Match match;
    if (has_prefix_cache_)
      match = tree_.match(s.tokens, s.rope_base, cache::reusable_pages(s.n_tokens()));
    const int promised = s.pages_for(admitted_answer_tokens_);
    const int needed = std::max(promised - static_cast<int>(match.pages.size()), 0);
    if (n_unclaimed() < needed) {
      for (const int page : match.pages)
        pool_.release(page);
      return false;
    }
    for (const int page : match.pages)
      s.pages.push_back(page);
    s.n_promised = promised;
    n_claimed_ += s.n_claimed();
    s.tree_node = match.node;
    s.n_cached = s.pages.size() * cache::kPageTokens;
    s.slot = free_slots_.back();
    free_slots_.pop_back();
    return true;
  }

  /// A client pays for what is read, once.
  void note_start(Sequence& s, Clock::time_point now) {
    s.progress.started = now;
    s.progress.n_reused = s.n_cached;
    counts_.prompt_tokens += s.n_prompt;
    counts_.reused_tokens += s.n_cached;
    queue_.charge(s.request.client, s.n_prompt - s.n_cached);
  }

  /// The newest of those that run goes before all that wait.
  void preempt_newest() {
    SequencePtr s = remove(running_.size() - 1);
    ++s->progress.n_preempted;
    ++counts_.preemptions;
    preempted_.push_front(std::move(s));
  }

  /// Makes pages for `n_tokens` tokens a sequence's own. False where there are too few.
  [[nodiscard]] bool give_pages(Sequence& s, int n_tokens) {
    while (s.pages.size() < cache::sealed_pages(n_tokens)) {
      int page = pool_.allocate();
      if (page < 0 && tree_.evict_one()) page = pool_.allocate();
      if (page < 0) return false;
      n_claimed_ -= s.n_claimed();
      s.pages.push_back(page);
      n_claimed_ += s.n_claimed();
    }
    return true;
  }

  model::ModelConfig model_;
  int max_prefill_tokens_;
  int admitted_answer_tokens_;
  bool has_prefix_cache_;
  cache::BlockPool pool_;
  cache::PrefixTree tree_;
  std::vector<int> free_slots_;
  int n_claimed_ = 0;  // pages promised to running sequences and not yet theirs
  FairQueue queue_;
  std::deque<SequencePtr> preempted_;  // as they started
  std::vector<SequencePtr> running_;   // as they started, before those
  struct {
    RequestId id = 0;
    int n_unclaimed = 0;
  } blocked_;  // who was not let in, and with how many pages
  SchedulerCounts counts_;
};

}  // namespace lmd::engine
