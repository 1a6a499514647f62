// The unfinished image file of `dataset pack` and the list of what is in it already, so that a
// killed run goes on.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "common/durable_file.h"
#include "common/image_file.h"

namespace onestep {

// Thread-safe. A block counts as packed when the journal names it with the same inputs and its
// pixels in the file have the digest that the journal states: nothing else is trusted, so no write
// needs to reach the disk in any order.
class PackJournal {
 public:
  // Opens OUT.packing.tmp and OUT.packing.journal.tmp; begins anew when they are not of this `info`
  // and these labels. Errors: kIo; kConflict when another program packs this file.
  PackJournal(const std::string& out, const ImageFileInfo& info,
              std::span<const std::uint8_t> labels);

  // Are rows first.. of `block` there, made of these inputs?
  [[nodiscard]] bool holds(std::int64_t block, const std::array<std::uint64_t, 2>& inputs,
                           std::int64_t first, std::int64_t rows) const;
  void write(std::int64_t block, const std::array<std::uint64_t, 2>& inputs, std::int64_t first,
             std::span<const std::uint8_t> pixels);
  // All blocks are written: seals the file, makes it appear as OUT, removes the journal; returns
  // the data's SHA-256.
  std::string finish();

 private:
  struct Record {
    std::int64_t block;
    std::array<std::uint64_t, 2> inputs, pixels;
  };

  void read_or_begin(std::span<const std::uint8_t> labels);

  std::string out_;
  ImageFileInfo info_;
  std::vector<std::uint8_t> labels_;
  WorkFile journal_;  // first: it holds the lock
  WorkFile data_;
  std::uint64_t images_offset_ = 0;
  std::uint64_t journal_end_ = 0;
  std::map<std::int64_t, Record> records_;
  std::mutex mutex_;  // of journal_end_ and writing
};

}  // namespace onestep
