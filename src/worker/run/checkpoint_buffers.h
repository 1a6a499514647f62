// Puts the pieces of a checkpoint's flat buffers together again, whatever the number of ranks that wrote them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "common/checkpoint_manifest.h"
#include "common/safetensors_file.h"
#include "worker/tensors/torch.h"

namespace onestep {

// One checkpoint opened for reading; its files have been verified by whoever found it.
class CheckpointBuffers {
 public:
  // Errors: kNotFound, kCorrupt.
  CheckpointBuffers(std::string folder, CheckpointManifest manifest);
  [[nodiscard]] const CheckpointManifest& manifest() const { return manifest_; }
  // Length of the whole buffer. Errors: kCorrupt for an unknown buffer.
  [[nodiscard]] std::int64_t length(const std::string& buffer) const;
  // Elements [offset, offset + length) as a new fp32 tensor. Errors: kCorrupt naming buffer and range when pieces miss any element.
  [[nodiscard]] torch::Tensor read(const std::string& buffer, std::int64_t offset, std::int64_t length) const;

 private:
  std::string folder_;
  CheckpointManifest manifest_;
  std::map<std::string, std::unique_ptr<SafetensorsFile>> files_;
};

}  // namespace onestep
