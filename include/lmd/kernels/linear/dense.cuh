/// \file  Products of dense 16-bit matrices on Cuda, by cuBLASLt, which only this file knows.
///        Programs that use it link -lcublasLt.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>
#include <lmd/core/cuda.cuh>

#include <cublasLt.h>

#include <array>
#include <concepts>
#include <cstdint>
#include <map>

namespace lmd::kernels {

/// y = x w^T, or y += x w^T.
template <Activation T>
struct DenseArgs {
  T* y = nullptr;        ///< [m, n], rows y_stride apart
  const T* x = nullptr;  ///< [m, k], rows x_stride apart
  const T* w = nullptr;  ///< [n, k], rows w_stride apart
  int m = 0;
  int n = 0;
  int k = 0;
  std::int64_t x_stride = 0;
  std::int64_t y_stride = 0;
  std::int64_t w_stride = 0;
  bool accumulate = false;
};

namespace detail {

inline cudaError_t to_cuda_error(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return cudaSuccess;
    case CUBLAS_STATUS_ALLOC_FAILED:
      return cudaErrorMemoryAllocation;
    case CUBLAS_STATUS_INVALID_VALUE:
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return cudaErrorInvalidValue;
    default:
      return cudaErrorUnknown;
  }
}

/// Owns one of cuBLASLt's descriptions.
template <class Handle, cublasStatus_t (*Destroy)(Handle)>
class DenseHandle {
 public:
  DenseHandle() = default;
  DenseHandle(const DenseHandle&) = delete;
  DenseHandle& operator=(const DenseHandle&) = delete;
  ~DenseHandle() {
    if (handle_ != nullptr) (void)Destroy(handle_);
  }
  [[nodiscard]] Handle* out() { return &handle_; }
  [[nodiscard]] Handle get() const { return handle_; }

 private:
  Handle handle_ = nullptr;
};

using DenseLayout = DenseHandle<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;

/// The largest power of two, up to 256, that an address is a multiple of.
inline std::uint32_t alignment_of(const void* p) {
  const auto bits = reinterpret_cast<std::uintptr_t>(p) | 256;
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}

/// What cuBLASLt calls matrices: rows are its columns.
struct DenseProblem {
  DenseHandle<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> product;
  DenseLayout w, x, y;

  template <Activation T>
  cublasStatus_t describe(const DenseArgs<T>& a) {
    const cudaDataType_t type = std::same_as<T, Half> ? CUDA_R_16F : CUDA_R_16BF;
    const cublasOperation_t transpose = CUBLAS_OP_T;
    const auto n = static_cast<std::uint64_t>(a.n);
    const auto m = static_cast<std::uint64_t>(a.m);
    const auto k = static_cast<std::uint64_t>(a.k);
    for (const cublasStatus_t status :
         {cublasLtMatmulDescCreate(product.out(), CUBLAS_COMPUTE_32F, CUDA_R_32F),
          cublasLtMatmulDescSetAttribute(product.get(), CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                         sizeof transpose),
          cublasLtMatrixLayoutCreate(w.out(), type, k, n, a.w_stride),
          cublasLtMatrixLayoutCreate(x.out(), type, k, m, a.x_stride),
          cublasLtMatrixLayoutCreate(y.out(), type, n, m, a.y_stride)}) {
      if (status != CUBLAS_STATUS_SUCCESS) return status;
    }
    return CUBLAS_STATUS_SUCCESS;
  }
};

}  // namespace detail

/// Multiplies dense matrices with f32 sums; remembers for each shape how. One stream at a time.
///
/// Errors:  the constructor \throws Error(kCuda).
class DenseGemm {
 public:
  /// `workspace` is device memory of `workspace_bytes` (the library asks for
  /// 32 MiB on sm_90) that lives as long as this.
  DenseGemm(void* workspace, std::int64_t workspace_bytes)
      : workspace_(workspace), workspace_bytes_(static_cast<std::size_t>(workspace_bytes)) {
    LMD_CUDA_TRY(detail::to_cuda_error(cublasLtCreate(&handle_)));
  }
  DenseGemm(const DenseGemm&) = delete;
  DenseGemm& operator=(const DenseGemm&) = delete;
  ~DenseGemm() { (void)cublasLtDestroy(handle_); }

  /// Shapes:  as DenseArgs; strides at least the length of a row.
  /// Errors:  cudaErrorInvalidValue where the library knows no way, or the launch's.
  /// Stream:  queued on ctx.stream. The first call of a shape asks the library on the host.
  template <Activation T>
    requires(sizeof(T) == 2)
  [[nodiscard]] cudaError_t multiply(Cuda ctx, const DenseArgs<T>& a) {
    if (a.m == 0 || a.n == 0) return cudaSuccess;
    detail::DenseProblem problem;
    cublasStatus_t status = problem.describe(a);
    cublasLtMatmulAlgo_t algorithm;
    if (status == CUBLAS_STATUS_SUCCESS) status = choose(a, problem, &algorithm);
    if (status != CUBLAS_STATUS_SUCCESS) return detail::to_cuda_error(status);
    const float one = 1.0f;
    const float beta = a.accumulate ? 1.0f : 0.0f;
    return detail::to_cuda_error(cublasLtMatmul(handle_, problem.product.get(), &one, a.w,
                                                problem.w.get(), a.x, problem.x.get(), &beta, a.y,
                                                problem.y.get(), a.y, problem.y.get(), &algorithm,
                                                workspace_, workspace_bytes_, ctx.stream));
  }

 private:
  using Key = std::array<std::int64_t, 11>;

  template <Activation T>
  cublasStatus_t choose(const DenseArgs<T>& a,
                        const detail::DenseProblem& problem,
                        cublasLtMatmulAlgo_t* algorithm) {
    const std::uint32_t w = detail::alignment_of(a.w);
    const std::uint32_t x = detail::alignment_of(a.x);
    const std::uint32_t y = detail::alignment_of(a.y);
    const Key key = {a.m, a.n, a.k, a.x_stride,   a.y_stride,           a.w_stride,
                     w,   x,   y,   a.accumulate, std::same_as<T, Half>};
    if (const auto found = algorithms_.find(key); found != algorithms_.end()) {
      *algorithm = found->second;
      return CUBLAS_STATUS_SUCCESS;
    }
    detail::DenseHandle<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy> preference;
    cublasStatus_t status = cublasLtMatmulPreferenceCreate(preference.out());
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
      if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulPreferenceSetAttribute(preference.get(), name, &value, sizeof value);
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes_);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, w);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, x);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, y);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, y);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    cublasLtMatmulHeuristicResult_t best;
    int n = 0;
    status = cublasLtMatmulAlgoGetHeuristic(handle_, problem.product.get(), problem.w.get(),
                                            problem.x.get(), problem.y.get(), problem.y.get(),
                                            preference.get(), 1, &best, &n);
    if (status == CUBLAS_STATUS_SUCCESS && n == 0) status = CUBLAS_STATUS_NOT_SUPPORTED;
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    *algorithm = best.algo;
    algorithms_.emplace(key, best.algo);
    return status;
  }

  cublasLtHandle_t handle_ = nullptr;
  void* workspace_;
  std::size_t workspace_bytes_;
  std::map<Key, cublasLtMatmulAlgo_t> algorithms_;
};

}  // namespace lmd::kernels
