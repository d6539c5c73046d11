/// \file  The tokenizer inside a GGUF file -> the files of a Hugging Face folder.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/model/convert.hpp>

#include <string>

namespace lmd::apps {

/// Writes tokenizer.json (byte-level BPE) or tokenizer.model (SentencePiece), tokenizer_config.json
/// and special_tokens_map.json into `folder`. How text is cut before byte-level merging is decided
/// by what the file's `pre` names.
///
/// Errors:  \throws Error(kConfig) for an unknown `pre`; Error(kFormat) for tokens that the files
///          cannot hold; Error(kIo).
void write_gguf_tokenizer(const model::GgufTokenizer& tokenizer, const std::string& folder);

}  // namespace lmd::apps
