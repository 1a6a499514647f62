#include "cli/pack_dataset.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <exception>
#include <filesystem>
#include <iostream>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "cli/dataset_labels.h"
#include "cli/image_source.h"
#include "cli/pack_journal.h"
#include "cli/text.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/image_decode.h"
#include "common/image_file.h"
#include "common/image_resize.h"

namespace onestep {
namespace {

constexpr std::int64_t kBlockBytes = std::int64_t{4}
                                     << 20;  // pixels packed between two entries of the journal

void check_options(const PackOptions& options) {
  const auto fail = [](const std::string& what) { throw Error(ErrorCode::kUsage, what); };
  if (options.resolution < 0)
    fail("--resolution: expected 1 or more, found " + std::to_string(options.resolution));
  if (options.channels != 0 && options.channels != 1 && options.channels != 3) {
    fail("--channels: expected 1 or 3, found " + std::to_string(options.channels));
  }
  if (!options.crop.empty() && options.crop != "center")
    fail("--crop: expected center, found " + options.crop);
  if (!options.resize.empty() && options.resize != "box" && options.resize != "lanczos") {
    fail("--resize: expected box or lanczos, found " + options.resize);
  }
  if (!options.resize.empty() && options.resolution == 0)
    fail("--resize " + options.resize + ": expected --resolution with it");
  if (options.jobs < 0) fail("--jobs: expected 1 or more, found " + std::to_string(options.jobs));
}

std::string size_text(const DecodedImage& image) {
  return std::to_string(image.width) + "x" + std::to_string(image.height);
}

// What every picture is made into.
struct Shape {
  std::int64_t channels = 0, side = 0;
};

// One picture as it goes into the file. Errors: kMismatch.
DecodedImage fitted(DecodedImage image, const PackOptions& options, const Shape& shape,
                    const std::string& where) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::kMismatch, where + ": " + what);
  };
  if (image.channels != shape.channels) {
    if (image.channels != 1 || options.channels != 3) {
      fail("channels: expected " + std::to_string(shape.channels) + ", found " +
           std::to_string(image.channels) +
           (image.channels == 1 ? "; --channels 3 makes grey pictures RGB" : ""));
    }
    DecodedImage colour{image.width, image.height, 3, {}};
    colour.pixels.reserve(3 * image.pixels.size());
    for (const std::uint8_t value : image.pixels)
      colour.pixels.insert(colour.pixels.end(), 3, value);
    image = std::move(colour);
  }
  if (image.width != image.height) {
    if (options.crop.empty())
      fail("expected a square picture, found " + size_text(image) + "; --crop center cuts one out");
    image = center_crop(image);
  }
  if (image.width == shape.side) return image;
  const std::string wanted = std::to_string(shape.side) + "x" + std::to_string(shape.side);
  if (image.width < shape.side)
    fail("expected at least " + wanted + ", found " + size_text(image) +
         "; pictures are never enlarged");
  if (options.resize.empty())
    fail("expected " + wanted + ", found " + size_text(image) +
         "; --resolution with --resize makes it smaller");
  return resize(image, shape.side, shape.side,
                options.resize == "box" ? ResizeFilter::kBox : ResizeFilter::kLanczos);
}

// [H,W,C] -> [C,H,W].
void copy_planes(const DecodedImage& image, std::uint8_t* out) {
  for (std::int64_t channel = 0; channel < image.channels; ++channel) {
    for (std::size_t i = static_cast<std::size_t>(channel); i < image.pixels.size();
         i += static_cast<std::size_t>(image.channels)) {
      *out++ = image.pixels[i];
    }
  }
}

std::string recipe_of(const PackOptions& options, const Shape& shape) {
  std::string text = "onestep dataset pack --resolution " + std::to_string(shape.side) +
                     " --channels " + std::to_string(shape.channels);
  if (!options.crop.empty()) text += " --crop " + options.crop;
  if (!options.resize.empty()) text += " --resize " + options.resize;
  return text + "; pictures by name";
}

std::vector<std::uint8_t> label_bytes(const DatasetLabels& labels, int width) {
  std::vector<std::uint8_t> bytes;
  for (const std::int64_t label : labels.labels) {
    for (int byte = 0; byte < width; ++byte)
      bytes.push_back(static_cast<std::uint8_t>(label >> (8 * byte)));
  }
  return bytes;
}

