#include "parity/parity_table.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <sstream>

#include "common/error.h"

namespace onestep {
namespace {

constexpr const char* kHead =
    "# Parity: what equals what, how far, and how far it may be\n\n"
    "Written by `tools/parity.sh`, which runs the tests that compare and collects what they found; `tests/parity` checks that every\n"
    "component is here and that nothing is beyond its bound. The references are the packages themselves: `tools/golden/` runs them and\n"
    "keeps what they compute, so that the tests need no Python. Weights are random and keyed by the names of the tensors, the same on\n"
    "both sides. \"twin\" is a PyTorch module written from the published description, where no package holds the reference.\n\n"
    "A cell says the largest difference and, in brackets, the bound that the test asserts; 0 (0) is equality bit for bit. A row of small\n"
    "networks covers the whole output and the gradient of every parameter and input; one of published networks 1,000 values and the\n"
    "moments of each output, 1,000 values of some gradients from both ends and the middle, and the norm of every parameter's gradient.\n";
constexpr const char* kColumns =
    "| component | reference | inputs | difference is | forward | backward | verdict |\n"
    "| --- | --- | --- | --- | --- | --- | --- |\n";

// What has no row above, and why.
constexpr const char* kNotCompared =
    "\n## Not compared\n\n"
    "| what | why |\n"
    "| --- | --- |\n"
    "| published weights, and the published FIDs (1.79 CIFAR-10, 2.39 FFHQ, 1.96 AFHQ, 1.36 ImageNet-64) | the weights have not been at hand; "
    "networks, samplers, resizes and distances are compared one by one above |\n"
    "| AFHQ-64 | no row of its own: the network is FFHQ's, tensor for tensor |\n"
    "| bf16 of `inception` and `vgg_lpips` | none: metrics and the regression's distance run in fp32 alone, other weights are refused |\n"
    "| backward pass of `inception` | none: features are not differentiated |\n"
    "| NVIDIA's Inception file | its names are taken from the graph and tested on a file made for the test; the file itself has not been seen |\n"
    "| OpenAI's own tokenizer, transformers' slow one with ftfy | they clean text in another way; the one that diffusers loads is followed |\n"
    "| dropout and augmentation labels | not there: no network drops, and labels are zeros as when none are given |\n";

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2g", value);
  return text;
}

std::string cell(const std::optional<ParitySide>& side, const std::string& reason) {
  if (!side) return reason.empty() ? "not compared" : reason;
  return number(side->difference) + " (" + number(side->bound) + ")";
}

bool passes(const ParityRecord& row) {
  return row.forward && row.forward->passes() && (row.backward ? row.backward->passes() : !row.no_backward.empty());
}

std::string line_of(const ParityRecord& row) {
  return "| " + row.component + " | " + row.reference + " | " + row.inputs + " | " + row.measure + " | " + cell(row.forward, "") + " | " +
         cell(row.backward, row.no_backward) + " | " + (passes(row) ? "passes" : "FAILS") + " |\n";
}

std::optional<ParitySide> side_of(const nlohmann::json& side) {
  if (side.is_null()) return std::nullopt;
  // JSON has no word for what is not a number.
  const auto value = [](const nlohmann::json& n) { return n.is_null() ? std::numeric_limits<double>::quiet_NaN() : n.get<double>(); };
  return ParitySide{value(side.at("difference")), value(side.at("bound"))};
}

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells;
  std::size_t begin = 2;
  for (std::size_t end; (end = line.find(" |", begin)) != std::string::npos; begin = end + 3) {
    cells.push_back(line.substr(begin, end - begin));
  }
  return cells;
}

std::optional<ParitySide> side_of(const std::string& cell) {
  ParitySide side;
  if (std::sscanf(cell.c_str(), "%lf (%lf)", &side.difference, &side.bound) != 2) return std::nullopt;
  return side;
}

}  // namespace

