#include "coordinator/launcher/slurm_room.h"

#include <algorithm>

namespace onestep {
namespace {

constexpr double kClearing_s = 15;  // Slurm's own, after the last process of a step has ended

bool is_among(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

SlurmRoom slurm_room(const std::vector<SlurmNode>& allocation, const std::vector<LeftStep>& left, double slurmd_timeout_s) {
  SlurmRoom room;
  for (const SlurmNode& node : allocation) (node.usable ? room.nodes : room.away).push_back(node.name);
  const std::vector<std::string> answering = room.nodes;
  for (const LeftStep& step : left) {
    const auto lost = std::find_if(step.nodes.begin(), step.nodes.end(), [&](const std::string& node) { return !is_among(answering, node); });
    if (lost != step.nodes.end()) {
      room.overlap = true;
      room.reason = "step " + step.id + " has ended, but Slurm keeps it since node " + *lost + " was lost; working beside it on " + comma_separated(answering);
    } else if (step.age_s >= 2 * slurmd_timeout_s + 60) {
      room.overlap = true;
      room.reason = "step " + step.id + " has ended, but Slurm still keeps it; working beside it";
    } else if (step.age_s < kClearing_s) {
      room.wait = true;
    } else {
      std::erase_if(room.nodes, [&](const std::string& node) { return is_among(step.nodes, node); });
      room.reason = "step " + step.id + " has ended, but Slurm still keeps " + comma_separated(step.nodes) +
                    " for it: waiting until Slurm clears it or misses a node (SlurmdTimeout)";
    }
  }
  return room;
}

std::optional<SlurmPlace> place_ranks(int ranks, int ranks_per_node, const std::vector<std::string>& nodes, const UsedSlots& used) {
  const auto num_nodes = static_cast<std::size_t>((ranks + ranks_per_node - 1) / ranks_per_node);
  if (nodes.size() < num_nodes) return std::nullopt;
  const auto slots_used = [&](const std::string& node) -> const std::set<int>& {
    static const std::set<int> kNone;
    const auto found = used.find(node);
    return found == used.end() ? kNone : found->second;
  };
  const int per_node = std::min(ranks, ranks_per_node);
  const auto free = [&](const std::string& node) { return ranks_per_node - static_cast<int>(slots_used(node).size()); };
  std::vector<std::string> order = nodes;
  // What suffices and leaves least comes first; then what is least used.
  std::stable_sort(order.begin(), order.end(), [&](const std::string& a, const std::string& b) {
    const bool a_suffices = free(a) >= per_node, b_suffices = free(b) >= per_node;
    if (a_suffices != b_suffices) return a_suffices;
    return a_suffices ? free(a) < free(b) : free(a) > free(b);
  });
  order.resize(num_nodes);
  SlurmPlace place{order, {}, std::any_of(order.begin(), order.end(), [&](const std::string& node) { return free(node) < per_node; })};
  for (int slot = 0; slot < ranks_per_node && static_cast<int>(place.slots.size()) < per_node; ++slot) {
    const bool taken = !place.shared && slots_used(order[0]).contains(slot);
    if (!taken) place.slots.push_back(slot);
  }
  return place;
}

}  // namespace onestep
