/// \file  Sequences for tests of the attention step: inputs by seed, a cache, runs in any chunking.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/buffer.hpp>
#include <lmd/kernels/attention/step.hpp>
#include <lmd/quant/kv_formats.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include <cases/random.hpp>

namespace lmd::test {

struct StepShape {
  int tokens = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;

  [[nodiscard]] int qkv_width() const { return (heads + 2 * kv_heads) * head_dim; }
  [[nodiscard]] int out_width() const { return heads * head_dim; }
};

enum class Rotation {
  kNone,    ///< positions do not turn anything
  kPowers,  ///< cosines and sines are powers of two: no product is rounded, so backends can be
            ///< compared bit by bit whether they have fma or not
};

/// Inputs of one sequence.
struct StepInput {
  StepShape shape;
  std::vector<float> qkv;       ///< [tokens, (heads + 2 kv_heads) head_dim]
  std::vector<float> rotation;  ///< [tokens, head_dim]

  StepInput(const StepShape& s, std::uint64_t seed, Rotation kind)
      : shape(s),
        qkv(random_floats(std::int64_t{s.tokens} * s.qkv_width(), seed)),
        rotation(static_cast<std::size_t>(s.tokens) * s.head_dim) {
    Random random(seed + 1000);
    for (std::size_t i = 0; i < rotation.size(); ++i) {
      const bool is_cosine = static_cast<int>(i) % s.head_dim < s.head_dim / 2;
      const float power = std::ldexp(random.below(2) == 0 ? 1.0f : -1.0f, -random.below(4));
      rotation[i] = kind == Rotation::kPowers ? power : is_cosine ? 1.0f : 0.0f;
    }
  }
};

/// Mean square of the differences over the mean square of `b`.
inline double nmse(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0.0;
  double power = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = double{a[i]} - double{b[i]};
    error += difference * difference;
    power += double{b[i]} * double{b[i]};
  }
  return error / power;
}

/// What a run leaves.
template <class U>
struct StepResult {
  std::vector<float> out;           ///< [tokens, heads, head_dim]
  std::vector<std::uint8_t> units;  ///< [full pages, kv_heads, U::kBytes], by position
  std::vector<Half> open_keys;      ///< [kv_heads, head_dim, tokens % 64]
  std::vector<Half> open_values;    ///< [kv_heads, tokens % 64, head_dim]
};

template <class T>
bool equal_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return std::ranges::equal(std::as_bytes(std::span(a)), std::as_bytes(std::span(b)));
}

template <class U>
bool equal_bytes(const StepResult<U>& a, const StepResult<U>& b) {
  return equal_bytes(a.out, b.out) && equal_bytes(a.units, b.units) &&
         equal_bytes(a.open_keys, b.open_keys) && equal_bytes(a.open_values, b.open_values);
}

/// Sequences that advance together: in step i each of them by its chunk of `schedule[i]`, cut at
/// its end. `step` is called with the arguments of one step.
template <class U, class Step>
std::vector<StepResult<U>> run_steps(const std::vector<const StepInput*>& inputs,
                                     const std::vector<int>& schedule,
                                     Step&& step) {
  constexpr int kDim = U::kHeadDim;
  const StepShape& first = inputs[0]->shape;
  const int n_sequences = static_cast<int>(inputs.size());
  const std::int64_t page_halves = std::int64_t{first.kv_heads} * cache::kPageTokens * kDim;
  const std::int64_t page_bytes = std::int64_t{first.kv_heads} * U::kBytes + 384;
  int n_pages = 0;
  std::vector<std::vector<std::int32_t>> page_ids;
  for (const StepInput* input : inputs)
    n_pages += input->shape.tokens / cache::kPageTokens;
  int next_page = n_pages;
  for (const StepInput* input : inputs) {  // pages lie backwards
    page_ids.emplace_back();
    for (int i = 0; i < input->shape.tokens / cache::kPageTokens; ++i)
      page_ids.back().push_back(--next_page);
  }
  Buffer<std::uint8_t> pool(n_pages * page_bytes);
  std::vector<Buffer<Half>> keys(n_sequences), values(n_sequences);
  for (int s = 0; s < n_sequences; ++s) {
    keys[s] = Buffer<Half>(page_halves);
    values[s] = Buffer<Half>(page_halves);
    std::fill(keys[s].begin(), keys[s].end(), Half{0x7e00});  // NaN where nothing was appended
    std::fill(values[s].begin(), values[s].end(), Half{0x7c00});
  }
  std::vector<StepResult<U>> results(n_sequences);
  std::vector<int> done(n_sequences, 0);
  for (int s = 0; s < n_sequences; ++s)
    results[s].out.resize(static_cast<std::size_t>(inputs[s]->shape.tokens) * first.out_width());
  for (int chunk_tokens : schedule) {
    std::vector<kernels::SequenceChunk> chunks;
    std::vector<float> qkv, rotation;
    int rows = 0;
    for (int s = 0; s < n_sequences; ++s) {
      const StepInput& in = *inputs[s];
      const int n = std::min(chunk_tokens, in.shape.tokens - done[s]);
      chunks.push_back({rows, n, done[s], keys[s].data(), values[s].data(), page_ids[s].data()});
      qkv.insert(qkv.end(), in.qkv.begin() + done[s] * first.qkv_width(),
                 in.qkv.begin() + (done[s] + n) * first.qkv_width());
      rotation.insert(rotation.end(), in.rotation.begin() + done[s] * kDim,
                      in.rotation.begin() + (done[s] + n) * kDim);
      rows += n;
    }
    std::vector<float> out(static_cast<std::size_t>(rows) * first.out_width(), -1e30f);
    step(kernels::AttentionStepArgs{.out = out.data(),
                                    .qkv = qkv.data(),
                                    .rotation = rotation.data(),
                                    .chunks = chunks.data(),
                                    .pool = pool.data(),
                                    .page_bytes = page_bytes,
                                    .n_chunks = n_sequences,
                                    .heads = first.heads,
                                    .kv_heads = first.kv_heads});
    for (int s = 0; s < n_sequences; ++s) {
      std::copy_n(out.begin() + chunks[s].first_row * first.out_width(),
                  chunks[s].n * first.out_width(),
                  results[s].out.begin() + done[s] * first.out_width());
      done[s] += chunks[s].n;
    }
  }
  for (int s = 0; s < n_sequences; ++s) {
    for (std::int32_t id : page_ids[s]) {
      const std::uint8_t* at = pool.data() + id * page_bytes;
      results[s].units.insert(results[s].units.end(), at, at + first.kv_heads * U::kBytes);
    }
    const int open = inputs[s]->shape.tokens % cache::kPageTokens;
    for (int row = 0; row < first.kv_heads * kDim; ++row) {
      const Half* at = keys[s].data() + row * cache::kPageTokens;
      results[s].open_keys.insert(results[s].open_keys.end(), at, at + open);
    }
    for (int kvh = 0; kvh < first.kv_heads; ++kvh) {
      const Half* at = values[s].data() + kvh * cache::kPageTokens * kDim;
      results[s].open_values.insert(results[s].open_values.end(), at, at + open * kDim);
    }
  }
  return results;
}

/// Chunks of `n` tokens until `tokens` are done.
inline std::vector<int> chunks_of(int n, int tokens) {
  return std::vector<int>(static_cast<std::size_t>((tokens + n - 1) / n), n);
}

}  // namespace lmd::test
