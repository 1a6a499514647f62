// JSON Schema (2020-12) of job specs and pipelines, made of the same field lists that read them.
#pragma once

#include <nlohmann/json.hpp>

namespace onestep {

// An object schema by name: one a job kind ("Job_distill", ...), "Job" (any of them), "PipelineJob" (with "after") and
// "Pipeline". References start with `prefix`, such as "#/components/schemas/". What only a whole spec can show (ranks that
// divide micro-batches, references, circles) is not in a schema.
nlohmann::ordered_json job_spec_schemas(const std::string& prefix);

}  // namespace onestep
