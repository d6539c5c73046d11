/// \file  Owning host memory that the device reads and writes at full speed, without a wait.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cuda.cuh>

#include <cstdint>
#include <type_traits>
#include <utility>

namespace lmd {

/// `size` elements of page-locked host memory, undefined until written. Movable, not copyable.
///
/// Units:   size in elements; the address is a multiple of 256 bytes.
/// Errors:  \throws Error(kCapacity) with the bytes wanted.
template <class T>
  requires std::is_trivially_copyable_v<T>
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(std::int64_t size) : size_(size) {
    LMD_REQUIRE(size >= 0 && size <= INT64_MAX / static_cast<std::int64_t>(sizeof(T)),
                ErrorCode::kCapacity, "pinned buffer of " + std::to_string(size) + " elements");
    if (size == 0) return;
    const auto bytes = static_cast<std::size_t>(size) * sizeof(T);
    const cudaError_t error =
        cudaHostAlloc(reinterpret_cast<void**>(&data_), bytes, cudaHostAllocDefault);
    if (error == cudaSuccess) return;
    (void)cudaGetLastError();
    throw Error(ErrorCode::kCapacity,
                "cannot lock " + std::to_string(bytes) +
                    " bytes of host memory for the GPU: " + cudaGetErrorString(error));
  }
  PinnedBuffer(PinnedBuffer&& other) noexcept { swap(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  ~PinnedBuffer() {
    if (data_ != nullptr) (void)cudaFreeHost(data_);
  }

  [[nodiscard]] T* data() { return data_; }
  [[nodiscard]] const T* data() const { return data_; }
  [[nodiscard]] std::int64_t size() const { return size_; }

 private:
  void swap(PinnedBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

  T* data_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace lmd