const std::vector<ParityComponent>& parity_components() {
  static const std::vector<ParityComponent> kComponents = {
      {"Networks", "song_unet, DDPM++"},
      {"Networks", "song_unet, NCSN++"},
      {"Networks", "adm_unet"},
      {"Networks", "sd_unet, Stable Diffusion 1.5"},
      {"Networks", "sd_unet, Stable Diffusion 2.1"},
      {"Networks", "autoencoder_kl, encoder"},
      {"Networks", "autoencoder_kl, decoder"},
      {"Networks", "tiny_autoencoder"},
      {"Networks", "clip_text"},
      {"Networks", "bpe_tokenizer"},
      {"Networks", "vgg_lpips"},
      {"Networks", "inception"},
      {"Preconditioners and predictions", "EDM preconditioner"},
      {"Preconditioners and predictions", "VP preconditioner"},
      {"Preconditioners and predictions", "VE preconditioner"},
      {"Preconditioners and predictions", "iDDPM preconditioner"},
      {"Preconditioners and predictions", "x0 from epsilon, v and x0"},
      {"Samplers and guidance", "noise table of EDM"},
      {"Samplers and guidance", "noise table of iDDPM"},
      {"Samplers and guidance", "noise table of Stable Diffusion"},
      {"Samplers and guidance", "heun"},
      {"Samplers and guidance", "euler"},
      {"Samplers and guidance", "ddim"},
      {"Samplers and guidance", "pndm"},
      {"Samplers and guidance", "one_step"},
      {"Samplers and guidance", "classifier-free guidance"},
      {"Metrics", "FID, resize of pytorch-fid"},
      {"Metrics", "FID, resize of TensorFlow 1"},
      {"Metrics", "FID, resize of clean-fid"},
      {"Metrics", "Frechet distance"},
      {"Metrics", "Inception Score"},
      {"Metrics", "KID"},
      {"Metrics", "precision and recall"},
      {"Metrics", "Lanczos resize"},
      {"Files", "safetensors"},
      {"Files", "npz"},
      {"Files", "diffusers export"},
  };
  return kComponents;
}

std::vector<ParityRecord> recorded_rows(const nlohmann::json& report) {
  std::vector<ParityRecord> rows;
  for (const auto& suite : report.at("testsuites")) {
    for (const auto& test : suite.at("testsuite")) {
      for (const auto& [key, value] : test.items()) {
        if (!key.starts_with(kParityProperty) || !value.is_string()) continue;
        const auto row = nlohmann::json::parse(value.get<std::string>());
        const auto text = [&](const char* name) { return row.at(name).get<std::string>(); };
        rows.push_back({text("component"), text("reference"), text("inputs"), text("measure"), text("no_backward"),
                        side_of(row.at("forward")), side_of(row.at("backward"))});
      }
    }
  }
  return rows;
}

std::string parity_document(const std::vector<ParityRecord>& rows) {
  std::string document = kHead, section;
  for (const ParityComponent& component : parity_components()) {
    if (component.section != section) {
      section = component.section;
      document += "\n## " + section + "\n\n" + kColumns;
    }
    for (const ParityRecord& row : rows) {
      if (row.component == component.name) document += line_of(row);
    }
  }
  return document + kNotCompared;
}

std::vector<ParityRecord> rows_of_document(const std::string& document) {
  std::vector<ParityRecord> rows;
  std::istringstream lines(document);
  std::string line;
  for (bool in_table = false; std::getline(lines, line);) {
    if (!line.starts_with("|")) {
      in_table = false;
    } else if (line.starts_with("| component |")) {
      in_table = true;
    } else if (in_table && !line.starts_with("| ---")) {
      const auto cells = cells_of(line);
      if (cells.size() != 7) throw Error(ErrorCode::kCorrupt, "parity: expected a row of 7 cells, found " + line);
      const auto forward = side_of(cells[4]), backward = side_of(cells[5]);
      rows.push_back({cells[0], cells[1], cells[2], cells[3], backward ? "" : cells[5], forward, backward});
    }
  }
  return rows;
}

std::vector<std::string> parity_faults(const std::vector<ParityRecord>& rows) {
  std::vector<std::string> faults;
  for (const ParityComponent& component : parity_components()) {
    if (std::none_of(rows.begin(), rows.end(), [&](const auto& row) { return row.component == component.name; })) {
      faults.push_back(std::string(component.name) + ": no row");
    }
  }
  for (const ParityRecord& row : rows) {
    const auto& known = parity_components();
    const std::string about = row.component + " (" + row.inputs + "): ";
    if (std::none_of(known.begin(), known.end(), [&](const auto& component) { return row.component == component.name; })) {
      faults.push_back(about + "not one of the components of tests/parity/parity_table.cpp");
    }
    if (!row.forward) faults.push_back(about + "forward: nothing was compared");
    if (!row.backward && (row.no_backward.empty() || row.no_backward == cell({}, ""))) {
      faults.push_back(about + "backward: nothing was compared, and no reason is given");
    }
    for (const auto& [name, side] : {std::pair("forward", row.forward), std::pair("backward", row.backward)}) {
      if (side && !side->passes()) {
        faults.push_back(about + name + ": expected at most " + number(side->bound) + ", found " + number(side->difference));
      }
    }
  }
  return faults;
}

}  // namespace onestep
