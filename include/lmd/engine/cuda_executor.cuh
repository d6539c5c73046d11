/// \file  Steps on the Cuda backend: decoding is one recorded graph for each size of a batch.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/stream.cuh>
#include <lmd/engine/cuda_needs.cuh>
#include <lmd/engine/draw_upload.cuh>
#include <lmd/engine/drawn_step.cuh>
#include <lmd/engine/executor.hpp>
#include <lmd/engine/memory_plan.hpp>
#include <lmd/engine/step_upload.cuh>
#include <lmd/kernels/sample/best_tokens.cuh>
#include <lmd/kernels/sample/sample.cuh>
#include <lmd/kernels/sample/sampler_cpu.hpp>
#include <lmd/model/decoder.cuh>

#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

namespace lmd::engine {

/// Sequences for which a graph is recorded: the smallest such number that is not below n.
[[nodiscard]] constexpr int decode_bucket(int n) {
  if (n <= 4) return n <= 2 ? n : 4;
  return round_up(n, n <= 64 ? 8 : 32);
}

template <Activation T>
class CudaExecutor final : public Executor {
 public:
  /// Takes `plan`'s memory on the current device, in the order of `stream`, which is that of `ctx`.
  /// With `is_batch_invariant` single tokens take the way of prompts, whose attention is not split;
  /// `ops` has to be made for it, too.
  CudaExecutor(const model::ModelConfig& config,
               model::DeviceWeights weights,
               const model::CudaOps<T>& ops,
               const MemoryPlan& plan,
               bool is_batch_invariant,
               Cuda ctx,
               std::unique_ptr<Stream> stream)
      : stream_(std::move(stream)),
        ctx_(remembering(ctx, kernels_)),
        is_batch_invariant_(is_batch_invariant),
        max_rows_(plan.max_rows),
        max_batch_(plan.max_batch_size),
        decoder_(config, std::move(weights), ops, ctx_, {plan.max_rows, plan.max_batch_size}),
        geometry_(decoder_.geometry()),
        pool_(plan.sealed_pages(), ctx.stream),
        open_((std::int64_t{plan.max_batch_size} + 1) * geometry_.open_elements(), ctx.stream),
        logits_(std::int64_t{plan.max_batch_size} * config.vocab_size, ctx.stream),
        drawn_ids_(plan.max_batch_size, ctx.stream),
        drawn_logprobs_(plan.max_batch_size, ctx.stream),
        steps_{DrawnStep(plan.max_batch_size), DrawnStep(plan.max_batch_size)},
        upload_(step_upload_bytes(
                    {plan.max_rows, plan.max_batch_size}, plan.session_len, config.vocab_size),
                ctx.stream),
        draw_upload_(plan.max_batch_size, plan.session_len, config.vocab_size, ctx.stream),
        next_positions_(static_cast<std::size_t>(plan.max_batch_size), -1) {
    open_.fill_bytes(0);  // what is masked must still be a number
    LMD_CUDA_TRY(cudaStreamSynchronize(ctx_.stream));
  }

  [[nodiscard]] const model::ModelConfig& model() const override { return decoder_.config(); }
  [[nodiscard]] cache::CacheGeometry geometry() const override { return geometry_; }
  [[nodiscard]] int max_rows() const override { return max_rows_; }
  [[nodiscard]] std::int64_t step_weight_bytes(int rows) const override {
    return decoder_.step_weight_bytes(rows);
  }

  [[nodiscard]] bool runs_ahead() const override { return true; }

  void begin(std::span<const StepItem> items) override {
    LMD_REQUIRE(n_under_way_ < 2, ErrorCode::kInternal, "two steps are under way");
    DrawnStep& step = steps_[(oldest_ + n_under_way_) % 2];
    step.draws.clear();
    draws_.clear();
    bool is_decode = true;
    for (const StepItem& item : items) {
      if (item.draw != nullptr) {
        draws_.push_back(&item);
        step.draws.push_back({item.slot, item.draw});
      }
      is_decode = is_decode && item.ids.size() == 1 && item.draw != nullptr;
    }
    step.name = {is_decode ? "decode" : "prompt", items};
    guard(step.name, [&] {
      clear_left_slots(items);
      if (is_decode) {
        decode(items);
      } else {
        forward(items);
      }
      step.take(drawn_ids_.data(), drawn_logprobs_.data(), ctx_.stream);
    });
    ++n_under_way_;
  }