// One run: the source, what is made of it, and where the work stands.
class Packer {
 public:
  Packer(const PackOptions& options, std::function<void(std::int64_t, std::int64_t)> progress)
      : options_(options), progress_(std::move(progress)), source_(open_image_source(options.in)) {
    if (source_->images().empty()) {
      throw Error(ErrorCode::kNotFound,
                  options.in + ": expected *.png, *.jpg or *.jpeg files, found none");
    }
    read_labels();
    shape_ = find_shape();
    info_.count = num_images();
    info_.channels = shape_.channels;
    info_.height = info_.width = shape_.side;
    info_.num_classes = labels_.num_classes;
    info_.source = std::to_string(info_.count) + " PNG and JPEG files" +
                   (labels_.num_classes > 0 ? " with dataset.json" : "");
    info_.recipe = recipe_of(options, shape_);
    rows_a_block_ = std::clamp<std::int64_t>(kBlockBytes / info_.row_bytes(), 1, 4096);
  }

  PackResult run() {
    PackJournal journal(options_.out, info_, label_bytes(labels_, info_.label_bytes()));
    pack_blocks(journal);
    throw_if_bad();
    PackResult result{info_.count, info_.channels,        shape_.side, info_.num_classes,
                      reused_,     source_->num_others(), {}};
    result.sha256 = journal.finish();
    return result;
  }

 private:
  [[nodiscard]] std::int64_t num_images() const {
    return static_cast<std::int64_t>(source_->images().size());
  }
  [[nodiscard]] std::int64_t num_blocks() const {
    return (info_.count + rows_a_block_ - 1) / rows_a_block_;
  }
  [[nodiscard]] std::string where(const SourceImage& image) const {
    return options_.in + "/" + image.name;
  }

  void read_labels() {
    if (!source_->labels_text()) {
      if (options_.num_classes > 0) {
        throw Error(ErrorCode::kNotFound,
                    options_.in + ": --classes: expected dataset.json with the labels, found none");
      }
      return;
    }
    std::vector<std::string> names;
    for (const SourceImage& image : source_->images()) names.push_back(image.name);
    labels_ = parse_dataset_labels(*source_->labels_text(), options_.in + "/dataset.json", names,
                                   options_.num_classes);
  }

  // What is not asked for is that of the first picture that can be read.
  [[nodiscard]] Shape find_shape() const {
    Shape shape{options_.channels, options_.resolution};
    if (shape.channels != 0 && shape.side != 0) return shape;
    const auto read = source_->reader();
    std::string bad;
    for (const SourceImage& image : source_->images()) {
      try {
        const DecodedImage decoded = decode_image(read(image), where(image));
        if (shape.channels == 0) shape.channels = decoded.channels;
        if (shape.side == 0) shape.side = std::min(decoded.width, decoded.height);
        return shape;
      } catch (const Error& error) {
        bad += std::string("\n  ") + error.what();
      }
    }
    throw Error(ErrorCode::kCorrupt,
                options_.in + ": expected pictures, found none that can be read" + bad);
  }

  void pack_blocks(PackJournal& journal) {
    const int wanted =
        options_.jobs > 0 ? options_.jobs : static_cast<int>(std::thread::hardware_concurrency());
    const auto num_threads = static_cast<int>(std::clamp<std::int64_t>(wanted, 1, num_blocks()));
    std::vector<std::thread> threads;
    for (int i = 0; i < num_threads; ++i) threads.emplace_back([&] { work(journal); });
    for (std::thread& thread : threads) thread.join();
    if (failure_) std::rethrow_exception(failure_);
  }

