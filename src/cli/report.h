// The figures of a finished pipeline with the jobs of configs/digits or configs/sd15/tiny.json: report.json, grid.png and the table on the
// screen.
#pragma once

#include <nlohmann/json.hpp>

#include <map>
#include <string>

#include "cli/client.h"

namespace onestep {

// `jobs`: GET /jobs/{id} of each job of the pipeline, by name. Errors: kNotFound naming the job and the figure that is
// missing, kConflict for a job that has not succeeded. Regression alone is left out where the pipeline has no such job.
nlohmann::ordered_json make_report(const std::map<std::string, nlohmann::json>& jobs);

// The table for a person. Errors: kCorrupt when `report` lacks a figure; `where` names the file.
std::string report_table(const nlohmann::ordered_json& report, const std::string& where);

// Fetches the jobs, writes `out`/grid.png and then `out`/report.json, prints the table (with `json`, the report).
void write_report(const Client& client, const std::string& pipeline, const std::string& out, bool json);
// Prints what an earlier write_report() left in `out`; no coordinator. Errors: kNotFound, kCorrupt.
void show_saved_report(const std::string& out, bool json);

}  // namespace onestep