  void finish(std::span<Drawn> drawn) override {
    LMD_REQUIRE(n_under_way_ > 0, ErrorCode::kInternal, "no step is under way");
    const DrawnStep& step = steps_[oldest_];
    LMD_REQUIRE(drawn.size() == step.draws.size(), ErrorCode::kInternal,
                "a step of " + std::to_string(step.draws.size()) + " draws, room for " +
                    std::to_string(drawn.size()));
    guard(step.name, [&] { step.done.synchronize(); });
    oldest_ = 1 - oldest_;
    --n_under_way_;
    for (std::size_t i = 0; i < step.draws.size(); ++i) {
      const auto& [slot, draw] = step.draws[i];
      drawn[i].token = step.ids.data()[i];
      drawn[i].logprobs.chosen = draw->n_logprobs >= 0 ? step.logprobs.data()[i] : 0.0f;
      drawn[i].logprobs.top.clear();
      if (draw->n_logprobs > 0) draw_on_host(*draw, static_cast<int>(i), drawn[i]);
      // What a sequence without an answer left in its slot is never gone on with.
      if (step.ids.data()[i] < 0) next_positions_[static_cast<std::size_t>(slot)] = -1;
    }
  }

  void abandon() noexcept override {
    n_under_way_ = 0;
    (void)cudaStreamSynchronize(ctx_.stream);
    std::ranges::fill(next_positions_, -1);
    draw_upload_.forget();
  }

  void logits(const StepItem& item, float* logits) override {
    LMD_REQUIRE(n_under_way_ == 0, ErrorCode::kInternal, "a step is under way");
    draws_.clear();
    guard({"logits", {&item, 1}}, [&] {
      clear_left_slots({&item, 1});
      const int n = static_cast<int>(item.ids.size());
      const int* rows = queue_forward({&item, 1}, n);
      const std::int64_t vocab = decoder_.config().vocab_size;
      for (int at = 0; at < n; at += max_batch_) {
        const int m = std::min(max_batch_, n - at);
        decoder_.write_logits(rows + at, m, logits_.data());
        LMD_CUDA_TRY(cudaMemcpyAsync(logits + at * vocab, logits_.data(),
                                     static_cast<std::size_t>(m * vocab) * sizeof(float),
                                     cudaMemcpyDeviceToHost, ctx_.stream));
      }
      LMD_CUDA_TRY(cudaStreamSynchronize(ctx_.stream));
    });
  }

 private:
  static Cuda remembering(Cuda ctx, PreparedKernels& kernels) {
    ctx.kernels = &kernels;
    return ctx;
  }

  /// Arrays of a step whose places a graph remembers: added first, in this order.
  struct StepArrays {
    Uploaded<kernels::SequenceChunk> decode_chunks, prefill_chunks;
    Uploaded<kernels::PrefillPage> pages;
    Uploaded<kernels::SamplingRow> sampling;
    Uploaded<double> bases;
    Uploaded<int> positions, ids, n_tokens, logit_rows;
  };

  /// How many elements these have.
  struct StepCounts {
    int rows = 0;
    int decode = 0;
    int prefill = 0;
    int pages = 0;
    int draws = 0;
    int logit_rows = 0;  ///< 0: the first `draws` rows
  };

  static constexpr const char* kHowToFindKernel =
      "; with LMD_CUDA_SYNC=1 in the environment the kernel is named";

  /// A kernel that fails while it runs does not say so itself: \throws Error(kCuda) that says which step
  /// it was. Then no step is under way.
  template <class F>
  void guard(const StepName& step, F&& run) {
    try {
      run();
    } catch (const Error& e) {
      abandon();
      if (e.code() != ErrorCode::kCuda) throw;
      throw Error(ErrorCode::kCuda, std::string("a ") + step.kind + " step of " +
                                        std::to_string(step.sequences) + " sequences, " +
                                        std::to_string(step.rows) + " tokens, " +
                                        quant::NumberFormat<T>::kName + " activations, KV scheme " +
                                        decoder_.kv_name() + ": " + e.what() +
                                        (model::waits_for_kernels() ? "" : kHowToFindKernel));
    }
  }