  void work(PackJournal& journal) {
    try {
      const auto read = source_->reader();
      for (;;) {
        const std::int64_t block = next_block_++;
        if (block >= num_blocks()) return;
        pack_block(journal, read, block);
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      next_block_ = num_blocks();
    }
  }

  void pack_block(PackJournal& journal, const ImageSource::Reader& read, std::int64_t block) {
    const std::int64_t first = block * rows_a_block_,
                       end = std::min(info_.count, first + rows_a_block_);
    const auto inputs = digest_of_inputs(first, end);
    const bool reused = journal.holds(block, inputs, first, end - first);
    if (!reused) {
      std::vector<std::uint8_t> pixels(static_cast<std::size_t>((end - first) * info_.row_bytes()));
      bool whole = true;
      for (std::int64_t i = first; i < end; ++i) {
        whole = pack_image(read, i, pixels.data() + (i - first) * info_.row_bytes()) && whole;
      }
      if (whole) journal.write(block, inputs, first, pixels);
    }
    const std::lock_guard lock(mutex_);
    done_ += end - first;
    if (reused) reused_ += end - first;
    progress_(done_, info_.count);
  }

  // False when the picture is bad; it is remembered.
  bool pack_image(const ImageSource::Reader& read, std::int64_t index, std::uint8_t* out) {
    const SourceImage& image = source_->images()[static_cast<std::size_t>(index)];
    try {
      copy_planes(fitted(decode_image(read(image), where(image)), options_, shape_, where(image)),
                  out);
      return true;
    } catch (const Error& error) {
      const std::lock_guard lock(mutex_);
      bad_[index] = error.what();
      return false;
    }
  }

  // Of names, sizes and versions: a picture that was replaced is packed again.
  [[nodiscard]] std::array<std::uint64_t, 2> digest_of_inputs(std::int64_t first,
                                                              std::int64_t end) const {
    std::string text;
    for (std::int64_t i = first; i < end; ++i) {
      const SourceImage& image = source_->images()[static_cast<std::size_t>(i)];
      text += image.name + '\0' + std::to_string(image.bytes) + ' ' +
              std::to_string(image.version) + '\n';
    }
    return xxh3_128(text.data(), text.size());
  }

  void throw_if_bad() const {
    if (bad_.empty()) return;
    std::string message = options_.in + ": " + std::to_string(bad_.size()) + " of " +
                          std::to_string(info_.count) + " pictures can't be packed";
    for (const auto& [index, what] : bad_) message += "\n  " + what;
    throw Error(ErrorCode::kCorrupt, message);
  }

  const PackOptions& options_;
  std::function<void(std::int64_t, std::int64_t)> progress_;
  std::unique_ptr<ImageSource> source_;
  DatasetLabels labels_;
  Shape shape_;
  ImageFileInfo info_;
  std::int64_t rows_a_block_ = 1;
  std::atomic<std::int64_t> next_block_{0};
  std::mutex mutex_;  // of what follows
  std::int64_t done_ = 0, reused_ = 0;
  std::map<std::int64_t, std::string> bad_;  // picture -> what is wrong with it
  std::exception_ptr failure_;
};

// A bar that is redrawn on a terminal, a line each tenth elsewhere.
class PackProgress {
 public:
  void show(std::int64_t done, std::int64_t count) {
    const double fraction = static_cast<double>(done) / static_cast<double>(count);
    if (terminal_) {
      const auto now = std::chrono::steady_clock::now();
      if (done < count && now - shown_ < std::chrono::milliseconds(100)) return;
      shown_ = now;
      std::cerr << "\r" << bar(fraction, 40) << " " << with_thousands(done) << " of "
                << with_thousands(count) << " pictures" << (done == count ? "\n" : "")
                << std::flush;
    } else if (static_cast<int>(10 * fraction) > tenths_) {
      tenths_ = static_cast<int>(10 * fraction);
      std::cerr << with_thousands(done) << " of " << with_thousands(count) << " pictures\n";
    }
  }

 private:
  bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  int tenths_ = 0;
  std::chrono::steady_clock::time_point shown_{};
};

}  // namespace

PackResult pack_dataset(const PackOptions& options,
                        const std::function<void(std::int64_t, std::int64_t)>& progress) {
  check_options(options);
  if (file_exists(options.out)) {
    throw Error(ErrorCode::kConflict,
                options.out + ": expected no file of this name, found one; nothing is overwritten");
  }
  const std::filesystem::path folder = std::filesystem::path(options.out).parent_path();
  if (!folder.empty() && !std::filesystem::is_directory(folder)) {
    throw Error(ErrorCode::kNotFound,
                options.out + ": the folder " + folder.string() + " does not exist");
  }
  return Packer(options, progress).run();
}

int run_pack_dataset(const PackOptions& options, bool json) {
  PackProgress bar;
  const PackResult result =
      pack_dataset(options, [&](std::int64_t done, std::int64_t count) { bar.show(done, count); });
  if (json) {
    std::cout << nlohmann::json{{"out", options.out},
                                {"count", result.count},
                                {"channels", result.channels},
                                {"side", result.side},
                                {"num_classes", result.num_classes},
                                {"reused", result.reused},
                                {"others", result.num_others},
                                {"sha256", result.sha256}}
                     .dump()
              << "\n";
    return 0;
  }
  std::cout << options.out << ": " << with_thousands(result.count) << " pictures "
            << result.channels << "x" << result.side << "x" << result.side << ", "
            << (result.num_classes > 0 ? std::to_string(result.num_classes) + " classes"
                                       : std::string("no labels"));
  if (result.reused > 0)
    std::cout << "; " << with_thousands(result.reused) << " were packed before";
  if (result.num_others > 0) std::cout << "; " << result.num_others << " other files left out";
  std::cout << "; sha256 " << result.sha256 << "\n";
  return 0;
}

}  // namespace onestep
