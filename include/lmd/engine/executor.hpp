/// \file  What computes the engine's steps: a decoder with its cache and a sampler, on some device.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/geometry.hpp>
#include <lmd/kernels/sample/sampler.hpp>
#include <lmd/model/config.hpp>

#include <cstdint>
#include <functional>
#include <span>

namespace lmd::engine {

/// How a token is drawn behind the last one of a step.
struct DrawRequest {
  const kernels::SamplingParams* params = nullptr;
  std::span<const int>
      tokens;            ///< of the sequence: prompt, then answer, those of the step included
  int n_prompt = 0;      ///< of these, the prompt
  bool follows = false;  ///< one more token, which is still being drawn, is of the step
  std::span<const int> banned = {};  ///< ids that may not be drawn
  /// [ceil(vocab / 32)] tokens that may be drawn, as in kernels::SamplingContext; empty: all
  std::span<const std::uint32_t> allowed = {};
  int n_logprobs = -1;  ///< -1: none; else the drawn token's and the n best
};

/// Tokens that one sequence brings to a step.
struct StepItem {
  int slot = 0;                   ///< its open page, in [0, max_batch_size)
  int position = 0;               ///< of the first token; those before are in the cache
  std::span<const int> ids = {};  ///< at least one
  int follows = -1;  ///< draw of the step in front whose token this is, instead of the one in `ids`
  double rope_base = 0.0;                       ///< base' of its RoPE
  std::span<const std::int32_t> page_ids = {};  ///< by position; pages that the step fills included
  const DrawRequest* draw = nullptr;            ///< null: nothing is drawn
};

struct Drawn {
  int token = -1;  ///< -1: the logits were not numbers
  kernels::TokenLogprobs logprobs;
};

/// Owns weights, cache and activations. Used by one thread.
class Executor {
 public:
  Executor() = default;
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;
  virtual ~Executor() = default;

  [[nodiscard]] virtual const model::ModelConfig& model() const = 0;
  [[nodiscard]] virtual cache::CacheGeometry geometry() const = 0;
  [[nodiscard]] virtual int max_rows() const = 0;  ///< tokens of a step
  /// Bytes of weights that a step of `rows` tokens reads from memory.
  [[nodiscard]] virtual std::int64_t step_weight_bytes(int rows) const = 0;

  /// Whether a step may begin while the one in front of it is under way: one whose items all follow draws
  /// of that one. Neither may have penalties or masks or list tokens, which take what the host does not
  /// know.
  [[nodiscard]] virtual bool runs_ahead() const { return false; }

  /// Has `report` called while a step of seconds gets on. Steps of a GPU are too short to need it.
  virtual void on_progress(std::function<void()> report) { (void)report; }

  /// Begins a step: the items' keys and values will be in the cache, full pages sealed. Slots are
  /// distinct. The draws, and what they point to, stay where they are until the step is finished.
  virtual void begin(std::span<const StepItem> items) = 0;

  /// Waits for the oldest step that was begun. `drawn` [its items with a draw] is filled in their order.
  virtual void finish(std::span<Drawn> drawn) = 0;

  /// After an error: no step is under way any more, and nothing is known of what slots hold.
  virtual void abandon() noexcept {}

  /// The same at once for one item without a draw, and the logits behind each of its tokens.
  ///
  /// Shapes:  logits [ids.size(), vocab_size] in host memory.
  virtual void logits(const StepItem& item, float* logits) = 0;
};

}  // namespace lmd::engine
