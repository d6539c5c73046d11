/// \file  How the tasks of a decode step are shared out: every one once, evenly. What decode refuses.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/device_buffer.cuh>
#include <lmd/kernels/attention/decode.cuh>
#include <lmd/quant/kv_formats.hpp>

#include <algorithm>
#include <random>
#include <vector>

#include "gpu.cuh"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::kernels;

namespace {

/// A plan made on the device for `positions`.
template <class P>
struct PlanCase {
  std::vector<int> positions;
  int kv_heads;
  int multiprocessors;
  int n = static_cast<int>(positions.size());
  detail::DecodeShape shape{};
  std::vector<std::int32_t> words = make();
  detail::DecodePlanView plan{words.data()};

  std::vector<std::int32_t> make() {
    std::vector<SequenceChunk> chunks;
    for (const int position : positions)
      chunks.push_back({.n = 1, .position = position});
    DeviceBuffer<SequenceChunk> device_chunks(n);
    device_chunks.copy_from(chunks);
    DeviceBuffer<std::int32_t> device_plan(decode_plan_elements(multiprocessors, n * kv_heads));
    device_plan.fill_bytes(0x7f);
    Cuda ctx = least_device();
    ctx.multiprocessors = multiprocessors;
    REQUIRE(detail::decode_shape(ctx, n * kv_heads, &shape) == cudaSuccess);
    REQUIRE(decode_plan<P>(ctx, {.plan = device_plan.data(),
                                 .chunks = device_chunks.data(),
                                 .n_chunks = n,
                                 .kv_heads = kv_heads}) == cudaSuccess);
    std::vector<std::int32_t> found(device_plan.size());
    device_plan.copy_to(found);
    return found;
  }

  /// Tasks of a pair: pages are of kParts tasks, open pages of one for 16 tokens.
  [[nodiscard]] int tasks_of(int b) const {
    return positions[b] / 64 * detail::DecodeTask<P>::kParts + positions[b] % 64 / 16 + 1;
  }

  /// Jobs in the order of pairs and pieces, every task once; partial places and blocks of clusters that
  /// no two pieces have.
  void check() const {
    const int jobs = plan.jobs();
    REQUIRE(jobs > 0);
    REQUIRE(detail::DecodePlanView::kHeadWords + jobs * detail::DecodePlanView::kJobWords <=
            static_cast<std::int64_t>(words.size()));
    int wrong = 0;
    int i = 0;
    int partials = 0;
    for (int b = 0; b < n; ++b) {
      for (int kvh = 0; kvh < kv_heads; ++kvh) {
        const int pieces = plan.job(i).pieces;
        const bool is_cluster = plan.job(i).partial < 0;
        int next = 0;
        wrong += pieces < 1;
        wrong += is_cluster && (pieces > shape.cluster || i % shape.cluster != 0);
        for (int piece = 0; piece < pieces; ++piece, ++i) {
          REQUIRE(i < jobs);
          const detail::DecodeJob& job = plan.job(i);
          wrong += job.b != b || job.kvh != kvh || job.position != positions[b];
          wrong += job.first != next || job.tasks < 1 || job.piece != piece;
          wrong += job.pieces != pieces || (job.partial < 0) != is_cluster;
          if (!is_cluster && pieces > 1) wrong += job.partial + piece != partials++;
          next += job.tasks;
        }
        wrong += next != tasks_of(b);
        for (; is_cluster && i % shape.cluster != 0; ++i)
          wrong += plan.job(i).tasks != 0;
      }
    }
    wrong += i != jobs;
    for (; i < shape.blocks; ++i)
      wrong += plan.job(i).tasks != 0;
    CHECK(wrong == 0);
    CHECK(partials <= detail::most_decode_parts(multiprocessors));
  }

  [[nodiscard]] int most_of_a_job() const {
    int most = 0;
    for (int i = 0; i < plan.jobs(); ++i)
      most = std::max(most, plan.job(i).tasks);
    return most;
  }
};

}  // namespace

TEST_CASE("a decode plan has every task once, in order") {
  if (!has_gpu()) return;
  std::mt19937 rng(5);
  for (const int n : {1, 2, 3, 8, 16, 17, 31, 33, 64, 132, 133, 511, 1023, 1024}) {
    for (const int kv_heads : {1, 3, 8}) {
      for (const int most : {1, 70, 1100, 9001}) {
        std::uniform_int_distribution<int> position(0, most - 1);
        std::vector<int> positions(n);
        for (int& p : positions)
          p = position(rng);
        for (const int multiprocessors : {1, 7, 64, gpu_multiprocessors()}) {
          CAPTURE(n);
          CAPTURE(kv_heads);
          CAPTURE(most);
          CAPTURE(multiprocessors);
          PlanCase<FragmentKvPolicy<quant::Kv16, 128>>{positions, kv_heads, multiprocessors}
              .check();
          PlanCase<FragmentKvPolicy<quant::Kv4, 128>>{positions, kv_heads, multiprocessors}.check();
        }
      }
    }
  }
}

TEST_CASE("a decode plan shares long sequences out") {
  if (!has_gpu()) return;
  using P = FragmentKvPolicy<quant::Kv16, 128>;
  std::mt19937 rng(1);
  std::lognormal_distribution<double> length(7.0, 1.0);
  std::vector<int> ragged(64);
  for (int& n : ragged)
    n = 1 + static_cast<int>(length(rng));
  // From far too few for all blocks to as many as fit: no job is twice the mean of a block.
  for (const std::vector<int>& positions :
       {std::vector<int>{65536}, std::vector<int>{30000, 20, 500}, std::vector<int>(16, 4096),
        ragged}) {
    const PlanCase<P> plan{positions, 8, gpu_multiprocessors()};
    int total = 0;
    for (int b = 0; b < plan.n; ++b)
      total += plan.tasks_of(b) * 8;
    CAPTURE(positions.size());
    CHECK(plan.most_of_a_job() < 2 * total / plan.shape.blocks + plan.shape.warps);
  }
  // Equal sequences that do fit are not cut: nothing has to be put together.
  const PlanCase<P> whole{std::vector<int>(64, 1056), 8, 132};
  CHECK(whole.plan.jobs() == 64 * 8);
}

TEST_CASE("decode of no sequences asks no device") {
  using P = FragmentKvPolicy<quant::Kv4, 128>;
  CHECK(decode_plan<P>(Cuda{}, {.n_chunks = 0, .kv_heads = 2}) == cudaSuccess);
  DecodeStepArgs<Half> args;
  args.step = {.n_chunks = 0, .heads = 8, .kv_heads = 2};
  CHECK(decode_step<P>(Cuda{}, args) == cudaSuccess);
}

TEST_CASE("decode refuses shapes that it does not have") {
  using P = FragmentKvPolicy<quant::Kv4, 128>;
  for (const int n : {-1, detail::kMaxDecodeBatch + 1})
    CHECK(decode_plan<P>(Cuda{}, {.n_chunks = n, .kv_heads = 2}) == cudaErrorInvalidValue);
  CHECK(decode_plan<P>(Cuda{}, {.n_chunks = 1, .kv_heads = 0}) == cudaErrorInvalidValue);
  DecodeStepArgs<Half> args;
  args.step = {.n_chunks = 1, .heads = 9, .kv_heads = 1};
  CHECK(decode_step<P>(Cuda{}, args) == cudaErrorInvalidValue);
  args.step = {.n_chunks = 1, .heads = 3, .kv_heads = 2};
  CHECK(decode_step<P>(Cuda{}, args) == cudaErrorInvalidValue);
}
