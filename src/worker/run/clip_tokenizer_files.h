// The tokenizer/ folder of Stable Diffusion, read and written.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "worker/models/bpe_tokenizer.h"

namespace onestep {

// vocab.json, merges.txt, tokenizer_config.json and, where it is there, special_tokens_map.json of transformers' CLIPTokenizer.
// Errors: kNotFound, kConfig, kCorrupt.
std::unique_ptr<BpeTokenizer> load_clip_tokenizer(const std::string& folder);

// The same files, name -> content; equal tokenizers, equal bytes.
std::map<std::string, std::string> clip_tokenizer_files(const BpeTokenizer& tokenizer);

}  // namespace onestep
