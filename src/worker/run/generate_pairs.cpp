// Draws noise, runs the teacher's sampler, writes the pair set shard by shard.
#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

#include "common/error.h"
#include "common/log.h"
#include "common/pair_file.h"
#include "common/shard_plan.h"
#include "worker/run/job_text.h"
#include "worker/run/jobs.h"
#include "worker/run/model_folder.h"
#include "worker/run/stop_request.h"
#include "worker/sampling/sampler.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

PairSetInfo describe(const RunContext& context, const GeneratePairsSpec& spec, const LoadedModel& teacher,
                     const PromptEmbeddings* prompts) {
  const ImageShape shape = teacher.denoiser->image_shape();
  PairSetInfo info;
  info.teacher_sha256 = teacher.sha256;
  info.sampler = to_json(spec.sampler).dump();
  const bool few = spec.sampler.kind == "few_step";
  info.steps = few ? static_cast<int>(spec.sampler.timesteps.size())
                   : static_cast<int>(spec.sampler.kind == "one_step" ? 1 : spec.sampler.steps);
  info.seed = context.spec.seed;
  info.channels = shape.channels;
  info.height = shape.height;
  info.width = shape.width;
  info.count = spec.count;
  info.rows_per_shard = spec.rows_per_shard;
  if (prompts != nullptr) info.prompts_sha256 = prompts->info().digest();
  return info;
}

// Rows of one shard; network calls of `batch` rows counted from the shard's first row, so bits don't depend on ranks.
PairRows generate_rows(const RunContext& context, const GeneratePairsSpec& spec, Denoiser& teacher,
                       const PromptEmbeddings* prompts, const Shard& shard) {
  const ImageShape shape = teacher.image_shape();
  PairRows rows;
  for (std::int64_t done = 0; done < shard.count; done += spec.batch) {
    const std::int64_t first = shard.first + done;
    const std::int64_t count = std::min(spec.batch, shard.count - done);
    const auto noise = keyed_normal({context.spec.seed, RandomStream::kPairNoise, 0}, first, count,
                                    {shape.channels, shape.height, shape.width});
    const auto [labels, condition, null_text] = numbered_rows(teacher, prompts, first, count);
    SampleOptions options;
    options.rows = SampleRows{context.spec.seed, first};
    options.null_text = null_text;
    const auto image = sample(teacher, spec.sampler, noise, condition, options).contiguous();
    rows.noise.insert(rows.noise.end(), noise.const_data_ptr<float>(), noise.const_data_ptr<float>() + noise.numel());
    rows.image.insert(rows.image.end(), image.const_data_ptr<float>(), image.const_data_ptr<float>() + image.numel());
    rows.label.insert(rows.label.end(), labels.const_data_ptr<std::int64_t>(),
                      labels.const_data_ptr<std::int64_t>() + count);
    for (std::int64_t row = 0; row < count; ++row) rows.index.push_back(first + row);
  }
  return rows;
}

nlohmann::json to_json(const PairShardRecord& record) {
  return {{"index", record.index}, {"file", record.file},   {"first", record.first},
          {"count", record.count}, {"bytes", record.bytes}, {"sha256", record.sha256}};
}

PairShardRecord record_from(const nlohmann::json& json) {
  return {json.at("index"), json.at("file"), json.at("first"), json.at("count"), json.at("bytes"), json.at("sha256")};
}

// Leases are the coordinator's record of who makes what; the plan itself is the same pure function on both sides, so a
// coordinator that is away holds nobody up.
void lease_shards(const RunContext& context) {
  constexpr auto kPatience = std::chrono::seconds(2);
  constexpr auto kPause = std::chrono::milliseconds(10);
  context.telemetry.request_shards();
  const auto start = std::chrono::steady_clock::now();
  while (context.has_coordinator && std::chrono::steady_clock::now() - start < kPatience) {
    for (const TelemetryCommand& command : context.telemetry.poll()) {
      if (command.type == MessageType::kShardPlan) {
        log_info("the coordinator leases " + std::to_string(command.body.at("shards").size()) + " shards to this rank");
        return;
      }
      if (command.type == MessageType::kRefused || command.type == MessageType::kStop) {
        throw Error(command.type == MessageType::kStop ? ErrorCode::kInterrupted : ErrorCode::kConflict,
                    "the coordinator stops this attempt: " + command.body.value("reason", std::string("no reason given")));
      }
    }
    std::this_thread::sleep_for(kPause);
  }
  if (context.has_coordinator) log_warning("no shard leases within 2 s: going on by the plan");
}

}  // namespace

