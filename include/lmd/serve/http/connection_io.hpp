/// \file  A connection's bytes, and the one thing that its coroutine waits for.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/http/byte_stream.hpp>
#include <lmd/serve/http/server_core.hpp>

#include <memory>
#include <new>
#include <string>
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace lmd::serve {

/// The coroutine of a connection waits for one thing only: that something happened. Reads, writes, workers
/// and the engine wake it; it then looks at what is there. So a client that leaves is noticed whatever is
/// being waited for, and no operation has to be cancelled to get on.
///
/// Every co_await is a statement of its own: in conditions GCC 12 compiles some of them to an illegal
/// instruction.
class ConnectionIo : public ByteStreamUser, public std::enable_shared_from_this<ConnectionIo> {
 public:
  ConnectionIo(ServerCore& core, std::unique_ptr<ByteStream> stream, std::string peer)
      : core_(core), peer_(std::move(peer)), stream_(std::move(stream)), signal_(core.io) {
    ++core_.n_connections;
  }
  ConnectionIo(const ConnectionIo&) = delete;
  ConnectionIo& operator=(const ConnectionIo&) = delete;
  ~ConnectionIo() override { --core_.n_connections; }

  void wake() {
    is_woken_ = true;
    (void)signal_.cancel();
  }

  /// Ends it at once, whatever it does.
  void close() {
    is_closed_ = true;
    stream_->close();
    wake();
  }

  void on_opened(error_code error) override {
    is_open_ = !error;
    is_closed_ |= static_cast<bool>(error);
    wake();
  }
  void on_read(error_code error, std::size_t n_bytes) override {
    is_reading_ = false;
    if (error) has_left_ = true;
    try {
      unparsed_.append(incoming_.data(), n_bytes);
    } catch (const std::bad_alloc&) {
      return close();
    }
    wake();
  }
  void on_written(error_code error) override {
    is_writing_ = false;
    writing_.clear();
    if (error) is_closed_ = true;
    wake();
  }

 protected:
  static constexpr std::size_t kSmallRead = 2048;
  static constexpr std::size_t kLargeRead = 65536;
  static constexpr std::size_t kMaxWrite = 262144;  ///< has a deadline of its own
  static constexpr std::size_t kMaxAhead = 16384;   ///< bytes of later requests that are kept
  static constexpr std::chrono::hours kLong{1};     ///< a wait that has no deadline

  /// Waits until something happened. False: the deadline came first.
  asio::awaitable<bool> wait(Clock::time_point deadline) {
    if (!is_woken_) {
      signal_.expires_at(deadline);
      (void)co_await signal_.async_wait(asio::as_tuple(asio::use_awaitable));
    }
    co_return std::exchange(is_woken_, false);
  }

  [[nodiscard]] bool is_gone() const { return is_closed_ || has_left_; }

  asio::awaitable<bool> open() {
    stream_->open(shared_from_this());
    const auto deadline = Clock::now() + core_.options.limits.header_time;
    while (!is_open_ && !is_closed_) {
      const bool is_in_time = co_await wait(deadline);
      if (!is_in_time) co_return false;
    }
    co_return is_open_ && !is_closed_;
  }

  void read_some(std::size_t n_bytes) {
    if (is_reading_ || is_gone()) return;
    is_reading_ = true;
    if (incoming_.capacity() > 2 * n_bytes) incoming_ = {};  // a large read is over
    incoming_.resize(n_bytes);
    stream_->read_some(asio::buffer(incoming_), shared_from_this());
  }

  /// Keeps a read under way, so that a client that leaves is noticed.
  void watch() {
    if (unparsed_.size() < kMaxAhead) read_some(kSmallRead);
  }

  /// Begins to write what is pending.
  void write_pending() {
    if (is_writing_ || is_closed_ || pending_.empty()) return;
    is_writing_ = true;
    if (pending_.size() - n_taken_ > kMaxWrite) {
      writing_ = pending_.substr(n_taken_, kMaxWrite);
      n_taken_ += kMaxWrite;
    } else {
      if (n_taken_ > 0) pending_.erase(0, std::exchange(n_taken_, 0));
      std::swap(writing_, pending_);
    }
    write_deadline_ = Clock::now() + core_.options.limits.write_time;
    stream_->write(asio::buffer(writing_), shared_from_this());
  }

  /// Waits until everything pending is written. False: it cannot be.
  asio::awaitable<bool> flush() {
    write_pending();
    while (is_writing_ && !is_closed_) {
      const bool is_in_time = co_await wait(write_deadline_);
      if (!is_in_time) close();
      write_pending();
    }
    co_return !is_closed_;
  }

  /// Takes what the client is still sending for a moment: closing at once would reset the connection, and
  /// the client might never see the response.
  asio::awaitable<void> linger() {
    if (is_gone()) co_return;
    stream_->end_writing(shared_from_this());
    const auto deadline = Clock::now() + kLinger;
    std::size_t n = 0;
    while (!is_gone() && n < kMaxLingerBytes) {
      n += std::exchange(unparsed_, {}).size();
      read_some(kLargeRead);
      const bool is_in_time = co_await wait(deadline);
      if (!is_in_time) co_return;
    }
  }

  ServerCore& core_;
  const std::string peer_;   // the client's address
  std::string unparsed_;     // what came and nobody has looked at
  std::string pending_;      // what is to be written
  bool is_writing_ = false;  // and what was pending is on its way
  Clock::time_point write_deadline_{};

 private:
  static constexpr std::chrono::milliseconds kLinger{1000};
  static constexpr std::size_t kMaxLingerBytes = std::size_t{1} << 20;

  std::unique_ptr<ByteStream> stream_;
  asio::steady_timer signal_;
  bool is_woken_ = false;
  bool is_open_ = false;
  bool is_closed_ = false;  // by this side, or it cannot be written any more
  bool has_left_ = false;   // the client has ended its side
  bool is_reading_ = false;
  std::string incoming_;     // of the read under way
  std::string writing_;      // of the write under way
  std::size_t n_taken_ = 0;  // bytes of pending_ that were written already
};

}  // namespace lmd::serve
