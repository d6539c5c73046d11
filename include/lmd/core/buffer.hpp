/// \file  Owning host memory, aligned for SIMD. Buffers own, views do not.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include <sys/mman.h>

namespace lmd {

/// `size` elements that read as zero until written. Memory is taken page by page when first
/// touched, so that a large cache costs only what is used. Movable, not copyable.
///
/// Units:   size in elements.
/// Errors:  \throws Error(kCapacity) when the address space is exhausted.
template <class T>
  requires std::is_trivially_copyable_v<T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::int64_t size) : size_(size) {
    LMD_REQUIRE(size >= 0 && size <= INT64_MAX / static_cast<std::int64_t>(sizeof(T)),
                ErrorCode::kCapacity, "buffer of " + std::to_string(size) + " elements");
    if (size == 0) return;
    void* at =
        ::mmap(nullptr, size_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    LMD_REQUIRE(at != MAP_FAILED, ErrorCode::kCapacity,
                "cannot allocate " + std::to_string(size_bytes()) + " bytes");
    data_ = static_cast<T*>(at);
    // Fewer page faults while a model loads, fewer misses while it is read. A hint: failing is fine.
    if (size_bytes() >= kHugePageBytes) (void)::madvise(at, size_bytes(), MADV_HUGEPAGE);
  }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (data_ != nullptr) ::munmap(data_, size_bytes());
  }

  [[nodiscard]] T* data() { return data_; }
  [[nodiscard]] const T* data() const { return data_; }
  [[nodiscard]] std::int64_t size() const { return size_; }
  [[nodiscard]] std::size_t size_bytes() const {
    return static_cast<std::size_t>(size_) * sizeof(T);
  }
  [[nodiscard]] T& operator[](std::int64_t i) { return data_[i]; }
  [[nodiscard]] const T& operator[](std::int64_t i) const { return data_[i]; }
  [[nodiscard]] T* begin() { return data_; }
  [[nodiscard]] T* end() { return data_ + size_; }
  [[nodiscard]] const T* begin() const { return data_; }
  [[nodiscard]] const T* end() const { return data_ + size_; }

 private:
  static constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;

  T* data_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace lmd
