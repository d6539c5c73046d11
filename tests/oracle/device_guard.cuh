/// \file  Device memory with guards around it: shows writes before and behind an output.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/device_buffer.cuh>

#include <algorithm>
#include <cstring>
#include <vector>

namespace lmd::test {

/// `n` elements between two guards. All bytes begin as 0xff, a NaN of every float type and -1, so
/// that what was never written shows as well. `shift` moves the elements off 16-byte boundaries.
template <class T>
class GuardedDevice {
 public:
  explicit GuardedDevice(std::int64_t n, int shift = 0)
      : buffer_(n + 2 * kGuard), n_(n), first_(kGuard / 2 + shift) {
    buffer_.fill_bytes(0xff);
  }

  [[nodiscard]] T* data() { return buffer_.data() + first_; }

  /// Waits for all work, then returns the elements.
  [[nodiscard]] std::vector<T> fetch() {
    LMD_CUDA_TRY(cudaDeviceSynchronize());
    all_.resize(static_cast<std::size_t>(buffer_.size()));
    buffer_.copy_to(all_);
    return {all_.begin() + first_, all_.begin() + first_ + n_};
  }
  /// Of what was fetched last.
  [[nodiscard]] bool is_intact() const {
    std::vector<unsigned char> bytes(all_.size() * sizeof(T));
    std::memcpy(bytes.data(), all_.data(), bytes.size());
    const auto begin = bytes.begin() + first_ * static_cast<std::int64_t>(sizeof(T));
    const auto end = begin + n_ * static_cast<std::int64_t>(sizeof(T));
    const auto is_poison = [](unsigned char byte) { return byte == 0xff; };
    return std::all_of(bytes.begin(), begin, is_poison) && std::all_of(end, bytes.end(), is_poison);
  }

 private:
  static constexpr std::int64_t kGuard = 128;

  DeviceBuffer<T> buffer_;
  std::int64_t n_;
  std::int64_t first_;
  std::vector<T> all_;
};

/// A copy of `from` on the device, `shift` elements off a 16-byte boundary.
template <class T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& from, int shift = 0)
      : buffer_(static_cast<std::int64_t>(from.size()) + shift), shift_(shift) {
    LMD_CUDA_TRY(cudaMemcpy(data(), from.data(), from.size() * sizeof(T), cudaMemcpyDefault));
  }
  [[nodiscard]] T* data() { return buffer_.data() + shift_; }

 private:
  DeviceBuffer<T> buffer_;
  int shift_;
};

}  // namespace lmd::test
