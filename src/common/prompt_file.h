// Prompts as people keep them: a text a line, or JSON lines.
#pragma once

#include <string>
#include <vector>

namespace onestep {

struct PromptFile {
  std::vector<std::string> texts;  // UTF-8, in the file's order; none is empty
  std::string sha256;              // of the file
};

// A name ending in .jsonl: each line an object {"text": "..."} and no other key. Any other name: each line is a prompt as it is. Lines end
// in "\n", the last one's may be missing. Refused, the first twenty by line: an empty line or text, bytes that are not UTF-8, a control
// character other than a tab, more than 65,536 bytes. Errors: kNotFound, kIo; kCorrupt naming the file, lines, expected, found.
PromptFile read_prompt_file(const std::string& path);

}  // namespace onestep
