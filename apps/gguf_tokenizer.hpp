/// \file  The tokenizer inside a GGUF file -> the files of a Hugging Face folder.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/model/convert.hpp>

#include <string>

namespace lmd::apps {

/// Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json into `folder`. What
/// the file's `pre` names decides how text is cut before merging.
///
/// Errors:  \throws Error(kConfig) for a SentencePiece vocabulary or an unknown `pre`;
///          Error(kFormat) for tokens that no tokenizer.json can hold; Error(kIo).
void write_gguf_tokenizer(const model::GgufTokenizer& tokenizer, const std::string& folder);

}  // namespace lmd::apps
