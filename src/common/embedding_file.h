// The embeddings file: what a text encoder makes of each prompt, in one HDF5 file with a digest of its content (docs/formats.md).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace onestep {

struct EmbeddingFileInfo {
  std::int64_t count = 0;            // prompts, 1 or more
  std::int64_t tokens = 0, width = 0;
  std::string prompts_sha256;        // of the prompts' file
  std::string text_encoder_sha256;   // names the tokenizer and the text encoder
  std::string sha256;                // of the bytes of `null_text` followed by those of `text`; the writer computes it

  [[nodiscard]] std::int64_t row_elements() const { return tokens * width; }
  // SHA-256 that names the file: over all fields above.
  [[nodiscard]] std::string digest() const;
};

// Writes one file front to back under a temporary name; finish() makes it appear. Equal rows, equal bytes. Destroyed before, it
// leaves nothing. One thread. Errors of all: kIo; kInternal for rows that do not fit.
class EmbeddingWriter {
 public:
  // null_text: the embedding of no text, tokens*width floats.
  EmbeddingWriter(const std::string& path, const EmbeddingFileInfo& info, std::span<const float> null_text);
  EmbeddingWriter(const EmbeddingWriter&) = delete;
  EmbeddingWriter& operator=(const EmbeddingWriter&) = delete;
  ~EmbeddingWriter();
  // The next rows.
  void add(std::span<const float> rows);
  // When all rows are there; the finished file's facts.
  EmbeddingFileInfo finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A finished file opened for reading. Thread-safe after construction.
class EmbeddingFile {
 public:
  // Checks format, version, attributes, shapes, types, layout and size; not the content: verify().
  // Errors: kNotFound; kCorrupt naming file, what, expected and found.
  explicit EmbeddingFile(const std::string& path);
  EmbeddingFile(const EmbeddingFile&) = delete;
  EmbeddingFile& operator=(const EmbeddingFile&) = delete;
  ~EmbeddingFile();

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const EmbeddingFileInfo& info() const { return info_; }
  // row_elements() floats each. Errors: kIo; kCorrupt for a short read; kInternal for a row that is not there.
  void read_null_text(std::span<float> values) const;
  void read_row(std::int64_t row, std::span<float> values) const;
  // Reads everything and compares the digest. Errors: kCorrupt.
  void verify() const;

 private:
  void read_at(std::uint64_t offset, std::span<float> values) const;

  std::string path_;
  EmbeddingFileInfo info_;
  std::uint64_t null_text_offset_ = 0, text_offset_ = 0;
  int descriptor_ = -1;
};

// The file's name in the output folder of an encode_prompts job.
constexpr const char* kEmbeddingFileName = "embeddings.h5";

}  // namespace onestep