JobResult run_generate_pairs(const RunContext& context) {
  const auto& spec = std::get<GeneratePairsSpec>(context.spec.options);
  const int rank = context.communicator.rank();
  LoadedModel teacher = load_model(spec.teacher, "ema", spec.like);
  const auto prompts = load_job_text(teacher, spec.prompts, /*verify=*/rank == 0).prompts;
  const PairSetInfo info = describe(context, spec, teacher, prompts.get());
  const auto plan = plan_shards(spec.count, spec.rows_per_shard, context.communicator.size());
  lease_shards(context);

  // Finished shards of an earlier attempt stand; a damaged one is named and made again.
  const auto start = std::chrono::steady_clock::now();
  auto records = nlohmann::json::array();
  std::int64_t made = 0, rows_done = 0, rows_mine = 0;
  for (const Shard& shard : plan) rows_mine += shard.rank == rank ? shard.count : 0;
  for (const Shard& shard : plan) {
    if (shard.rank != rank) continue;
    std::optional<PairShardRecord> record;
    try {
      record = verify_pair_shard(context.run, info, shard.index);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kMismatch) throw;
      if (error.code() != ErrorCode::kNotFound) log_warning(std::string("shard is made again: ") + error.what());
    }
    if (!record) {
      stop_if_asked(context, "finished shards are kept");
      record = write_pair_shard(context.run, info, shard.index, context.attempt,
                                generate_rows(context, spec, *teacher.denoiser, prompts.get(), shard));
      made += shard.count;
    }
    rows_done += shard.count;
    context.telemetry.post(MessageType::kShardDone, {{"attempt", context.attempt},
                                                     {"index", record->index},
                                                     {"first", record->first},
                                                     {"count", record->count},
                                                     {"sha256", record->sha256}});
    records.push_back(to_json(*record));
    if (rank == 0) {
      const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      const double rate = static_cast<double>(made * context.communicator.size()) / elapsed;
      const auto total = static_cast<double>(spec.count);
      const double images = total * static_cast<double>(rows_done) / static_cast<double>(rows_mine);
      context.telemetry.post(MessageType::kProgress,
                             {{"stage", "pairs"},
                              {"iteration", records.size()},
                              {"iterations", (plan.size() + context.communicator.size() - 1) / context.communicator.size()},
                              {"images", static_cast<std::int64_t>(images)},
                              {"images_total", spec.count},
                              {"images_per_second", rate},
                              {"seconds_left", rate > 0 ? (total - images) / rate : 0.0},
                              {"metrics", nlohmann::json::object()}});
    }
  }

  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const auto texts = context.communicator.gather_texts(records.dump(), 0);
  JobResult result;
  if (rank == 0) {
    PairSetManifest manifest;
    manifest.info = info;
    for (const std::string& text : texts) {
      for (const auto& record : nlohmann::json::parse(text)) manifest.shards.push_back(record_from(record));
    }
    std::sort(manifest.shards.begin(), manifest.shards.end(),
              [](const auto& a, const auto& b) { return a.index < b.index; });
    write_pair_manifest(context.run, manifest);
    result.digest = pair_set_digest(context.run);
    result.result = {{"count", spec.count},
                     {"teacher_sha256", teacher.sha256},
                     {"images_per_second", static_cast<double>(made * context.communicator.size()) / seconds}};
  }
  return result;
}

}  // namespace onestep
