/// \file  The server's page and what it loads, as they lie in the program.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/static_files.hpp>

namespace lmd::apps {

/// The files of `web/`; none where the program was built without them (LMD_WITH_WEBUI).
[[nodiscard]] serve::StaticFiles web_files();

}  // namespace lmd::apps
