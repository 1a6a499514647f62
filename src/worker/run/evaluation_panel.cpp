#include "worker/run/evaluation_panel.h"

#include "common/durable_file.h"

namespace onestep {

void write_evaluation_panel(const std::string& run, const Picture& grid, const std::string& caption,
                            const std::vector<std::string>& compare) {
  write_png(run + "/panel.png", grid);
  write_file_durably(run + "/panel.txt", caption + "\n");
  std::vector<Panel> panels;
  for (const std::string& other : compare) {
    std::string text = read_file(other + "/panel.txt");
    if (!text.empty() && text.back() == '\n') text.pop_back();
    panels.push_back({text, read_png(other + "/panel.png")});
  }
  panels.push_back({caption, grid});
  write_png(run + "/comparison.png", join_panels(panels));
}

std::string steps_text(const SamplerSpec& sampler) {
  const auto steps = sampler.kind == "few_step" ? static_cast<std::int64_t>(sampler.timesteps.size()) : sampler.steps;
  return sampler.kind == "one_step" || steps == 1 ? "1 step" : std::to_string(steps) + " steps";
}

}  // namespace onestep
