// Shows how a pipeline's jobs stand: bars that are redrawn on a terminal, a line a change elsewhere.
#pragma once

#include <nlohmann/json.hpp>

#include <iosfwd>
#include <map>
#include <string>
#include <vector>

namespace onestep {

// One job of GET /pipelines/{id} in one line: name, bar, stage, images, images/s, loss, time left; or its state and
// reason. At most `columns` wide, `name_width` for the name.
std::string job_line(const nlohmann::json& job, std::size_t name_width, std::size_t columns);

// "alarm fake_loss: REASON", of an alarm as REST shows it; "(over)" behind the code when it no longer holds.
std::string alarm_line(const nlohmann::json& alarm);

class ProgressView {
 public:
  // `redraw`: the stream is a terminal of `columns` columns that understands ANSI sequences.
  ProgressView(std::ostream& out, bool redraw, std::size_t columns);
  void show(const std::vector<nlohmann::json>& jobs);
  // A line that stays, e.g. "the coordinator is away".
  void note(const std::string& text);

 private:
  void draw_block(const std::vector<nlohmann::json>& jobs);
  void print_changes(const std::vector<nlohmann::json>& jobs);

  std::ostream& out_;
  bool redraw_;
  std::size_t columns_;
  std::vector<std::string> drawn_;             // the block on the screen
  std::map<std::string, std::string> printed_;  // job name -> what was last printed about it
};

}  // namespace onestep
