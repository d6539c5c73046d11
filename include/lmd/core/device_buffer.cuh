/// \file  Owning device memory, taken and given back in stream order.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cuda.cuh>

#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

namespace lmd {

/// `size` elements on the device, undefined until written. Movable, not copyable.
///
/// Units:   size in elements; the address is a multiple of 256 bytes.
/// Stream:  usable in the order of the stream it was made on, and freed in that order.
/// Errors:  \throws Error(kCapacity) with the bytes wanted and the bytes free.
template <class T>
  requires std::is_trivially_copyable_v<T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(std::int64_t size, cudaStream_t stream = nullptr)
      : size_(size), stream_(stream) {
    LMD_REQUIRE(size >= 0 && size <= INT64_MAX / static_cast<std::int64_t>(sizeof(T)),
                ErrorCode::kCapacity, "device buffer of " + std::to_string(size) + " elements");
    if (size == 0) return;
    const cudaError_t error = cudaMallocAsync(&data_, size_bytes(), stream);
    if (error == cudaSuccess) return;
    (void)cudaGetLastError();
    std::size_t free_bytes = 0;
    std::size_t total_bytes = 0;
    (void)cudaMemGetInfo(&free_bytes, &total_bytes);
    LMD_REQUIRE(error == cudaErrorMemoryAllocation, ErrorCode::kCuda,
                std::string("cudaMallocAsync: ") + cudaGetErrorString(error));
    throw Error(ErrorCode::kCapacity, "cannot allocate " + std::to_string(size_bytes()) +
                                          " bytes on the GPU, " + std::to_string(free_bytes) +
                                          " of " + std::to_string(total_bytes) + " are free");
  }
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer() {
    // Nothing can be done about a failure here: the context is gone, and its memory with it.
    if (data_ != nullptr) (void)cudaFreeAsync(data_, stream_);
  }

  [[nodiscard]] T* data() { return data_; }
  [[nodiscard]] const T* data() const { return data_; }
  [[nodiscard]] std::int64_t size() const { return size_; }
  [[nodiscard]] std::size_t size_bytes() const {
    return static_cast<std::size_t>(size_) * sizeof(T);
  }

  /// Queues a copy of all of `from`, which is as long as this buffer. Pageable memory makes the
  /// call wait until it has been read.
  void copy_from(std::span<const T> from) {
    LMD_REQUIRE(static_cast<std::int64_t>(from.size()) == size_, ErrorCode::kInternal,
                "copy of " + std::to_string(from.size()) + " elements into a device buffer of " +
                    std::to_string(size_));
    if (size_ == 0) return;
    LMD_CUDA_TRY(cudaMemcpyAsync(data_, from.data(), size_bytes(), cudaMemcpyDefault, stream_));
  }

  /// Copies everything to `to` and waits for it.
  void copy_to(std::span<T> to) const {
    LMD_REQUIRE(static_cast<std::int64_t>(to.size()) == size_, ErrorCode::kInternal,
                "copy of a device buffer of " + std::to_string(size_) + " elements into " +
                    std::to_string(to.size()));
    if (size_ == 0) return;
    LMD_CUDA_TRY(cudaMemcpyAsync(to.data(), data_, size_bytes(), cudaMemcpyDefault, stream_));
    LMD_CUDA_TRY(cudaStreamSynchronize(stream_));
  }

  /// Queues a fill of every byte.
  void fill_bytes(int value) {
    if (size_ == 0) return;
    LMD_CUDA_TRY(cudaMemsetAsync(data_, value, size_bytes(), stream_));
  }

 private:
  void swap(DeviceBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(stream_, other.stream_);
  }

  T* data_ = nullptr;
  std::int64_t size_ = 0;
  cudaStream_t stream_ = nullptr;
};

}  // namespace lmd
