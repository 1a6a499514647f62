// Runs a fuzz target over its corpus and over mutated inputs, the same ones every time. No
// sanitizer or libFuzzer is needed; an input that kills the program is written to
// build/fuzz/died-<target>.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <filesystem>
#include <random>
#include <vector>

#include "fuzz/fuzz_target.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> corpus() {
  std::vector<std::string> paths, seeds;
  for (const auto& entry : fs::directory_iterator(std::string(ONESTEP_FUZZ_CORPUS)))
    paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths) seeds.push_back(slurp(path));
  return seeds;
}

class Mutator {
 public:
  explicit Mutator(std::vector<std::string> seeds) : seeds_(std::move(seeds)) {}

  std::string next() {
    std::string text = pick();
    for (std::size_t n = 1 + below(4); n > 0; --n) change(text);
    return text;
  }

 private:
  std::size_t below(std::size_t limit) { return limit == 0 ? 0 : random_() % limit; }
  const std::string& pick() { return seeds_[below(seeds_.size())]; }

  void change(std::string& text) {
    const std::size_t at = below(text.size()), length = 1 + below(16);
    switch (below(8)) {
      case 0:
        if (!text.empty()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      case 1:
        if (!text.empty()) text[at] = static_cast<char>(below(256));
        break;
      case 2:
        text.resize(at);
        break;
      case 3:
        text.insert(at, length, static_cast<char>(below(256)));
        break;
      case 4:
        text.erase(at, length);
        break;
      case 5:
        text.insert(at, text.substr(below(text.size()), length));
        break;
      case 6: {  // the sizes that readers get wrong
        static constexpr std::array<std::uint64_t, 8> kSizes{
            0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, ~std::uint64_t{0}};
        const std::uint64_t size = kSizes[below(kSizes.size())];
        for (std::size_t i = 0; i < 8 && at + i < text.size(); ++i)
          text[at + i] = static_cast<char>((size >> (8 * i)) & 0xFF);
        break;
      }
      default: {
        const std::string& other = pick();
        const std::size_t cut = below(other.size());
        text = text.substr(0, at) + other.substr(cut);
      }
    }
  }

  std::vector<std::string> seeds_;
  std::mt19937_64 random_{20231128};
};

// The input under way, for the handler of the signal that it may end in.
const std::string* current_input = nullptr;
const std::string kDied = std::string(ONESTEP_BINARY_DIR) + "/fuzz/died-" + ONESTEP_FUZZ_NAME;

void keep_input(int signal) {
  const int file = ::open(kDied.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file >= 0 && ::write(file, current_input->data(), current_input->size()) >= 0) ::close(file);
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

void run(const std::string& input) {
  current_input = &input;
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
}

TEST(Fuzz, EveryMutatedInputIsRefusedOrRead) {
  const auto seeds = corpus();
  ASSERT_FALSE(seeds.empty());
  for (const int signal : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE}) ::signal(signal, keep_input);
  for (const std::string& seed : seeds) run(seed);
  run("");
  Mutator mutator(seeds);
  for (int i = 0; i < ONESTEP_FUZZ_INPUTS; ++i) run(mutator.next());
}

}  // namespace
}  // namespace onestep
