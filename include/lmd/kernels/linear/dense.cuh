/// \file  Products of dense 16-bit matrices on Cuda, by cuBLASLt, which only this file knows. The library
///        is loaded when it is first used: nothing has to be linked.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/activation.hpp>
#include <lmd/core/cuda.cuh>

#include <cublasLt.h>

#include <array>
#include <concepts>
#include <cstdint>
#include <map>
#include <string>

#include <dlfcn.h>

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

/// cuBLASLt's functions. It is half a gigabyte, and most programs never multiply dense matrices.
struct CublasLt {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;

  /// \throws Error(kConfig) that names the file where it cannot be loaded. Never unloaded.
  CublasLt() {
    const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
    void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr)
      handle = dlopen(("/usr/local/cuda/lib64/" + name).c_str(), RTLD_NOW | RTLD_LOCAL);
    LMD_REQUIRE(handle != nullptr, ErrorCode::kConfig,
                name + ", a part of the CUDA toolkit, cannot be loaded: " + dlerror() +
                    "; LD_LIBRARY_PATH may say where it is");
    const auto find = [&](auto& function, const char* symbol) {
      function =
          reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, symbol));
      LMD_REQUIRE(function != nullptr, ErrorCode::kConfig, name + " has no " + symbol);
    };
    find(create, "cublasLtCreate");
    find(destroy, "cublasLtDestroy");
    find(matmul, "cublasLtMatmul");
    find(heuristic, "cublasLtMatmulAlgoGetHeuristic");
    find(desc_create, "cublasLtMatmulDescCreate");
    find(desc_destroy, "cublasLtMatmulDescDestroy");
    find(desc_set, "cublasLtMatmulDescSetAttribute");
    find(layout_create, "cublasLtMatrixLayoutCreate");
    find(layout_destroy, "cublasLtMatrixLayoutDestroy");
    find(preference_create, "cublasLtMatmulPreferenceCreate");
    find(preference_destroy, "cublasLtMatmulPreferenceDestroy");
    find(preference_set, "cublasLtMatmulPreferenceSetAttribute");
  }
};

/// Owns one of cuBLASLt's descriptions.
template <class Handle>
class DenseHandle {
 public:
  explicit DenseHandle(cublasStatus_t (*destroy)(Handle)) : destroy_(destroy) {}
  DenseHandle(const DenseHandle&) = delete;
  DenseHandle& operator=(const DenseHandle&) = delete;
  ~DenseHandle() {
    if (handle_ != nullptr) (void)destroy_(handle_);
  }
  [[nodiscard]] Handle* out() { return &handle_; }
  [[nodiscard]] Handle get() const { return handle_; }

 private:
  cublasStatus_t (*destroy_)(Handle);
  Handle handle_ = nullptr;
};

/// The largest power of two, up to 256, that an address is a multiple of.
inline std::uint32_t alignment_of(const void* p) {
  const auto bits = reinterpret_cast<std::uintptr_t>(p) | 256;
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}

/// What cuBLASLt calls matrices: rows are its columns.
struct DenseProblem {
  const CublasLt& library;
  DenseHandle<cublasLtMatmulDesc_t> product{library.desc_destroy};
  DenseHandle<cublasLtMatrixLayout_t> w{library.layout_destroy};
  DenseHandle<cublasLtMatrixLayout_t> x{library.layout_destroy};
  DenseHandle<cublasLtMatrixLayout_t> y{library.layout_destroy};

  template <Activation T>
  cublasStatus_t describe(const DenseArgs<T>& a) {
    const cudaDataType_t type = std::same_as<T, Half> ? CUDA_R_16F : CUDA_R_16BF;
    const cublasOperation_t transpose = CUBLAS_OP_T;
    const auto n = static_cast<std::uint64_t>(a.n);
    const auto m = static_cast<std::uint64_t>(a.m);
    const auto k = static_cast<std::uint64_t>(a.k);
    for (const cublasStatus_t status :
         {library.desc_create(product.out(), CUBLAS_COMPUTE_32F, CUDA_R_32F),
          library.desc_set(product.get(), CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                           sizeof transpose),
          library.layout_create(w.out(), type, k, n, a.w_stride),
          library.layout_create(x.out(), type, k, m, a.x_stride),
          library.layout_create(y.out(), type, n, m, a.y_stride)}) {
      if (status != CUBLAS_STATUS_SUCCESS) return status;
    }
    return CUBLAS_STATUS_SUCCESS;
  }
};

}  // namespace detail

/// Multiplies dense matrices with f32 sums; remembers for each shape how. One stream at a time.
///
/// Errors:  the constructor \throws Error(kCuda), or Error(kConfig) where there is no cuBLASLt.
class DenseGemm {
 public:
  /// `workspace` is device memory of `workspace_bytes` (the library asks for
  /// 32 MiB on sm_90) that lives as long as this.
  DenseGemm(void* workspace, std::int64_t workspace_bytes)
      : workspace_(workspace), workspace_bytes_(static_cast<std::size_t>(workspace_bytes)) {
    LMD_CUDA_TRY(detail::to_cuda_error(library_.create(&handle_)));
  }
  DenseGemm(const DenseGemm&) = delete;
  DenseGemm& operator=(const DenseGemm&) = delete;
  ~DenseGemm() { (void)library_.destroy(handle_); }

  /// Shapes:  as DenseArgs; strides at least the length of a row.
  /// Errors:  cudaErrorInvalidValue where the library knows no way, or the launch's.
  /// Stream:  queued on ctx.stream. The first call of a shape asks the library on the host.
  template <Activation T>
    requires(sizeof(T) == 2)
  [[nodiscard]] cudaError_t multiply(Cuda ctx, const DenseArgs<T>& a) {
    if (a.m == 0 || a.n == 0) return cudaSuccess;
    detail::DenseProblem problem{library_};
    cublasStatus_t status = problem.describe(a);
    cublasLtMatmulAlgo_t algorithm;
    if (status == CUBLAS_STATUS_SUCCESS) status = choose(a, problem, &algorithm);
    if (status != CUBLAS_STATUS_SUCCESS) return detail::to_cuda_error(status);
    const float one = 1.0f;
    const float beta = a.accumulate ? 1.0f : 0.0f;
    return detail::to_cuda_error(library_.matmul(handle_, problem.product.get(), &one, a.w,
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
    detail::DenseHandle<cublasLtMatmulPreference_t> preference{library_.preference_destroy};
    cublasStatus_t status = library_.preference_create(preference.out());
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
      if (status == CUBLAS_STATUS_SUCCESS)
        status = library_.preference_set(preference.get(), name, &value, sizeof value);
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes_);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, w);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, x);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, y);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, y);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    cublasLtMatmulHeuristicResult_t best;
    int n = 0;
    status = library_.heuristic(handle_, problem.product.get(), problem.w.get(), problem.x.get(),
                                problem.y.get(), problem.y.get(), preference.get(), 1, &best, &n);
    if (status == CUBLAS_STATUS_SUCCESS && n == 0) status = CUBLAS_STATUS_NOT_SUPPORTED;
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    *algorithm = best.algo;
    algorithms_.emplace(key, best.algo);
    return status;
  }

  detail::CublasLt library_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_;
  std::size_t workspace_bytes_;
  std::map<Key, cublasLtMatmulAlgo_t> algorithms_;
};

}  // namespace lmd::kernels
