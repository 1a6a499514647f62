#include "cli/pack_journal.h"

#include <algorithm>
#include <cstring>

#include "common/error.h"
#include "common/hash.h"

namespace onestep {
namespace {

// The journal: this header, then records as they come; a last one that is cut off is ignored.
struct Header {
  std::array<char, 8> magic{'1', 's', 't', 'e', 'p', 'P', 'J', '1'};
  std::array<char, 64> key{};  // SHA-256 of everything that decides the file's bytes but the pixels
  std::uint64_t images_offset = 0;
};

constexpr std::size_t kReadBytes = std::size_t{1} << 22;

std::string data_name(const std::string& out) { return out + ".packing.tmp"; }
std::string journal_name(const std::string& out) { return out + ".packing.journal.tmp"; }

std::array<char, 64> key_of(const ImageFileInfo& info, std::span<const std::uint8_t> labels) {
  std::string text;
  for (const std::int64_t number :
       {info.count, info.channels, info.height, info.width, info.num_classes}) {
    text += std::to_string(number) + "\n";
  }
  text += info.source + "\n" + info.recipe + "\n" + sha256(labels.data(), labels.size());
  std::array<char, 64> key{};
  const std::string digest = sha256(text);
  std::copy(digest.begin(), digest.end(), key.begin());
  return key;
}

}  // namespace

PackJournal::PackJournal(const std::string& out, const ImageFileInfo& info,
                         std::span<const std::uint8_t> labels)
    : out_(out),
      info_(info),
      labels_(labels.begin(), labels.end()),
      journal_(journal_name(out)),
      data_(data_name(out)) {
  read_or_begin(labels);
}

void PackJournal::read_or_begin(std::span<const std::uint8_t> labels) {
  Header header;
  header.key = key_of(info_, labels);
  const std::uint64_t size = journal_.size();
  const auto image_bytes = static_cast<std::uint64_t>(info_.count * info_.row_bytes());
  if (size >= sizeof(Header)) {
    Header found;
    journal_.read_at(0, &found, sizeof found);
    if (found.magic == header.magic && found.key == header.key && data_.size() >= image_bytes &&
        found.images_offset <= data_.size() - image_bytes) {
      images_offset_ = found.images_offset;
      journal_end_ = sizeof(Header);
      for (; size - journal_end_ >= sizeof(Record); journal_end_ += sizeof(Record)) {
        Record record{};
        journal_.read_at(journal_end_, &record, sizeof record);
        records_[record.block] = record;
      }
      return;
    }
  }
  journal_.clear();
  images_offset_ = create_image_file(data_name(out_), info_, labels).images;
  header.images_offset = images_offset_;
  journal_.write_at(0, &header, sizeof header);
  journal_end_ = sizeof(Header);
}

bool PackJournal::holds(std::int64_t block, const std::array<std::uint64_t, 2>& inputs,
                        std::int64_t first, std::int64_t rows) const {
  const auto record = records_.find(block);
  if (record == records_.end() || record->second.inputs != inputs) return false;
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(rows * info_.row_bytes()));
  data_.read_at(images_offset_ + static_cast<std::uint64_t>(first * info_.row_bytes()),
                pixels.data(), pixels.size());
  return xxh3_128(pixels.data(), pixels.size()) == record->second.pixels;
}

void PackJournal::write(std::int64_t block, const std::array<std::uint64_t, 2>& inputs,
                        std::int64_t first, std::span<const std::uint8_t> pixels) {
  data_.write_at(images_offset_ + static_cast<std::uint64_t>(first * info_.row_bytes()),
                 pixels.data(), pixels.size());
  const Record record{block, inputs, xxh3_128(pixels.data(), pixels.size())};
  const std::lock_guard lock(mutex_);
  journal_.write_at(journal_end_, &record, sizeof record);
  journal_end_ += sizeof record;
}

std::string PackJournal::finish() {
  Sha256 hash;
  std::vector<std::uint8_t> bytes;
  const auto total = static_cast<std::uint64_t>(info_.count * info_.row_bytes());
  for (std::uint64_t at = 0; at < total; at += bytes.size()) {
    bytes.resize(std::min<std::uint64_t>(kReadBytes, total - at));
    data_.read_at(images_offset_ + at, bytes.data(), bytes.size());
    hash.update(bytes.data(), bytes.size());
  }
  hash.update(labels_.data(), labels_.size());
  const std::string digest = hash.finish();
  seal_image_file(data_name(out_), digest);
  publish_file_durably(data_name(out_), out_);
  remove_file_durably(journal_name(out_));
  return digest;
}

}  // namespace onestep
