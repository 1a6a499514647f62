#include "cli/network_layouts.h"

#include <array>

#include "cli/layout_builder.h"

namespace onestep {
namespace {

// Convolutions without bias, each with a batch norm.
class InceptionBuilder {
 public:
  NetworkLayout build() {
    unit("Conv2d_1a_3x3", 3, 32, 3, 3);
    unit("Conv2d_2a_3x3", 32, 32, 3, 3);
    unit("Conv2d_2b_3x3", 32, 64, 3, 3);
    unit("Conv2d_3b_1x1", 64, 80, 1, 1);
    unit("Conv2d_4a_3x3", 80, 192, 3, 3);
    block_a("Mixed_5b.", 192, 32);
    block_a("Mixed_5c.", 256, 64);
    block_a("Mixed_5d.", 288, 64);
    unit("Mixed_6a.branch3x3", 288, 384, 3, 3);
    unit("Mixed_6a.branch3x3dbl_1", 288, 64, 1, 1);
    unit("Mixed_6a.branch3x3dbl_2", 64, 96, 3, 3);
    unit("Mixed_6a.branch3x3dbl_3", 96, 96, 3, 3);
    block_c("Mixed_6b.", 128);
    block_c("Mixed_6c.", 160);
    block_c("Mixed_6d.", 160);
    block_c("Mixed_6e.", 192);
    unit("Mixed_7a.branch3x3_1", 768, 192, 1, 1);
    unit("Mixed_7a.branch3x3_2", 192, 320, 3, 3);
    unit("Mixed_7a.branch7x7x3_1", 768, 192, 1, 1);
    unit("Mixed_7a.branch7x7x3_2", 192, 192, 1, 7);
    unit("Mixed_7a.branch7x7x3_3", 192, 192, 7, 1);
    unit("Mixed_7a.branch7x7x3_4", 192, 192, 3, 3);
    block_e("Mixed_7b.", 1280);
    block_e("Mixed_7c.", 2048);
    builder_.linear("fc", 2048, 1008);
    return builder_.take();
  }

 private:
  void unit(const std::string& name, std::int64_t in, std::int64_t out, std::int64_t height,
            std::int64_t width) {
    builder_.pair(name + ".conv", {out, in, height, width}, false);
    builder_.norm(name + ".bn", out);
    builder_.buffer(name + ".bn.running_mean", {out});
    builder_.buffer(name + ".bn.running_var", {out});
    builder_.buffer(name + ".bn.num_batches_tracked", {});
  }
  void block_a(const std::string& name, std::int64_t in, std::int64_t pool) {
    unit(name + "branch1x1", in, 64, 1, 1);
    unit(name + "branch5x5_1", in, 48, 1, 1);
    unit(name + "branch5x5_2", 48, 64, 5, 5);
    unit(name + "branch3x3dbl_1", in, 64, 1, 1);
    unit(name + "branch3x3dbl_2", 64, 96, 3, 3);
    unit(name + "branch3x3dbl_3", 96, 96, 3, 3);
    unit(name + "branch_pool", in, pool, 1, 1);
  }
  void block_c(const std::string& name, std::int64_t inner) {
    unit(name + "branch1x1", 768, 192, 1, 1);
    unit(name + "branch7x7_1", 768, inner, 1, 1);
    unit(name + "branch7x7_2", inner, inner, 1, 7);
    unit(name + "branch7x7_3", inner, 192, 7, 1);
    unit(name + "branch7x7dbl_1", 768, inner, 1, 1);
    unit(name + "branch7x7dbl_2", inner, inner, 7, 1);
    unit(name + "branch7x7dbl_3", inner, inner, 1, 7);
    unit(name + "branch7x7dbl_4", inner, inner, 7, 1);
    unit(name + "branch7x7dbl_5", inner, 192, 1, 7);
    unit(name + "branch_pool", 768, 192, 1, 1);
  }
  void block_e(const std::string& name, std::int64_t in) {
    unit(name + "branch1x1", in, 320, 1, 1);
    unit(name + "branch3x3_1", in, 384, 1, 1);
    unit(name + "branch3x3_2a", 384, 384, 1, 3);
    unit(name + "branch3x3_2b", 384, 384, 3, 1);
    unit(name + "branch3x3dbl_1", in, 448, 1, 1);
    unit(name + "branch3x3dbl_2", 448, 384, 3, 3);
    unit(name + "branch3x3dbl_3a", 384, 384, 1, 3);
    unit(name + "branch3x3dbl_3b", 384, 384, 3, 1);
    unit(name + "branch_pool", in, 192, 1, 1);
  }

  LayoutBuilder builder_{"Inception v3 (2015-12-05)"};
};

}  // namespace

NetworkLayout inception_layout() { return InceptionBuilder().build(); }

NetworkLayout vgg16_layout() {
  LayoutBuilder builder("VGG16 (torchvision's features)");
  constexpr std::array<std::array<std::int64_t, 3>, 13> kLayers{{{0, 3, 64},
                                                                 {2, 64, 64},
                                                                 {5, 64, 128},
                                                                 {7, 128, 128},
                                                                 {10, 128, 256},
                                                                 {12, 256, 256},
                                                                 {14, 256, 256},
                                                                 {17, 256, 512},
                                                                 {19, 512, 512},
                                                                 {21, 512, 512},
                                                                 {24, 512, 512},
                                                                 {26, 512, 512},
                                                                 {28, 512, 512}}};
  for (const auto& [index, in, out] : kLayers)
    builder.conv("features." + std::to_string(index), in, out, 3);
  return builder.take();
}

NetworkLayout lpips_layout() {
  LayoutBuilder builder("LPIPS v0.1 weights for VGG16");
  constexpr std::array<std::int64_t, 5> kChannels{64, 128, 256, 512, 512};
  for (std::size_t i = 0; i < kChannels.size(); ++i) {
    builder.conv("lin" + std::to_string(i) + ".model.1", kChannels[i], 1, 1, false);
  }
  return builder.take();
}

NetworkLayout digit_detector_layout(std::int64_t channels, std::int64_t pooled_pixels,
                                    std::int64_t num_classes) {
  LayoutBuilder builder("Onestep digit detector");
  builder.conv("conv1", channels, 32, 3);
  builder.conv("conv2", 32, 64, 3);
  builder.linear("fc1", 64 * pooled_pixels, 64);
  builder.linear("fc2", 64, num_classes);
  return builder.take();
}

}  // namespace onestep