  /// A sequence that begins in a slot must not meet what another left in the open page: masked tokens
  /// count nothing, but 0 times what is not a number would not be 0.
  void clear_left_slots(std::span<const StepItem> items) {
    for (const StepItem& item : items) {
      int& next = next_positions_[static_cast<std::size_t>(item.slot)];
      if (item.position != next || item.position == 0) {
        const auto bytes = static_cast<std::size_t>(geometry_.open_elements()) * sizeof(Half);
        LMD_CUDA_TRY(cudaMemsetAsync(slot(item.slot), 0, bytes, ctx_.stream));
      }
      next = item.position + static_cast<int>(item.ids.size());
    }
  }

  /// The whole of a step that brings one token of each sequence and draws for all of them.
  void decode(std::span<const StepItem> items) {
    const int n = static_cast<int>(items.size());
    const int bucket = std::min(decode_bucket(n), max_batch_);
    StepCounts counts{.rows = bucket, .draws = bucket};
    (is_batch_invariant_ ? counts.prefill : counts.decode) = bucket;
    if (is_batch_invariant_) counts.pages = bucket;
    const StepArrays a = begin(counts, items);
    kernels::SequenceChunk* chunks =
        is_batch_invariant_ ? a.prefill_chunks.host : a.decode_chunks.host;
    for (int i = 0; i < bucket; ++i) {
      const StepItem& item = i < n ? items[static_cast<std::size_t>(i)] : idle_;
      put_row(a, i, item, 0);
      chunks[i] = chunk_of(item, i);
      if (is_batch_invariant_) a.pages.host[i] = {i, item.position / cache::kPageTokens};
      if (i >= n) put_idle_draw(a, i);
    }
    put_sampling(a);
    send();
    const bool is_greedy =
        std::ranges::all_of(draws_, [](const StepItem* item) { return takes_best(*item->draw); });
    const auto queue = [&] {
      decoder_.forward(device_step(a, counts));
      if (is_greedy) {
        take_best(bucket);
      } else {
        decoder_.write_logits(nullptr, bucket, logits_.data());
        sample(a, bucket);
      }
    };
    if (model::waits_for_kernels()) return queue();
    Graph& graph = graphs_[{bucket, is_greedy}];
    if (graph.is_empty()) graph = Graph::capture(ctx_.stream, queue);
    graph.launch(ctx_.stream);
  }

  /// Whether a draw is the largest logit, and nobody asks for its probability.
  [[nodiscard]] static bool takes_best(const DrawRequest& draw) {
    const kernels::SamplingParams& p = *draw.params;
    return (p.temperature == 0.0f || p.top_k == 1) && !p.has_penalties() && p.logit_bias.empty() &&
           draw.banned.empty() && draw.allowed.empty() && draw.n_logprobs < 0;
  }

  /// The same as `sample` of such draws, by keys that take the place of logits.
  void take_best(int m) {
    const int vocab = decoder_.config().vocab_size;
    auto* keys = reinterpret_cast<std::uint64_t*>(logits_.data());
    decoder_.write_best(m, keys);
    model::try_kernel(
        kernels::best_tokens(
            ctx_,
            {.ids = drawn_ids_.data(), .keys = keys, .m = m, .parts = kernels::best_parts(vocab)}),
        "best_tokens", m, vocab);
  }

  /// Any other step.
  void forward(std::span<const StepItem> items) {
    const int n = static_cast<int>(draws_.size());
    const int* rows = queue_forward(items, 0);
    if (n == 0) return;
    decoder_.write_logits(rows, n, logits_.data());
    sample(arrays_, n);
  }

  /// Queues the layers; returns the rows behind which tokens are drawn, or the first `n_logits`
  /// rows where it is not 0.
  [[nodiscard]] const int* queue_forward(std::span<const StepItem> items, int n_logits) {
    StepCounts counts{.draws = static_cast<int>(draws_.size())};
    for (const StepItem& item : items) {
      const int n = static_cast<int>(item.ids.size());
      counts.rows += n;
      if (is_single(item)) {
        ++counts.decode;
      } else {
        ++counts.prefill;
        counts.pages +=
            (item.position + n - 1) / cache::kPageTokens - item.position / cache::kPageTokens + 1;
      }
    }
    counts.logit_rows = n_logits > 0 ? n_logits : counts.draws;
    arrays_ = begin(counts, items);
    place_rows(items, counts);
    put_sampling(arrays_);
    if (n_logits > 0) std::iota(arrays_.logit_rows.host, arrays_.logit_rows.host + n_logits, 0);
    send();
    decoder_.forward(device_step(arrays_, counts));
    return arrays_.logit_rows.device;
  }

