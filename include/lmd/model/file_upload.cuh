/// \file  Bytes of files -> device memory: threads read into one half of pinned memory while the other half
///        is on its way.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>
#include <lmd/core/pinned_buffer.cuh>
#include <lmd/core/stream.cuh>
#include <lmd/core/thread_pool.hpp>
#include <lmd/model/dtype.hpp>
#include <lmd/model/safetensors.hpp>

#include <algorithm>
#include <exception>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

namespace lmd::model {

/// Tensors that are handed in must live until `flush`. One thread calls.
///
/// Stream:  copies are queued on it in the order in which they are handed in.
/// Errors:  \throws Error(kIo), Error(kFormat) of the first piece that cannot be read, at `flush` or
///          before; whatever `progress` throws.
class FileUpload {
 public:
  /// `total_bytes` of files are going to be read.
  FileUpload(cudaStream_t stream, std::int64_t total_bytes, Progress progress)
      : stream_(stream),
        total_bytes_(total_bytes),
        progress_(std::move(progress)),
        pinned_(2 * kHalfBytes),
        pool_(std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMostThreads)) {}

  FileUpload(const FileUpload&) = delete;
  FileUpload& operator=(const FileUpload&) = delete;
  ~FileUpload() {
    // Copies out of the pinned memory may be on their way; a failure is somebody else's to report.
    (void)cudaStreamSynchronize(stream_);
  }

  /// Bytes [from, from + n) of `tensor`. Nothing is read yet.
  void add(const TensorRef& tensor, std::int64_t from, std::int64_t n, std::uint8_t* to) {
    add_pieces(n, 1, to, [&](std::int64_t at, std::int64_t size, std::uint8_t* piece) {
      reads_.push_back({&tensor, nullptr, from + at, size, piece});
    });
  }

  /// 16-bit elements of two tensors, one of each in turn: bytes [from, from + n) of either.
  void add_pairs(const TensorRef& first,
                 const TensorRef& second,
                 std::int64_t from,
                 std::int64_t n,
                 std::uint8_t* to) {
    add_pieces(2 * n, 4, to, [&](std::int64_t at, std::int64_t size, std::uint8_t* piece) {
      reads_.push_back({&first, &second, from + at / 2, size / 2, piece});
    });
  }

  /// Bytes that the host has already.
  template <class T>
  void add(std::span<const T> values, std::uint8_t* to) {
    const auto* from = reinterpret_cast<const std::uint8_t*>(values.data());
    const auto n = static_cast<std::int64_t>(values.size_bytes());
    add_pieces(n, 1, to, [&](std::int64_t at, std::int64_t size, std::uint8_t* piece) {
      std::copy_n(from + at, size, piece);
    });
  }

  /// Reads what has been handed in and queues its copies.
  void flush() {
    read_all();
    for (const Copy& copy : copies_) {
      LMD_CUDA_TRY(cudaMemcpyAsync(copy.to, copy.from, static_cast<std::size_t>(copy.n),
                                   cudaMemcpyHostToDevice, stream_));
    }
    sent_[half_].record(stream_);
    copies_.clear();
    half_ = 1 - half_;
    used_ = 0;
    // What this half held before must have left it.
    LMD_CUDA_TRY(cudaEventSynchronize(sent_[half_].get()));
  }

 private:
  /// Large enough that a flush costs nothing beside it; locking more memory takes longer than reading.
  static constexpr std::int64_t kHalfBytes = std::int64_t{32} << 20;
  static constexpr std::int64_t kPieceBytes = std::int64_t{1}
                                              << 20;  // that one thread reads at once
  static constexpr std::int64_t kAlignment = 16;
  static constexpr int kMostThreads = 8;

  struct Read {
    const TensorRef* tensor;
    const TensorRef* other;  ///< null, or of pairs the second
    std::int64_t from;
    std::int64_t n;  ///< bytes of each tensor
    std::uint8_t* to;
  };
  struct Copy {
    const std::uint8_t* from;
    std::uint8_t* to;
    std::int64_t n;
  };

  /// Calls put(at, size, where) for pieces of n bytes, each a multiple of `step` but the last, that find
  /// room in the current half, and notes the copies.
  template <class F>
  void add_pieces(std::int64_t n, std::int64_t step, std::uint8_t* to, F&& put) {
    used_ = round_up(used_, kAlignment);
    for (std::int64_t at = 0; at < n;) {
      if (kHalfBytes - used_ < step) flush();
      const std::int64_t room = (kHalfBytes - used_) / step * step;
      const std::int64_t size = std::min({n - at, room, kPieceBytes});
      std::uint8_t* const piece = pinned_.data() + half_ * kHalfBytes + used_;
      put(at, size, piece);
      note_copy(piece, to + at, size);
      used_ += size;
      at += size;
    }
  }

  void note_copy(const std::uint8_t* from, std::uint8_t* to, std::int64_t n) {
    if (!copies_.empty()) {
      Copy& last = copies_.back();
      if (last.from + last.n == from && last.to + last.n == to) {
        last.n += n;
        return;
      }
    }
    copies_.push_back({from, to, n});
  }

  void read_all() {
    std::mutex mutex;
    std::exception_ptr
        failure;  // of the first piece in order that failed, whoever was first in time
    int failed = static_cast<int>(reads_.size());
    parallel_tasks(&pool_, failed, [&](int i) {
      try {
        read(reads_[static_cast<std::size_t>(i)]);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (i < failed) failure = std::current_exception();
        failed = std::min(i, failed);
      }
    });
    if (failure) std::rethrow_exception(failure);
    for (const Read& r : reads_)
      done_bytes_ += r.other == nullptr ? r.n : 2 * r.n;
    reads_.clear();
    if (progress_) progress_(done_bytes_, total_bytes_);
  }

  static void read(const Read& r) {
    if (r.other == nullptr) {
      r.tensor->read(r.from, r.to, r.n);
      return;
    }
    std::vector<std::uint16_t> first(static_cast<std::size_t>(r.n / 2));
    std::vector<std::uint16_t> second(first.size());
    r.tensor->read(r.from, first.data(), r.n);
    r.other->read(r.from, second.data(), r.n);
    auto* pairs = reinterpret_cast<std::uint16_t*>(r.to);
    for (std::size_t i = 0; i < first.size(); ++i) {
      pairs[2 * i] = first[i];
      pairs[2 * i + 1] = second[i];
    }
  }

  cudaStream_t stream_;
  std::int64_t total_bytes_;
  std::int64_t done_bytes_ = 0;
  Progress progress_;
  PinnedBuffer<std::uint8_t> pinned_;  // two halves
  ThreadPool pool_;
  Event sent_[2];
  int half_ = 0;
  std::int64_t used_ = 0;  // bytes of the current half
  std::vector<Read> reads_;
  std::vector<Copy> copies_;
};

}  // namespace lmd::model
