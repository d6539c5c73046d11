/// \file  A connection's bytes, with or without TLS.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>

namespace lmd::serve {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

/// Who is told what became of an operation. Lives as long as one is under way.
class ByteStreamUser {
 public:
  virtual ~ByteStreamUser() = default;
  virtual void on_opened(error_code error) = 0;
  virtual void on_read(error_code error, std::size_t n_bytes) = 0;
  virtual void on_written(error_code error) = 0;
};

/// One read and one write may be under way at a time.
class ByteStream {
 public:
  using User = std::shared_ptr<ByteStreamUser>;
  virtual ~ByteStream() = default;
  virtual void open(User user) = 0;
  virtual void read_some(asio::mutable_buffer to, User user) = 0;
  virtual void write(asio::const_buffer from, User user) = 0;
  /// Nothing more will be written; the other side may be still sending.
  virtual void end_writing(User user) = 0;
  /// Operations that are under way end with an error.
  virtual void close() = 0;
};

class PlainStream final : public ByteStream {
 public:
  explicit PlainStream(tcp::socket socket) : socket_(std::move(socket)) {}

  void open(User user) override { user->on_opened({}); }
  void read_some(asio::mutable_buffer to, User user) override {
    socket_.async_read_some(
        to, [user = std::move(user)](error_code e, std::size_t n) { user->on_read(e, n); });
  }
  void write(asio::const_buffer from, User user) override {
    asio::async_write(socket_, from,
                      [user = std::move(user)](error_code e, std::size_t) { user->on_written(e); });
  }
  void end_writing(User) override {
    error_code ignored;
    (void)socket_.shutdown(tcp::socket::shutdown_send, ignored);
  }
  void close() override {
    error_code ignored;
    (void)socket_.close(ignored);
  }

 private:
  tcp::socket socket_;
};

class TlsStream final : public ByteStream {
 public:
  TlsStream(tcp::socket socket, std::shared_ptr<asio::ssl::context> context)
      : context_(std::move(context)), stream_(std::move(socket), *context_) {}

  void open(User user) override {
    stream_.async_handshake(asio::ssl::stream_base::server,
                            [user = std::move(user)](error_code e) { user->on_opened(e); });
  }
  void read_some(asio::mutable_buffer to, User user) override {
    stream_.async_read_some(
        to, [user = std::move(user)](error_code e, std::size_t n) { user->on_read(e, n); });
  }
  void write(asio::const_buffer from, User user) override {
    asio::async_write(stream_, from,
                      [user = std::move(user)](error_code e, std::size_t) { user->on_written(e); });
  }
  void end_writing(User user) override {
    stream_.async_shutdown([user = std::move(user)](error_code) {});
  }
  void close() override {
    error_code ignored;
    (void)stream_.lowest_layer().close(ignored);
  }

 private:
  std::shared_ptr<asio::ssl::context> context_;  // stays while a reload replaces it
  asio::ssl::stream<tcp::socket> stream_;
};

}  // namespace lmd::serve
