#include "worker/run/checkpoint_buffers.h"

#include <algorithm>
#include <cstring>

#include "common/error.h"

namespace onestep {

CheckpointBuffers::CheckpointBuffers(std::string folder, CheckpointManifest manifest)
    : folder_(std::move(folder)), manifest_(std::move(manifest)) {
  for (const CheckpointFile& file : manifest_.files) {
    files_[file.name] = std::make_unique<SafetensorsFile>(folder_ + "/" + file.name);
  }
}

std::int64_t CheckpointBuffers::length(const std::string& buffer) const {
  std::int64_t end = 0;
  for (const CheckpointPiece& piece : manifest_.pieces) {
    if (piece.buffer == buffer) end = std::max(end, piece.offset + piece.length);
  }
  if (end == 0) {
    throw Error(ErrorCode::kCorrupt, folder_ + ": the manifest has no buffer \"" + buffer + "\"");
  }
  return end;
}

torch::Tensor CheckpointBuffers::read(const std::string& buffer, std::int64_t offset,
                                      std::int64_t length) const {
  torch::Tensor values = torch::empty({length}, torch::kFloat32);
  std::int64_t found = 0;
  for (const CheckpointPiece& piece : manifest_.pieces) {
    if (piece.buffer != buffer) continue;
    const std::int64_t begin = std::max(offset, piece.offset);
    const std::int64_t end = std::min(offset + length, piece.offset + piece.length);
    if (begin >= end) continue;
    const auto file = files_.find(piece.file);
    const std::string name = buffer + "@" + std::to_string(piece.offset);
    const TensorView* tensor = file == files_.end() ? nullptr : file->second->find(name);
    if (tensor == nullptr || tensor->dtype != DType::kF32 ||
        tensor->bytes.size() != static_cast<std::size_t>(piece.length) * sizeof(float)) {
      throw Error(ErrorCode::kCorrupt, folder_ + "/" + piece.file + ": expected tensor \"" + name +
                                           "\" F32 [" + std::to_string(piece.length) +
                                           "] as the manifest says, found " +
                                           (tensor == nullptr ? "none" : "another shape or type"));
    }
    std::memcpy(values.data_ptr<float>() + (begin - offset),
                tensor->bytes.data() + (begin - piece.offset) * sizeof(float),
                static_cast<std::size_t>(end - begin) * sizeof(float));
    found += end - begin;
  }
  if (found != length) {
    throw Error(ErrorCode::kCorrupt, folder_ + ": buffer \"" + buffer + "\" elements " +
                                         std::to_string(offset) + " to " + std::to_string(offset + length) +
                                         ": the pieces hold " + std::to_string(found) + " of " +
                                         std::to_string(length));
  }
  return values;
}

}  // namespace onestep
