/// \file  Owning streams, events and graphs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/cuda.cuh>

#include <utility>

namespace lmd {

/// A stream that does not wait for the default stream.
class Stream {
 public:
  Stream() { LMD_CUDA_TRY(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { (void)cudaStreamDestroy(stream_); }
  [[nodiscard]] cudaStream_t get() const { return stream_; }
  /// \throws Error(kCuda) with the first failure of the queued work.
  void synchronize() const { LMD_CUDA_TRY(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event() { LMD_CUDA_TRY(cudaEventCreate(&event_)); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { (void)cudaEventDestroy(event_); }
  [[nodiscard]] cudaEvent_t get() const { return event_; }
  void record(cudaStream_t stream) { LMD_CUDA_TRY(cudaEventRecord(event_, stream)); }
  /// Waits until it has been reached.
  /// \throws Error(kCuda) with the first failure of the work in front of it.
  void synchronize() const { LMD_CUDA_TRY(cudaEventSynchronize(event_)); }
  /// Milliseconds from `start` to this event; both have been reached.
  [[nodiscard]] float ms_since(const Event& start) const {
    float ms = 0;
    LMD_CUDA_TRY(cudaEventElapsedTime(&ms, start.event_, event_));
    return ms;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Work recorded once and launched many times.
class Graph {
 public:
  Graph() = default;
  Graph(Graph&& other) noexcept : exec_(std::exchange(other.exec_, nullptr)) {}
  Graph& operator=(Graph&& other) noexcept {
    std::swap(exec_, other.exec_);
    return *this;
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() {
    if (exec_ != nullptr) (void)cudaGraphExecDestroy(exec_);
  }

  /// Records what `queue_work` queues on `stream`; nothing runs yet.
  template <class F>
  [[nodiscard]] static Graph capture(cudaStream_t stream, F&& queue_work) {
    LMD_CUDA_TRY(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    cudaGraph_t graph = nullptr;
    try {
      queue_work();
    } catch (...) {
      (void)cudaStreamEndCapture(stream, &graph);
      if (graph != nullptr) (void)cudaGraphDestroy(graph);
      throw;
    }
    LMD_CUDA_TRY(cudaStreamEndCapture(stream, &graph));
    Graph made;
    const cudaError_t error = cudaGraphInstantiate(&made.exec_, graph, 0);
    (void)cudaGraphDestroy(graph);
    LMD_CUDA_TRY(error);
    return made;
  }

  [[nodiscard]] bool is_empty() const { return exec_ == nullptr; }
  void launch(cudaStream_t stream) const { LMD_CUDA_TRY(cudaGraphLaunch(exec_, stream)); }

 private:
  cudaGraphExec_t exec_ = nullptr;
};

}  // namespace lmd