  /// Whether decode attention takes it.
  [[nodiscard]] bool is_single(const StepItem& item) const {
    return item.ids.size() == 1 && !is_batch_invariant_;
  }

  /// Rows of single tokens first, as decode attention has them, then prompts.
  void place_rows(std::span<const StepItem> items, const StepCounts& counts) {
    int decode = 0;
    int prefill = 0;
    int page = 0;
    int row = counts.decode;
    int draw = 0;
    for (const StepItem& item : items) {
      const int n = static_cast<int>(item.ids.size());
      const int first = is_single(item) ? decode : row;
      for (int i = 0; i < n; ++i)
        put_row(arrays_, first + i, item, i);
      if (is_single(item)) {
        arrays_.decode_chunks.host[decode++] = chunk_of(item, first);
      } else {
        const int last = (item.position + n - 1) / cache::kPageTokens;
        for (int p = item.position / cache::kPageTokens; p <= last; ++p)
          arrays_.pages.host[page++] = {prefill, p};
        arrays_.prefill_chunks.host[prefill++] = chunk_of(item, first);
        row += n;
      }
      if (item.draw != nullptr) arrays_.logit_rows.host[draw++] = first + n - 1;
    }
  }

  [[nodiscard]] StepArrays begin(const StepCounts& counts, std::span<const StepItem> items) {
    using kernels::PrefillPage, kernels::SamplingRow, kernels::SequenceChunk;
    const auto bytes = [](const auto& n, auto type) {
      return StepUpload::bytes_of<decltype(type)>(static_cast<std::int64_t>(n));
    };
    std::int64_t total = bytes(counts.decode + counts.prefill, SequenceChunk{}) + 16 +
                         bytes(counts.pages, PrefillPage{}) + bytes(counts.draws, SamplingRow{}) +
                         bytes(counts.rows, double{}) + 2 * bytes(counts.rows, int{}) +
                         bytes(counts.draws, int{}) + bytes(counts.logit_rows, int{});
    for (const StepItem& item : items)
      total += bytes(item.page_ids.size(), std::int32_t{});
    for (const StepItem* item : draws_)
      total += draw_upload_.bytes_of(*item);
    if (upload_.begin(total)) graphs_.clear();
    StepArrays a;
    a.decode_chunks = upload_.add<SequenceChunk>(counts.decode);
    a.sampling = upload_.add<SamplingRow>(counts.draws);
    a.bases = upload_.add<double>(counts.rows);
    a.positions = upload_.add<int>(counts.rows);
    a.ids = upload_.add<int>(counts.rows);
    a.n_tokens = upload_.add<int>(counts.draws);
    a.logit_rows = upload_.add<int>(counts.logit_rows);
    a.prefill_chunks = upload_.add<SequenceChunk>(counts.prefill);
    a.pages = upload_.add<PrefillPage>(counts.pages);
    return a;
  }

  void put_row(const StepArrays& a, int row, const StepItem& item, int i) const {
    a.ids.host[row] = item.follows >= 0 ? -1 - item.follows : item.ids[static_cast<std::size_t>(i)];
    a.positions.host[row] = item.position + i;
    a.bases.host[row] = item.rope_base;
  }

  [[nodiscard]] kernels::SequenceChunk chunk_of(const StepItem& item, int first_row) {
    return {.first_row = first_row,
            .n = static_cast<int>(item.ids.size()),
            .position = item.position,
            .open_keys = slot(item.slot),
            .open_values = slot(item.slot) + geometry_.open_values_at(0),
            .page_ids = upload_.add_copy(item.page_ids)};
  }

  [[nodiscard]] Half* slot(int i) { return open_.data() + i * geometry_.open_elements(); }

  static void put_idle_draw(const StepArrays& a, int row) {
    a.sampling.host[row] = {.temperature = 0.0f};
    a.n_tokens.host[row] = 1;
  }

