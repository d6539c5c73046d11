/// \file  The small arrays of a step, gathered in pinned memory and sent to the device in one copy.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/device_buffer.cuh>
#include <lmd/core/math.hpp>
#include <lmd/core/pinned_buffer.cuh>

#include <algorithm>
#include <span>
#include <utility>

namespace lmd::engine {

/// Where the host writes an array and where the device finds it once it is sent.
template <class T>
struct Uploaded {
  T* host = nullptr;
  T* device = nullptr;
};

/// Arrays lie one behind the other in the order in which they are added: after equal beginnings
/// they lie at equal places on the device, which recorded steps rely on. The host writes two places in
/// turn: what a step sends may be on its way while the next one is written.
class StepUpload {
 public:
  static constexpr std::int64_t kAlignment = 16;

  /// Room for `bytes`, which are enough for most steps.
  StepUpload(std::int64_t bytes, cudaStream_t stream) : stream_(stream) { make(bytes); }

  /// Begins a new step of at most `bytes`; the last but one has been finished. True when that took a new
  /// place, twice as large as the old one or more: pointers of earlier steps are no longer good.
  [[nodiscard]] bool begin(std::int64_t bytes) {
    used_ = 0;
    turn_ = 1 - turn_;
    if (bytes <= device_.size()) return false;
    LMD_CUDA_TRY(cudaStreamSynchronize(stream_));  // of what the old place is
    make(std::max(bytes, 2 * device_.size()));
    return true;
  }

  /// Bytes that `add` takes for n elements.
  template <class T>
  [[nodiscard]] static std::int64_t bytes_of(std::int64_t n) {
    return round_up<std::int64_t>(n * static_cast<std::int64_t>(sizeof(T)), kAlignment);
  }

  template <class T>
  [[nodiscard]] Uploaded<T> add(std::int64_t n) {
    const std::int64_t at = used_;
    used_ += bytes_of<T>(n);
    LMD_REQUIRE(used_ <= device_.size(), ErrorCode::kInternal,
                "an upload of " + std::to_string(used_) + " bytes, room for " +
                    std::to_string(device_.size()));
    return {reinterpret_cast<T*>(host_[turn_].data() + at),
            reinterpret_cast<T*>(device_.data() + at)};
  }

  template <class T>
  [[nodiscard]] T* add_copy(std::span<const T> from) {
    const Uploaded<T> to = add<T>(static_cast<std::int64_t>(from.size()));
    std::copy(from.begin(), from.end(), to.host);
    return to.device;
  }

  /// Queues the copy of everything that was added.
  void send() {
    LMD_CUDA_TRY(cudaMemcpyAsync(device_.data(), host_[turn_].data(),
                                 static_cast<std::size_t>(used_), cudaMemcpyHostToDevice, stream_));
  }

 private:
  void make(std::int64_t bytes) {
    // All or none: what is sent fits into all.
    PinnedBuffer<std::uint8_t> host[2] = {PinnedBuffer<std::uint8_t>(bytes),
                                          PinnedBuffer<std::uint8_t>(bytes)};
    device_ = DeviceBuffer<std::uint8_t>(bytes, stream_);
    for (int i = 0; i < 2; ++i)
      host_[i] = std::move(host[i]);
  }

  cudaStream_t stream_;
  PinnedBuffer<std::uint8_t> host_[2];
  int turn_ = 0;
  DeviceBuffer<std::uint8_t> device_;
  std::int64_t used_ = 0;
};

}  // namespace lmd::engine
