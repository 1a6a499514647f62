// The fields of every job spec, each listed once with its JSON key and its range; reading, writing
// and the walk over paths are visitors of these lists. Private to job_spec.cpp.
#pragma once

#include <cstdint>
#include <limits>

#include "common/job_spec.h"
#include "common/sampler_kinds.h"

namespace onestep {

enum class Presence { kOptional, kRequired };

constexpr std::int64_t kMaxCount = std::int64_t{1} << 40;  // images, rows
constexpr std::int64_t kMaxIterations =
    (std::int64_t{1} << 32) - 1;  // a step is 32 bits of the random counter
constexpr std::int64_t kMaxBatch = 1 << 20;
constexpr double kSmallest = 1e-12;  // for what must be more than 0
constexpr double kLargest = 1e12;

template <class Visitor>
void describe(Visitor& v, DatasetSpec& s, Presence presence = Presence::kRequired) {
  v.path("path", s.path, presence);
  v.integer("resolution", s.resolution, 0, 4096);
}

// Whether a field is to be visited that is written only when it differs from its default: what was hashed before the field
// existed keeps its digest.
template <class Visitor, class Value>
bool tells(const Value& value, const Value& usual) {
  return Visitor::kReads || value != usual;
}

template <class Visitor>
void describe(Visitor& v, NetworkSpec& s) {
  const NetworkSpec usual;
  v.choice("class", s.network_class, {"adm_unet", "song_unet"});
  v.choice("preconditioner", s.preconditioner, {"edm", "vp", "ve", "iddpm"});
  v.integer("image_size", s.image_size, 1, 4096);
  v.integer("image_channels", s.image_channels, 1, 64);
  v.integer("pixel_unshuffle", s.pixel_unshuffle, 1, 64);
  v.integer("model_channels", s.model_channels, 4, 4096);
  v.integers("channel_mult", s.channel_mult, 1, 64);
  v.integer("channel_mult_emb", s.channel_mult_emb, 1, 64);
  v.integer("num_blocks", s.num_blocks, 1, 64);
  v.integers("attention_resolutions", s.attention_resolutions, 1, 4096);
  v.integer("label_dim", s.label_dim, 0, 1 << 20);
  v.number("sigma_data", s.sigma_data, kSmallest, kLargest);
  if (tells<Visitor>(s.dropout, usual.dropout)) v.number("dropout", s.dropout, 0.0, 1.0);
  if (s.network_class == "adm_unet") {
    v.integer("channels_per_head", s.channels_per_head, 1, 4096);
    v.choice("noise_frequencies", s.noise_frequencies, {"published", "geometric"});
  } else {
    v.choice("embedding_type", s.embedding_type, {"positional", "fourier"});
    v.integer("channel_mult_noise", s.channel_mult_noise, 1, 64);
    v.choice("encoder_type", s.encoder_type, {"standard", "residual"});
    v.integers("resample_filter", s.resample_filter, 1, 1 << 20);
    v.integer("augment_dim", s.augment_dim, 0, 4096);
  }
}

template <class Visitor>
void describe(Visitor& v, OptimizerSpec& s) {
  v.number("learning_rate", s.learning_rate, 0.0, 10.0);
  v.number("beta1", s.beta1, 0.0, 0.999999);
  v.number("beta2", s.beta2, 0.0, 0.999999);
  v.number("epsilon", s.epsilon, 1e-30, 1.0);
  v.number("weight_decay", s.weight_decay, 0.0, 10.0);
  v.number("clip_norm", s.clip_norm, 0.0, kLargest);
  v.integer("rampup_iterations", s.rampup_iterations, 0, kMaxIterations);
  v.choice("schedule", s.schedule, {"constant", "cosine"});
}

template <class Visitor>
void describe(Visitor& v, CheckpointSpec::Best& s) {
  v.text("metric", s.metric);
  v.choice("direction", s.direction, {"lowest", "highest"});
}

template <class Visitor>
void describe(Visitor& v, HealthSpec& s) {
  v.choice("on_alarm", s.on_alarm, {"continue", "checkpoint", "stop"});
  v.number("fake_loss", s.fake_loss, 0.0, kLargest);
  v.number("regression_loss", s.regression_loss, 0.0, kLargest);
  v.number("mean_shift", s.mean_shift, 0.0, kLargest);
  v.number("spread_loss", s.spread_loss, 0.0, 1.0);
  v.number("gradient_norm", s.gradient_norm, 0.0, kLargest);
  v.number("zero_denominators", s.zero_denominators, 0.0, 1.0);
  v.number("frechet", s.frechet, 0.0, kLargest);
  v.number("class_accuracy", s.class_accuracy, 0.0, 1.0);
  v.number("sustained", s.sustained, 0.0, 1.0);
  v.number("silent_s", s.silent_s, 0.0, kLargest);
  v.number("stalled_s", s.stalled_s, 0.0, kLargest);
  v.number("straggling_s", s.straggling_s, 0.0, kLargest);
}

template <class Visitor>
void describe(Visitor& v, CheckpointSpec& s) {
  const CheckpointSpec usual;
  v.integer("every_iterations", s.every_iterations, 0, kMaxIterations);
  v.integer("keep_last", s.keep_last, 1, 1'000'000);
  if (tells<Visitor>(s.best, usual.best)) v.object("best", s.best);
}

template <class Visitor>
void describe(Visitor& v, SamplerSpec& s) {
  const SamplerSpec usual;
  v.choice("kind", s.kind, sampler_kinds());
  v.integer("steps", s.steps, 1, 100'000);
  v.number("sigma_min", s.sigma_min, kSmallest, kLargest);
  v.number("sigma_max", s.sigma_max, kSmallest, kLargest);
  v.number("rho", s.rho, 1.0, 100.0);
  if (tells<Visitor>(s.guidance_scale, usual.guidance_scale)) v.number("guidance_scale", s.guidance_scale, 0.0, 1000.0);
  if (tells<Visitor>(s.S_churn, usual.S_churn)) v.number("S_churn", s.S_churn, 0.0, kLargest);
  if (tells<Visitor>(s.S_min, usual.S_min)) v.number("S_min", s.S_min, 0.0, kLargest);
  if (tells<Visitor>(s.S_max, usual.S_max)) v.number("S_max", s.S_max, 0.0, kLargest);
  if (tells<Visitor>(s.S_noise, usual.S_noise)) v.number("S_noise", s.S_noise, kSmallest, 100.0);
  if (tells<Visitor>(s.steps_offset, usual.steps_offset)) v.integer("steps_offset", s.steps_offset, 0, 100'000);
  if (tells<Visitor>(s.set_alpha_to_one, usual.set_alpha_to_one)) v.boolean("set_alpha_to_one", s.set_alpha_to_one);
  if (tells<Visitor>(s.timestep, usual.timestep)) v.integer("timestep", s.timestep, 0, 100'000);
  if (tells<Visitor>(s.timesteps, usual.timesteps)) v.numbers("timesteps", s.timesteps, 0.0, kLargest);
}

template <class Visitor>
void describe(Visitor& v, TrainDetectorSpec& s) {
  v.object("dataset", s.dataset);
  v.integer("held_out", s.held_out, 1, kMaxCount);
  v.integer("iterations", s.iterations, 1, kMaxIterations);
  v.integer("batch", s.batch, 1, kMaxBatch);
  v.object("optimizer", s.optimizer);
}

template <class Visitor>
void describe(Visitor& v, TrainTeacherSpec& s) {
  v.object("dataset", s.dataset);
  v.object("network", s.network);
  v.integer("images", s.images, 1, kMaxCount);
  v.integer("batch", s.batch, 1, kMaxBatch);
  v.number("P_mean", s.P_mean, -20.0, 20.0);
  v.number("P_std", s.P_std, kSmallest, 20.0);
  v.number("ema_half_life_images", s.ema_half_life_images, kSmallest, kLargest);
  v.object("optimizer", s.optimizer);
}

template <class Visitor>
void describe(Visitor& v, TrainAutoencoderSpec& s) {
  v.object("dataset", s.dataset);
  v.path("config", s.config, Presence::kRequired);
  v.integer("images", s.images, 1, kMaxCount);
  v.integer("batch", s.batch, 1, kMaxBatch);
  v.choice("loss", s.loss, {"l1", "l2"});
  v.number("kl_weight", s.kl_weight, 0.0, kLargest);
  v.number("ema_half_life_images", s.ema_half_life_images, kSmallest, kLargest);
  v.object("optimizer", s.optimizer);
}

template <class Visitor>
void describe(Visitor& v, EncodeSpec& s) {
  v.object("dataset", s.dataset);
  v.path("autoencoder", s.autoencoder, Presence::kRequired);
  v.integer("batch", s.batch, 1, kMaxBatch);
}

template <class Visitor>
void describe(Visitor& v, TrainTextTeacherSpec& s) {
  v.path("base", s.base, Presence::kRequired);
  v.path("latents", s.latents, Presence::kRequired);
  v.path("prompts", s.prompts, Presence::kRequired);
  v.integer("images", s.images, 1, kMaxCount);
  v.integer("batch", s.batch, 1, kMaxBatch);
  v.number("text_dropout", s.text_dropout, 0.0, 1.0);
  v.number("ema_half_life_images", s.ema_half_life_images, kSmallest, kLargest);
  v.object("optimizer", s.optimizer);
}

template <class Visitor>
void describe(Visitor& v, EncodePromptsSpec& s) {
  v.path("teacher", s.teacher, Presence::kRequired);
  v.path("like", s.like);
  v.path("prompts", s.prompts, Presence::kRequired);
  v.integer("batch", s.batch, 1, kMaxBatch);
}

// What a text-to-image model reads beside itself; absent from the specs of others.
template <class Visitor, class Spec>
void describe_text(Visitor& v, Spec& s) {
  if (Visitor::kReads || !s.like.empty()) v.path("like", s.like);
  if (Visitor::kReads || !s.prompts.empty()) v.path("prompts", s.prompts);
}

template <class Visitor>
void describe(Visitor& v, GeneratePairsSpec& s) {
  v.path("teacher", s.teacher, Presence::kRequired);
  describe_text(v, s);
  v.integer("count", s.count, 1, kMaxCount);
  v.integer("rows_per_shard", s.rows_per_shard, 1, kMaxCount);
  v.integer("batch", s.batch, 1, kMaxBatch);
  v.object("sampler", s.sampler);
}

template <class Visitor>
void describe(Visitor& v, LpipsSpec& s) {
  v.paths("weights", s.weights);
  v.integer("resize", s.resize, 0, 4096);
  v.choice("pooling", s.pooling, {"max", "average"});
}

template <class Visitor>
void describe(Visitor& v, DistillSpec::Warmup& s) {
  v.integer("iterations", s.iterations, 0, kMaxIterations);
  v.integer("pairs", s.pairs, 1, kMaxBatch);
  v.object("optimizer", s.optimizer);
}

template <class Visitor>
void describe(Visitor& v, DistillSpec::FakeWarmup& s) {
  v.integer("iterations", s.iterations, 0, kMaxIterations);
}

template <class Visitor>
void describe(Visitor& v, DistillSpec::Gan& s) {
  const DistillSpec::Gan usual;
  v.object("dataset", s.dataset, Presence::kOptional);
  if (Visitor::kReads || !s.latents.empty()) v.path("latents", s.latents);
  v.number("lambda_generator", s.lambda_generator, 0.0, kLargest);
  v.number("lambda_discriminator", s.lambda_discriminator, kSmallest, kLargest);
  v.number("sigma_lo", s.sigma_lo, kSmallest, kLargest);
  v.number("sigma_hi", s.sigma_hi, kSmallest, kLargest);
  if (tells<Visitor>(s.t_lo, usual.t_lo)) v.number("t_lo", s.t_lo, 0.0, 1.0);
  if (tells<Visitor>(s.t_hi, usual.t_hi)) v.number("t_hi", s.t_hi, 0.0, 1.0);
}

template <class Visitor>
void describe(Visitor& v, DistillSpec::Stage& s) {
  v.integer("from_iteration", s.from_iteration, 0, kMaxIterations);
  v.number("lambda_reg", s.lambda_reg, 0.0, kLargest);
  const DistillSpec::Stage usual;
  if (tells<Visitor>(s.t_hi, usual.t_hi)) v.number("t_hi", s.t_hi, 0.0, 1.0);
  if (Visitor::kReads || !s.decoder.empty()) v.path("decoder", s.decoder);
}

template <class Visitor>
void describe(Visitor& v, DistillSpec::Dmd& s) {
  v.integer("iterations", s.iterations, 0, kMaxIterations);
  v.integer("batch", s.batch, 1, kMaxBatch);
  v.integer("pairs", s.pairs, 0, kMaxBatch);
  v.number("lambda_reg", s.lambda_reg, 0.0, kLargest);
  v.number("lambda_dm", s.lambda_dm, 0.0, kLargest);
  v.number("sigma_lo", s.sigma_lo, kSmallest, kLargest);
  v.number("sigma_hi", s.sigma_hi, kSmallest, kLargest);
  const DistillSpec::Dmd usual;
  if (tells<Visitor>(s.t_lo, usual.t_lo)) v.number("t_lo", s.t_lo, 0.0, 1.0);
  if (tells<Visitor>(s.t_hi, usual.t_hi)) v.number("t_hi", s.t_hi, 0.0, 1.0);
  if (tells<Visitor>(s.guidance_scale, usual.guidance_scale)) v.number("guidance_scale", s.guidance_scale, 1.0, 1000.0);
  if (tells<Visitor>(s.fake_updates_per_generator_update, usual.fake_updates_per_generator_update)) {
    v.integer("fake_updates_per_generator_update", s.fake_updates_per_generator_update, 1, 1000);
  }
  if (tells<Visitor>(s.regression_joins_dm, usual.regression_joins_dm)) v.boolean("regression_joins_dm", s.regression_joins_dm);
  if (tells<Visitor>(s.gan, usual.gan)) v.object("gan", s.gan);
  if (tells<Visitor>(s.schedule, usual.schedule)) v.objects("schedule", s.schedule);
  v.object("generator", s.generator);
  v.object("fake", s.fake);
}

template <class Visitor>
void describe(Visitor& v, DistillSpec::Evaluation& s) {
  v.path("detector", s.detector);
  v.object("dataset", s.dataset, Presence::kOptional);
  v.integer("count", s.count, 2, kMaxCount);
}

template <class Visitor>
void describe(Visitor& v, DistillSpec& s) {
  v.path("teacher", s.teacher, Presence::kRequired);
  describe_text(v, s);
  if (Visitor::kReads || !s.pairs.empty()) v.path("pairs", s.pairs);
  v.integer("max_pairs", s.max_pairs, 0, kMaxCount);
  v.choice("distance", s.distance, {"l2", "lpips"});
  v.object("lpips", s.lpips);
  if (Visitor::kReads || !s.decoder.empty()) v.path("decoder", s.decoder);
  v.number("generator_sigma", s.generator_sigma, kSmallest, kLargest);
  if (Visitor::kReads || !s.student_timesteps.empty()) v.numbers("student_timesteps", s.student_timesteps, 0.0, kLargest);
  v.number("ema_half_life_images", s.ema_half_life_images, kSmallest, kLargest);
  v.object("warmup", s.warmup);
  v.object("fake_warmup", s.fake_warmup);
  v.object("dmd", s.dmd);
  v.object("evaluation", s.evaluation);
}

template <class Visitor>
void describe(Visitor& v, EvaluateSpec& s) {
  v.choice("source", s.source, {"model", "images", "real_split_half"});
  v.path("model", s.model);
  v.path("images", s.images);
  v.choice("weights", s.weights, {"ema", "raw"});
  describe_text(v, s);
  v.object("sampler", s.sampler);
  v.integer("count", s.count, 2, kMaxCount);
  v.integer("batch", s.batch, 1, kMaxBatch);
  v.object("dataset", s.dataset, Presence::kOptional);
  v.path("reference", s.reference);
  v.path("detector", s.detector, Presence::kRequired);
  v.choice("resize", s.resize, {"tf1", "pytorch_fid", "clean_fid"});
  v.integer("lanczos", s.lanczos, 0, 4096);
  v.choices("metrics", s.metrics, {"fid", "is", "kid", "precision_recall"});
  v.paths("compare", s.compare);
}

template <class Visitor>
void describe(Visitor& v, ExportSpec& s) {
  v.path("model", s.model, Presence::kRequired);
  v.choice("weights", s.weights, {"ema", "raw"});
  const ExportSpec usual;
  if (tells<Visitor>(s.format, usual.format)) v.choice("format", s.format, {"folder", "unet_file"});
  if (tells<Visitor>(s.dtype, usual.dtype)) v.choice("dtype", s.dtype, {"fp32", "bf16", "fp16"});
  if (Visitor::kReads || !s.evaluation.empty()) v.path("evaluation", s.evaluation);
  if (tells<Visitor>(s.selection, usual.selection)) v.choice("selection", s.selection, {"auto", "best", "last"});
}

template <class Visitor>
void describe(Visitor& v, SampleSpec& s) {
  v.path("model", s.model, Presence::kRequired);
  v.integer("count", s.count, 1, kMaxBatch);
  if (Visitor::kReads || !s.like.empty()) v.path("like", s.like);
  if (Visitor::kReads || !s.prompts.empty()) v.texts("prompts", s.prompts);
  v.integer("label", s.label, -1, 1 << 20);
  v.path("out", s.out, Presence::kRequired);
}

// The fields that every kind has; name, kind and options are read apart.
template <class Visitor>
void describe(Visitor& v, JobSpec& s) {
  v.integer("ranks", s.ranks, 1, 65536);
  v.integer("micro_batches", s.micro_batches, 1, 1024);
  v.integer("seed", s.seed, 0, std::numeric_limits<std::int64_t>::max());
  v.choice("device", s.device, {"cpu", "cuda"});
  v.choice("numerics", s.numerics, {"native", "portable"});
  v.choice("reduction", s.reduction, {"exact", "fast"});
  v.path("output", s.output);
  v.integer("report_every", s.report_every, 1, kMaxIterations);
  v.boolean("activation_checkpointing", s.activation_checkpointing);
  v.object("checkpoint", s.checkpoint);
  const HealthSpec usual;
  if (tells<Visitor>(s.health, usual)) v.object("health", s.health);
}

}  // namespace onestep