  void put_sampling(const StepArrays& a) {
    int i = 0;
    draw_upload_.begin();
    for (const StepItem* item : draws_) {
      a.sampling.host[i] = draw_upload_.row(*item, upload_);
      a.n_tokens.host[i++] =
          static_cast<int>(item->draw->tokens.size()) + (item->draw->follows ? 1 : 0);
    }
    draw_upload_.add_runs(upload_);
  }

  /// Everything of the step that the host knows, to where the step reads it.
  void send() {
    upload_.send();
    model::try_kernel(draw_upload_.queue(ctx_), "copy_token_runs", static_cast<int>(draws_.size()),
                      decoder_.config().vocab_size);
  }

  [[nodiscard]] model::DeviceStep device_step(const StepArrays& a, const StepCounts& counts) {
    return {.ids = a.ids.device,
            .drawn = drawn_ids_.data(),
            .positions = a.positions.device,
            .rope_bases = a.bases.device,
            .decode_chunks = a.decode_chunks.device,
            .prefill_chunks = a.prefill_chunks.device,
            .pages = a.pages.device,
            .pool = pool_.data(),
            .rows = counts.rows,
            .n_decode = counts.decode,
            .n_prefill = counts.prefill,
            .n_pages = counts.pages};
  }

  /// Draws from the first m rows of the logits.
  void sample(const StepArrays& a, int m) {
    model::try_kernel(kernels::sample(ctx_, {.ids = drawn_ids_.data(),
                                             .logprobs = drawn_logprobs_.data(),
                                             .logits = logits_.data(),
                                             .rows = a.sampling.device,
                                             .n_tokens = a.n_tokens.device,
                                             .stride = decoder_.config().vocab_size,
                                             .m = m,
                                             .vocab = decoder_.config().vocab_size}),
                      "sample", m, decoder_.config().vocab_size);
  }

  /// Lists of the best tokens are rare: the host draws such a row, as the Cpu backend does.
  void draw_on_host(const DrawRequest& request, int row, Drawn& drawn) {
    const std::int64_t vocab = decoder_.config().vocab_size;
    host_logits_.resize(static_cast<std::size_t>(vocab));
    LMD_CUDA_TRY(cudaMemcpy(host_logits_.data(), logits_.data() + row * vocab,
                            host_logits_.size() * sizeof(float), cudaMemcpyDeviceToHost));
    for (const int id : request.banned) {
      if (id >= 0 && id < vocab)
        host_logits_[static_cast<std::size_t>(id)] = -std::numeric_limits<float>::infinity();
    }
    drawn.token = sampler_.sample(host_logits_, *request.params,
                                  {.tokens = request.tokens,
                                   .n_prompt = request.n_prompt,
                                   .allowed = request.allowed,
                                   .n_logprobs = request.n_logprobs,
                                   .logprobs = &drawn.logprobs});
  }

  std::unique_ptr<Stream> stream_;  // destroyed last: buffers are freed in its order
  PreparedKernels kernels_;
  Cuda ctx_;
  bool is_batch_invariant_;
  int max_rows_;
  int max_batch_;
  model::CudaDecoder<T> decoder_;
  cache::CacheGeometry geometry_;
  DeviceBuffer<std::uint8_t> pool_;  // [n_pages, page_bytes]
  DeviceBuffer<Half> open_;          // [max_batch_size + 1, open_elements]; the last is idle rows'
  DeviceBuffer<float> logits_;       // [max_batch_size, vocab]
  DeviceBuffer<int> drawn_ids_;      // [max_batch_size]
  DeviceBuffer<float> drawn_logprobs_;  // [max_batch_size]
  DrawnStep steps_[2];                  // in turn
  int oldest_ = 0;                      // of those under way
  int n_under_way_ = 0;
  StepUpload upload_;
  DrawUpload draw_upload_;
  StepArrays arrays_;
  /// A row of a graph that nobody uses: one token of a slot that nobody has.
  static constexpr int kIdleId = 0;
  StepItem idle_{.slot = max_batch_, .ids = std::span(&kIdleId, 1), .rope_base = 1.0};
  std::map<std::pair<int, bool>, Graph> graphs_;  // by bucket, and whether all draws are greedy
  std::vector<int> next_positions_;               // [max_batch_size] of the slots' sequences
  std::vector<const StepItem*> draws_;  // items with a draw of the step that is being queued
  std::vector<float> host_logits_;
  kernels::CpuSampler sampler_;
};

}  // namespace lmd::engine
