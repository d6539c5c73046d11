/// \file  The certificate and the key that TLS connections are opened with.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <memory>
#include <string>

#include <boost/asio/ssl/context.hpp>
#include <openssl/ssl.h>

namespace lmd::serve {

/// TLS 1.2 or newer. Files are PEM; the certificate's may hold the chain.
///
/// Errors:  \throws Error(kIo) naming the file that could not be read; Error(kConfig) when the key is not
///          the certificate's.
[[nodiscard]] inline std::shared_ptr<boost::asio::ssl::context> make_tls_context(
    const std::string& certificate_file, const std::string& key_file) {
  using boost::asio::ssl::context;
  auto tls = std::make_shared<context>(context::tls_server);
  tls->set_options(context::default_workarounds | context::no_sslv2 | context::no_sslv3 |
                   context::no_tlsv1 | context::no_tlsv1_1 | SSL_OP_NO_RENEGOTIATION);
  boost::system::error_code error;
  (void)tls->use_certificate_chain_file(certificate_file, error);
  LMD_REQUIRE(!error, ErrorCode::kIo,
              "SSL_CERTFILE '" + certificate_file + "': cannot be read as a PEM certificate");
  (void)tls->use_private_key_file(key_file, context::pem, error);
  LMD_REQUIRE(!error, ErrorCode::kIo,
              "SSL_KEYFILE '" + key_file +
                  "': cannot be read as the certificate's private key, without a password");
  LMD_REQUIRE(::SSL_CTX_check_private_key(tls->native_handle()) == 1, ErrorCode::kConfig,
              "SSL_KEYFILE '" + key_file + "': is not the key of " + certificate_file);
  // Memory of a connection that is idle goes back.
  ::SSL_CTX_set_mode(tls->native_handle(), SSL_MODE_RELEASE_BUFFERS);
  return tls;
}

}  // namespace lmd::serve
