/// \file  Execution contexts: the first argument of every operation says where it runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace lmd {

class TaskRunner;

/// Readable reference backend, and the oracle of every other one. Runs on the calling thread.
struct Host {
  using Result = void;
};

/// SIMD on the pool's threads (null: the calling thread). Each operation has one function per
/// instruction set; which one runs is decided once, at load, so no build flag is needed.
struct Cpu {
  using Result = void;
  TaskRunner* pool = nullptr;
};

}  // namespace lmd
