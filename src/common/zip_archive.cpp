#include "common/zip_archive.h"

#include <zip.h>

#include <set>
#include <utility>

#include "common/durable_file.h"
#include "common/error.h"

namespace onestep {

struct ZipArchive::State {
  zip_t* archive = nullptr;
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (archive != nullptr) zip_discard(archive);
  }
};

ZipArchive::ZipArchive(const std::string& path) : path_(path), state_(std::make_unique<State>()) {
  static_cast<void>(file_size(path));  // kNotFound, and nothing but a regular file
  int code = 0;
  state_->archive = zip_open(path.c_str(), ZIP_RDONLY, &code);
  if (state_->archive == nullptr) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    const std::string reason = zip_error_strerror(&error);
    zip_error_fini(&error);
    throw Error(ErrorCode::kCorrupt, path + ": expected a whole zip archive, found: " + reason);
  }
  std::set<std::string> names;
  const zip_int64_t count = zip_get_num_entries(state_->archive, 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    zip_stat_t status;
    zip_stat_init(&status);
    constexpr zip_uint64_t kNeeded = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_CRC;
    if (zip_stat_index(state_->archive, static_cast<zip_uint64_t>(i), 0, &status) != 0 ||
        (status.valid & kNeeded) != kNeeded) {
      throw Error(ErrorCode::kCorrupt, path + ": entry " + std::to_string(i) +
                                           ": expected a name, a size and a CRC, found less");
    }
    const std::string name = status.name;
    if (name.ends_with('/')) continue;
    if (!names.insert(name).second) {
      throw Error(ErrorCode::kCorrupt,
                  path + ": entry \"" + name + "\": expected a name of its own, found it twice");
    }
    entries_.push_back({name, status.size, status.crc});
  }
}

ZipArchive::ZipArchive(ZipArchive&&) noexcept = default;
ZipArchive& ZipArchive::operator=(ZipArchive&&) noexcept = default;
ZipArchive::~ZipArchive() = default;

const ZipEntry* ZipArchive::find(const std::string& name) const {
  for (const ZipEntry& entry : entries_) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

std::vector<std::byte> ZipArchive::read(const std::string& name, std::uint64_t max_bytes) const {
  const auto corrupt = [&](const std::string& what) {
    return Error(ErrorCode::kCorrupt, path_ + ": entry \"" + name + "\": " + what);
  };
  zip_stat_t status;
  zip_stat_init(&status);
  if (zip_stat(state_->archive, name.c_str(), 0, &status) != 0)
    throw corrupt("expected one, found none");
  if (status.size > max_bytes) {
    throw corrupt("expected at most " + std::to_string(max_bytes) + " bytes, found " +
                  std::to_string(status.size));
  }
  const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> file(
      zip_fopen(state_->archive, name.c_str(), 0), zip_fclose);
  if (file == nullptr)
    throw corrupt(std::string("cannot be opened: ") + zip_strerror(state_->archive));
  std::vector<std::byte> content;
  // Grown as data comes: a size that is only claimed takes no memory.
  constexpr std::size_t kStep = std::size_t{1} << 20;
  while (content.size() < status.size) {
    const std::size_t had = content.size();
    content.resize(had + std::min<std::size_t>(kStep, status.size - had));
    const zip_int64_t got = zip_fread(file.get(), content.data() + had, content.size() - had);
    if (got <= 0)
      throw corrupt("expected " + std::to_string(status.size) + " bytes, found " +
                    std::to_string(had) +
                    (got < 0 ? std::string(" and: ") + zip_file_strerror(file.get()) : ""));
    content.resize(had + static_cast<std::size_t>(got));
  }
  // The CRC is compared when the end is reached.
  std::byte more{};
  if (const zip_int64_t got = zip_fread(file.get(), &more, 1); got != 0) {
    throw corrupt(got > 0 ? "expected " + std::to_string(status.size) + " bytes, found more"
                          : std::string("cannot be read: ") + zip_file_strerror(file.get()));
  }
  return content;
}

}  // namespace onestep
