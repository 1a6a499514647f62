#include <algorithm>
#include <array>
#include <limits>

#include "cli/inspect_parts.h"
#include "cli/npy_header.h"
#include "cli/text.h"
#include "common/durable_file.h"
#include "common/embedding_file.h"
#include "common/hash.h"
#include "common/hdf5_listing.h"
#include "common/image_decode.h"
#include "common/image_file.h"
#include "common/zip_archive.h"

namespace onestep {
namespace {

constexpr std::size_t kMaxListed = 20;
constexpr std::uint64_t kMaxPictureBytes = std::uint64_t{1} << 30;
constexpr const char* kNotOpened =
    "not opened: opening one can run code; tools/convert_torch.py (state dicts) or "
    "tools/convert_edm_pickle.py (EDM networks) "
    "makes safetensors of it without running anything";

template <typename Shape>
std::string shape_text(const Shape& shape) {
  std::string text = "[";
  for (const auto size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

void inspect_picture(Inspection& inspection, const char* format) {
  inspection.format = format;
  collect_problems(inspection, [&] {
    const MappedFile file(inspection.path);
    const DecodedImage image = decode_image(file.bytes(), inspection.path);
    inspection.facts.emplace_back("size", std::to_string(image.width) + "x" +
                                              std::to_string(image.height) +
                                              (image.channels == 1 ? ", grey" : ", RGB"));
  });
}

// Onestep's own image files are read to the last byte; others are listed.
void inspect_hdf5(Inspection& inspection) {
  inspection.format = "HDF5";
  collect_problems(inspection, [&] {
    const Hdf5Listing listing = list_hdf5(inspection.path, kMaxListed);
    if (listing.format == "onestep-images") {
      inspection.format = "image dataset";
      const ImageFile file(inspection.path);
      const ImageFileInfo& info = file.info();
      inspection.facts.emplace_back(
          "pictures", with_thousands(info.count) + ", " +
                          shape_text(std::array{info.channels, info.height, info.width}));
      inspection.facts.emplace_back(
          "classes", info.num_classes == 0 ? "no labels" : std::to_string(info.num_classes));
      if (!info.source.empty()) inspection.facts.emplace_back("source", info.source);
      if (!info.recipe.empty()) inspection.facts.emplace_back("recipe", info.recipe);
      inspection.digest = file.verify();
      return;
    }
    if (listing.format == "onestep-embeddings") {
      inspection.format = "prompts' embeddings";
      const EmbeddingFile file(inspection.path);
      const EmbeddingFileInfo& info = file.info();
      inspection.facts.emplace_back("prompts", with_thousands(info.count) + ", " + shape_text(std::array{info.tokens, info.width}));
      inspection.facts.emplace_back("prompts_sha256", info.prompts_sha256);
      inspection.facts.emplace_back("text_encoder_sha256", info.text_encoder_sha256);
      file.verify();
      inspection.digest = info.digest();
      return;
    }
    if (listing.format == "onestep-pairs") inspection.format = "pair shard";
    const bool rows =
        !listing.datasets.empty() && listing.datasets.front().name.starts_with("data/") &&
        listing.datasets.front().shape.size() == 4 && listing.datasets.front().shape.front() == 2;
    if (rows) {
      inspection.format = "HDF5, pairs a row";
      inspection.facts.emplace_back(
          "note", "pairs of another project; tools/import_pairs.py makes a pair set of them");
    }
    inspection.facts.emplace_back("datasets", with_thousands(listing.num_datasets));
    for (const Hdf5Dataset& dataset : listing.datasets) {
      inspection.facts.emplace_back(dataset.name, dataset.type + " " + shape_text(dataset.shape));
    }
  });
}

void inspect_npy(Inspection& inspection) {
  inspection.format = "npy";
  collect_problems(inspection, [&] {
    const MappedFile file(inspection.path);
    const NpyHeader header = read_npy_header(file.bytes(), inspection.path);
    inspection.facts.emplace_back("array", header.dtype + " " + shape_text(header.shape));
  });
}

void inspect_npz(Inspection& inspection, const ZipArchive& archive) {
  inspection.format = "npz";
  for (const ZipEntry& entry : archive.entries()) {
    collect_problems(inspection, [&] {
      const auto bytes = archive.read(entry.name, std::numeric_limits<std::uint64_t>::max());
      const NpyHeader header = read_npy_header(bytes, inspection.path + "/" + entry.name);
      inspection.facts.emplace_back(entry.name.substr(0, entry.name.size() - 4),
                                    header.dtype + " " + shape_text(header.shape));
    });
  }
}

void inspect_pictures(Inspection& inspection, const ZipArchive& archive) {
  inspection.format = "zip of pictures";
  std::int64_t pictures = 0;
  std::vector<std::string> problems;
  for (const ZipEntry& entry : archive.entries()) {
    if (!entry.name.ends_with(".png") && !entry.name.ends_with(".jpg") &&
        !entry.name.ends_with(".jpeg"))
      continue;
    ++pictures;
    try {
      const auto bytes = archive.read(entry.name, kMaxPictureBytes);
      decode_image(bytes, inspection.path + "/" + entry.name);
    } catch (const Error& error) {
      problems.emplace_back(error.what());
    }
  }
  inspection.facts.emplace_back("pictures", with_thousands(pictures));
  inspection.facts.emplace_back(
      "dataset.json", archive.find("dataset.json") != nullptr ? "there" : "none: no labels");
  add_problems(inspection, problems);
}

void inspect_zip(Inspection& inspection) {
  inspection.format = "zip archive";
  collect_problems(inspection, [&] {
    const ZipArchive archive(inspection.path);
    const auto& entries = archive.entries();
    const auto ends = [&](const char* end) {
      return std::count_if(entries.begin(), entries.end(),
                           [&](const ZipEntry& entry) { return entry.name.ends_with(end); });
    };
    if (ends("/data.pkl") > 0) {
      inspection.format = "a pickle (PyTorch file)";
      inspection.facts.emplace_back("note", kNotOpened);
    } else if (!entries.empty() && ends(".npy") == static_cast<std::ptrdiff_t>(entries.size())) {
      inspect_npz(inspection, archive);
    } else if (ends(".png") + ends(".jpg") + ends(".jpeg") > 0) {
      inspect_pictures(inspection, archive);
    } else {
      inspection.facts.emplace_back("entries",
                                    with_thousands(static_cast<std::int64_t>(entries.size())));
    }
  });
}

void inspect_pickle(Inspection& inspection, const std::string& first_bytes) {
  // torch.save's older form begins with a pickle of this number: protocol 2, LONG1 of ten bytes.
  const bool torch = first_bytes.starts_with("\x80\x02\x8a\x0a");
  inspection.format = torch ? "a pickle (PyTorch file)" : "a pickle";
  inspection.facts.emplace_back("note", kNotOpened);
}

bool is_pickle(const std::string& bytes, const std::string& path) {
  if (bytes.size() >= 2 && bytes[0] == '\x80' && bytes[1] >= 2 && bytes[1] <= 5) return true;
  return path.ends_with(".pkl") || path.ends_with(".pickle");
}

}  // namespace

bool inspect_foreign(Inspection& inspection, const std::string& bytes) {
  const auto picture = picture_kind(std::as_bytes(std::span(bytes)));
  if (picture != PictureKind::kNone) {
    inspect_picture(inspection, picture == PictureKind::kPng ? "PNG" : "JPEG");
  } else if (bytes.starts_with("\x89HDF\r\n\x1a\n")) {
    inspect_hdf5(inspection);
  } else if (bytes.starts_with("PK\x03\x04") || bytes.starts_with("PK\x05\x06")) {
    inspect_zip(inspection);
  } else if (bytes.starts_with("\x93NUMPY")) {
    inspect_npy(inspection);
  } else if (is_pickle(bytes, inspection.path)) {
    inspect_pickle(inspection, bytes);
  } else {
    return false;
  }
  if (inspection.digest.empty()) inspection.digest = sha256_file(inspection.path);
  return true;
}

}  // namespace onestep
