/// \file  A server that answers with bytes written down beforehand.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>

namespace lmd::test {

/// What one connection does, in order; it is closed at the end.
struct ServerScript {
  struct Step {
    std::string bytes;         ///< sent after a whole request has come
    bool in_bytes = false;     ///< each byte alone
    bool keeps_quiet = false;  ///< waits until the client closes
  };
  std::vector<Step> steps;
};

/// Serves as many connections as there are scripts, one after another, on a thread of its own.
class ScriptedServer {
 public:
  explicit ScriptedServer(std::vector<ServerScript> scripts)
      : acceptor_(context_, {boost::asio::ip::address_v4::loopback(), 0}),
        scripts_(std::move(scripts)),
        thread_([this] { run(); }) {}
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;
  ~ScriptedServer() { thread_.join(); }

  [[nodiscard]] std::string url() const {
    return "http://127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port());
  }

  /// What the client sent, one string for each request. Read after the scripts were played.
  std::vector<std::string> requests;

 private:
  using Socket = boost::asio::ip::tcp::socket;

  void run() {
    for (const ServerScript& script : scripts_) {
      Socket socket = acceptor_.accept();
      socket.set_option(boost::asio::ip::tcp::no_delay(true));
      boost::system::error_code error;
      for (const ServerScript::Step& step : script.steps) {
        if (!read_request(socket)) break;
        for (std::size_t i = 0; step.in_bytes && i < step.bytes.size(); ++i) {
          boost::asio::write(socket, boost::asio::buffer(&step.bytes[i], 1), error);
          std::this_thread::sleep_for(std::chrono::microseconds(100));
        }
        if (!step.in_bytes) boost::asio::write(socket, boost::asio::buffer(step.bytes), error);
        char byte = 0;
        if (step.keeps_quiet) socket.read_some(boost::asio::buffer(&byte, 1), error);
      }
    }
  }

  /// Head and, by its Content-Length, body.
  bool read_request(Socket& socket) {
    std::string text;
    std::size_t size = std::string::npos;
    while (text.size() < size) {
      char bytes[65536];
      boost::system::error_code error;
      const std::size_t n = socket.read_some(boost::asio::buffer(bytes), error);
      if (error) return false;
      text.append(bytes, n);
      const std::size_t end = text.find("\r\n\r\n");
      if (end == std::string::npos) continue;
      const std::size_t length = text.find("Content-Length: ");
      size = end + 4 + (length < end ? std::stoul(text.substr(length + 16)) : 0);
    }
    requests.push_back(std::move(text));
    return true;
  }

  boost::asio::io_context context_;
  boost::asio::ip::tcp::acceptor acceptor_;
  std::vector<ServerScript> scripts_;
  std::thread thread_;
};

}  // namespace lmd::test
