// Image packing's decoder and resizing: every picture that is accepted has all its pixels.
#include <cstdlib>

#include "common/image_decode.h"
#include "common/image_resize.h"
#include "fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace onestep;
  try {
    const DecodedImage image =
        decode_image({reinterpret_cast<const std::byte*>(data), size}, "input");
    if (image.pixels.size() !=
        static_cast<std::size_t>(image.width * image.height * image.channels))
      std::abort();
    if (image.pixels.size() < (std::size_t{1} << 16))
      static_cast<void>(resize(center_crop(image), 7, 5, ResizeFilter::kLanczos));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCorrupt) std::abort();
  }
  return 0;
}
