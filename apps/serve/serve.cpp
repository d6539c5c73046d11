/// \file  lmd serve: models for other programs, and programs that talk to such servers.
// SPDX-License-Identifier: Apache-2.0
#include "serve_commands.hpp"

namespace lmd::apps {

void add_serve(CLI::App& root, Action& action) {
  CLI::App& app = *root.add_subcommand("serve", "Serve a model, or talk to a server");
  app.footer(
      "Examples:\n"
      "  lmd serve api_server SmolLM2-135M-Instruct\n"
      "  lmd serve api_client http://localhost:23333\n"
      "  lmd serve gradio http://localhost:23333\n");
  add_api_server(app, action);
  add_api_client(app, action);
  add_gradio(app, action);
}

}  // namespace lmd::apps
