// Reads and writes safetensors files (strictly, memory-mapped; deterministic bytes).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/durable_file.h"

namespace onestep {

// Every element type of the format.
enum class DType {
  kF32, kF64, kF16, kBF16, kI64, kI32, kU8, kBool,
  kI8, kI16, kU16, kU32, kU64, kC64,
  kF8E5M2, kF8E4M3, kF8E8M0, kF8E4M3Fnuz, kF8E5M2Fnuz, kF6E2M3, kF6E3M2, kF4
};
std::size_t bits_of(DType dtype);  // an element's; 4 and 6 for those that share bytes
std::size_t size_of(DType dtype);  // bytes an element; 0 for those that share bytes
const char* to_string(DType dtype);  // its name in the file

// A named span of somebody else's memory.
struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;  // C order, little-endian; at any alignment in other people's files: copy, don't cast
};
std::uint64_t num_elements(const TensorView& tensor);

using Metadata = std::map<std::string, std::string>;

// The exact bytes of the file: equal input, equal bytes. Tensors by descending dtype size, then by name; header padded with
// spaces to a multiple of 8; __metadata__ holds "format": "pt" plus `metadata`.
std::string safetensors_header(const std::vector<TensorView>& tensors, const Metadata& metadata);
// Writes durably; returns the SHA-256 of the file. Errors: kIo; kUsage for duplicate names or sizes that don't fit shapes.
std::string write_safetensors(const std::string& path, const std::vector<TensorView>& tensors,
                              const Metadata& metadata);
// The digest write_safetensors() would return, without writing.
std::string safetensors_sha256(const std::vector<TensorView>& tensors, const Metadata& metadata);

// A mapped file; views live as long as the object. Move-only.
class SafetensorsFile {
 public:
  // Checks the whole header: length, UTF-8, JSON without duplicate keys, known dtypes, shapes against offsets, no gap, no
  // overlap, end of data == end of file. Errors: kNotFound; kCorrupt naming file, key, expected, found.
  explicit SafetensorsFile(const std::string& path);
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::vector<TensorView>& tensors() const { return tensors_; }  // sorted by name
  [[nodiscard]] const Metadata& metadata() const { return metadata_; }
  [[nodiscard]] const TensorView* find(const std::string& name) const;
  // Errors: kCorrupt when absent.
  [[nodiscard]] const TensorView& at(const std::string& name) const;
  // Says that a tensor's bytes have been copied: their pages leave memory, and are read again if they are used again.
  void release(const TensorView& tensor) const { file_.release(tensor.bytes); }
  void release(std::span<const std::byte> part) const { file_.release(part); }  // of tensors

 private:
  std::string path_;
  MappedFile file_;
  std::vector<TensorView> tensors_;
  Metadata metadata_;
};

}  // namespace onestep
