/// \file  lmd in the memory of another program: every view lies in one block that your allocator hands
///        out, every kernel is queued on your stream. lmd allocates nothing and waits for nothing.
///
///     nvcc -std=c++20 -arch=sm_90a -I include main.cu -o own_memory
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/cuda.cuh>
#include <lmd/kernels/elementwise/silu_mul.cuh>
#include <lmd/kernels/norm/rms_norm.cuh>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace {

using namespace lmd;

constexpr int kRows = 5, kInner = 1000;  // of an MLP: gate and up of kInner each
constexpr int kWide = 2 * kInner;
constexpr unsigned char kGuard = 0xA5;

/// Your allocator: pieces of one block of device memory, guard bytes before and after each.
class Arena {
 public:
  explicit Arena(std::size_t bytes, cudaStream_t stream) : stream_(stream), is_guard_(bytes, true) {
    LMD_CUDA_TRY(cudaMalloc(&block_, bytes));
    LMD_CUDA_TRY(cudaMemsetAsync(block_, kGuard, bytes, stream_));
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { (void)cudaFree(block_); }

  /// Room for `n` elements, 16-byte aligned as kernels like it best.
  template <class T>
  T* take(std::size_t n) {
    used_ = (used_ + kGuardBytes + 15) / 16 * 16;
    std::fill_n(is_guard_.begin() + static_cast<std::ptrdiff_t>(used_), n * sizeof(T), false);
    T* const piece = reinterpret_cast<T*>(block_ + used_);
    used_ += n * sizeof(T);
    LMD_REQUIRE(used_ + kGuardBytes <= is_guard_.size(), ErrorCode::kCapacity, "the arena is full");
    return piece;
  }
  template <class T>
  T* take(const std::vector<T>& from) {
    T* const piece = take<T>(from.size());
    LMD_CUDA_TRY(
        cudaMemcpyAsync(piece, from.data(), from.size() * sizeof(T), cudaMemcpyDefault, stream_));
    return piece;
  }
  /// Waits for the stream.
  [[nodiscard]] bool guards_are_intact() const {
    std::vector<unsigned char> bytes(is_guard_.size());
    LMD_CUDA_TRY(cudaMemcpyAsync(bytes.data(), block_, bytes.size(), cudaMemcpyDefault, stream_));
    LMD_CUDA_TRY(cudaStreamSynchronize(stream_));
    for (std::size_t i = 0; i < bytes.size(); ++i)
      if (is_guard_[i] && bytes[i] != kGuard) return false;
    return true;
  }

 private:
  static constexpr std::size_t kGuardBytes = 64;
  cudaStream_t stream_;
  std::vector<bool> is_guard_;
  unsigned char* block_ = nullptr;
  std::size_t used_ = 0;
};

}  // namespace

int main() try {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no GPU\n");
    return 0;
  }
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<Half> x(std::size_t{kRows} * kWide), normed(x.size()), gated(x.size() / 2);
  std::ranges::generate(x, [&] { return to_half(normal(random)); });
  std::vector<float> gains(kWide);
  std::ranges::generate(gains, [&] { return 1.0f + 0.1f * normal(random); });

  cudaStream_t stream = nullptr;
  LMD_CUDA_TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  Arena arena(1 << 20, stream);
  Half* const device_x = arena.take(x);
  const float* const device_gains = arena.take(gains);
  Half* const device_normed = arena.take<Half>(normed.size());
  Half* const device_gated = arena.take<Half>(gated.size());
  // A backend is a stream; arguments are addresses and sizes. A launcher returns the launch's status.
  const Cuda yours{.stream = stream};
  LMD_CUDA_TRY(kernels::rms_norm<Half>(
      yours, {device_normed, device_x, nullptr, device_gains, 1e-5f, kRows, kWide}));
  LMD_CUDA_TRY(kernels::silu_mul<Half>(yours, {device_gated, device_normed, kRows, kInner}));
  std::vector<Half> found(gated.size());
  LMD_CUDA_TRY(cudaMemcpyAsync(found.data(), device_gated, found.size() * sizeof(Half),
                               cudaMemcpyDefault, stream));
  const bool is_intact = arena.guards_are_intact();

  kernels::rms_norm<Half>(Host{},
                          {normed.data(), x.data(), nullptr, gains.data(), 1e-5f, kRows, kWide});
  kernels::silu_mul<Half>(Host{}, {gated.data(), normed.data(), kRows, kInner});
  bool is_equal = true;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const float gate = to_float(normed[i / kInner * kWide + i % kInner]);
    const float expected = to_float(gated[i]);
    // The last bit of gate, up and output; gate's counts |gate| times more for a negative one.
    const float bound = (3.0f + std::fabs(gate)) * 0x1p-10f * std::fabs(expected) + 0x1p-24f;
    is_equal &= std::fabs(to_float(found[i]) - expected) <= bound;
  }
  std::printf("guards %s, output %s\n", is_intact ? "intact" : "OVERWRITTEN",
              is_equal ? "equal" : "DIFFERS");
  return is_intact && is_equal ? 0 : 1;
} catch (const lmd::Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
