/// \file  Rows that time linear layers: ways to compute them, shapes, numbers of tokens.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "linear_layer.cuh"

namespace lmd::bench {

/// Layers of some shapes; each exists from its first use on.
template <class P>
class LinearLayers {
 public:
  LinearLayers(std::vector<LinearShape> shapes, int max_tokens)
      : shapes_(std::move(shapes)), layers_(shapes_.size()), max_tokens_(max_tokens) {}

  [[nodiscard]] const std::vector<LinearShape>& shapes() const { return shapes_; }
  [[nodiscard]] LinearLayer<P>& at(int i) {
    if (layers_[i] == nullptr)
      layers_[i] = std::make_unique<LinearLayer<P>>(shapes_[i], max_tokens_);
    return *layers_[i];
  }

 private:
  std::vector<LinearShape> shapes_;
  std::vector<std::unique_ptr<LinearLayer<P>>> layers_;
  int max_tokens_;
};

/// A way to compute a layer: a kernel of lmd, or a dense product of decoded weights.
template <class P>
struct LinearWay {
  using Args = kernels::BasicLinearArgs<typename P::Act>;
  std::string name;
  std::function<cudaError_t(Cuda, const Args&)> linear;
  kernels::DenseGemm* dense = nullptr;  ///< instead of `linear`

  /// Queues a call. A plain one stores the product alone; of the epilogues a dense product has only
  /// the residual.
  void run(Cuda ctx, LinearLayer<P>& layer, int call, int m, bool is_plain) const {
    if (dense != nullptr) {
      kernels::DenseArgs<typename P::Act> a = layer.dense_args(call, m);
      a.accumulate &= !is_plain;
      LMD_CUDA_TRY(dense->multiply(ctx, a));
      return;
    }
    Args a = layer.args(call, m);
    if (is_plain) {
      a.epilogue = kernels::LinearEpilogue::kStore;
      a.norm_weight = nullptr;
    }
    LMD_CUDA_TRY(linear(ctx, a));
  }

  /// Checks the kernel that m tokens get; returns its relative error.
  double check(LinearLayer<P>& layer, int m) const {
    run(Cuda{}, layer, layer.copies() - 1, m, true);
    return layer.check(m);
  }

  [[nodiscard]] std::int64_t bytes(const LinearLayer<P>& layer, int m) const {
    const LinearShape& s = layer.shape();
    const std::int64_t weights =
        dense != nullptr ? std::int64_t{2} * s.n * s.k : layer.stream_bytes();
    return weights + layer.activation_bytes(m);
  }
};

/// `layers` [first, end) one after another as one call.
template <class P>
Row linear_row(const LinearWay<P>& way,
               const std::shared_ptr<LinearLayers<P>>& layers,
               int first,
               int end,
               int m) {
  constexpr int kLeastCalls = 24;
  Row row;
  row.copies = kLeastCalls;
  for (int i = first; i < end; ++i) {
    LinearLayer<P>& layer = layers->at(i);
    row.error = std::max(row.error, way.check(layer, m));
    row.bytes += way.bytes(layer, m);
    row.flops += layer.flops(m);
    if (end - first == 1) row.copies = std::max(row.copies, layer.copies());
  }
  row.queue = [=](Cuda ctx, int call) {
    for (int i = first; i < end; ++i)
      way.run(ctx, layers->at(i), call, m, false);
  };
  return row;
}

/// A row for shape i of the list.
template <class P>
void add_shape_row(const LinearWay<P>& way,
                   const std::shared_ptr<LinearLayers<P>>& layers,
                   int i,
                   int m,
                   Timing timing) {
  const std::string name = way.name + "/" + layers->shapes()[i].name + "/m:" + std::to_string(m);
  add_lazy_row(name, timing, [=] { return linear_row(way, layers, i, i + 1, m); });
}

/// A row for a whole layer: the first four shapes.
template <class P>
void add_layer_row(const LinearWay<P>& way,
                   const std::shared_ptr<LinearLayers<P>>& layers,
                   int m,
                   Timing timing) {
  add_lazy_row(way.name + "/layer/m:" + std::to_string(m), timing,
               [=] { return linear_row(way, layers, 0, 4, m); });
}

/// Rows for all shapes and for the whole layer. Up to 256 tokens calls follow each other as in the
/// engine; beyond, where clocks decide, they are timed in bursts and, the layer, at length.
template <class P>
void add_linear_rows(const LinearWay<P>& way,
                     const std::shared_ptr<LinearLayers<P>>& layers,
                     int m) {
  const Timing timing = m <= 256 ? Timing::kChained : Timing::kBurst;
  for (int i = 0; i < static_cast<int>(layers->shapes().size()); ++i)
    add_shape_row(way, layers, i, m, timing);
  add_layer_row(way, layers, m, m <= 256 ? Timing::kEdges : Timing::kSustained);
  add_layer_row(way, layers, m, timing);
}

}  // namespace lmd::bench
