/// \file  What a client says of a server that does not do what it was asked.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <string>

namespace lmd::serve {

enum class ClientFailure {
  kResolve,    ///< the host's name has no address
  kConnect,    ///< nobody listens there, or the network does not lead there
  kTls,        ///< no TLS, or a certificate that is not trusted
  kTimeout,    ///< a deadline passed
  kCut,        ///< the connection ended before the message did
  kTooLarge,   ///< a header or a body beyond its bound
  kProtocol,   ///< not HTTP, or not what the endpoint is to answer
  kCancelled,  ///< the client itself ended it
  kStatus,     ///< an answer that says no: its status
  kKey,        ///< status 401 or 403: no key, or one that the server does not take
};

/// Errors:  code() is kIo whatever the failure; kind() tells failures apart.
class ClientError : public Error {
 public:
  ClientError(ClientFailure kind, const std::string& what, int status = 0)
      : Error(ErrorCode::kIo, what), kind_(kind), status_(status) {}
  [[nodiscard]] ClientFailure kind() const noexcept { return kind_; }
  [[nodiscard]] int status() const noexcept { return status_; }  ///< 0: there was none

 private:
  ClientFailure kind_;
  int status_;
};

}  // namespace lmd::serve
