// One job, typed: what it reads, does and writes. The same JSON on disk, over REST and for the worker.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "common/config.h"

namespace onestep {

// All paths below are absolute after parsing, or "@name": the output folder of that job of the same pipeline.

struct DatasetSpec {
  std::string path;              // HDF5 image file (docs/formats.md)
  std::int64_t resolution = 0;   // pixels a side after box averaging; 0: as stored; must divide the stored side
  bool operator==(const DatasetSpec&) const = default;
};

// A U-Net under a preconditioner; the defaults are the digits network. The published networks are in configs/networks/.
struct NetworkSpec {
  std::string network_class = "adm_unet";  // JSON: "class"; "adm_unet", or "song_unet" (DDPM++, NCSN++)
  std::string preconditioner = "edm";      // "edm", "vp", "ve", "iddpm" (EDM Table 1)
  std::int64_t image_size = 14;
  std::int64_t image_channels = 1;
  std::int64_t pixel_unshuffle = 2;       // 1: off (all published networks, song_unet)
  std::int64_t model_channels = 32;
  std::vector<std::int64_t> channel_mult = {1};
  std::int64_t channel_mult_emb = 2;
  std::int64_t num_blocks = 2;
  std::vector<std::int64_t> attention_resolutions;  // beside the middle, which always attends
  std::int64_t channels_per_head = 32;    // adm_unet; song_unet has one head
  std::int64_t label_dim = 10;            // classes; 0: unconditional
  std::string noise_frequencies = "geometric";  // adm_unet: "published": 10000^(-i/half); "geometric": 1..100
  double sigma_data = 0.5;
  double dropout = 0.0;                   // of the published training, for the record: Onestep never drops
  // song_unet alone:
  std::string embedding_type = "positional";    // or "fourier"
  std::int64_t channel_mult_noise = 1;          // noise embedding's channels over model_channels
  std::string encoder_type = "standard";        // or "residual": the image joins every level
  std::vector<std::int64_t> resample_filter = {1, 1};  // or [1, 3, 3, 1]
  std::int64_t augment_dim = 0;                 // augmentation labels; kept for the files' sake, never used
};

struct OptimizerSpec {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double epsilon = 1e-8;
  double weight_decay = 0.0;              // decoupled (AdamW)
  double clip_norm = 0.0;                 // L2 norm of the whole gradient; 0: no clipping
  std::int64_t rampup_iterations = 0;     // linear from 0
  std::string schedule = "constant";      // "constant" or "cosine" to 0 at the last iteration
};

struct CheckpointSpec {
  struct Best {                           // which of the evaluated ones is the best: pinned, and what an export takes
    std::string metric = "frechet";       // a figure of the evaluations' results
    std::string direction = "lowest";     // or "highest"
    bool operator==(const Best&) const = default;
  };
  std::int64_t every_iterations = 0;      // 0: only the final one and those asked for
  std::int64_t keep_last = 3;             // complete checkpoints kept; >= 1
  Best best;
};

// When the coordinator raises an alarm (docs/operations.md says what each bound is measured against), and what it does then.
// Worker and bits know nothing of it.
struct HealthSpec {
  std::string on_alarm = "continue";      // "continue", "checkpoint", "stop": at an alarm that the figures raise
  double fake_loss = 2.0;                 // fake loss over, or under, that at the end of its own phase; each bound: 0 is off
  double regression_loss = 3.0;           // regression loss over that at the end of its phase; l2: and over 0.15 of the samples' variance
  double mean_shift = 0.5;                // shift of the samples' mean, in their spread at the end of the regression phase
  double spread_loss = 0.2;               // lost share of the samples' spread at the end of the regression phase
  double gradient_norm = 100.0;           // a network's gradient norm over its median at the beginning of the DMD phase
  double zero_denominators = 0.1;         // share of samples whose gradient is undefined
  double frechet = 5.0;                   // an evaluation's Frechet distance over the lowest so far
  double class_accuracy = 0.25;           // lost share of the highest class accuracy so far
  double sustained = 0.03;                // share of the run's images for which a bound must be broken; two reports at least
  double silent_s = 30.0;                 // a rank is silent, or was never heard after four times as long
  double stalled_s = 120.0;               // no rank ends an iteration; at least 20 times its usual time
  double straggling_s = 60.0;             // a rank takes 1.5 times the others' time a step
  bool operator==(const HealthSpec&) const = default;
};

// How images are made from noise; sigma in units of the data. Each sampler reads what concerns it.
struct SamplerSpec {
  std::string kind = "heun";              // "heun", "euler", "ddim", "pndm", "one_step", "few_step"
  std::int64_t steps = 18;                // network calls: heun 2*steps-1, pndm steps+1, euler and ddim steps
  double sigma_min = 0.002;
  double sigma_max = 80.0;                // also the one-step sigma
  double rho = 7.0;
  double guidance_scale = 1.0;            // classifier-free guidance; off at 1
  // heun and euler: noise put back on the way (Karras et al. 2022, Algorithm 2); 0: none.
  double S_churn = 0.0;
  double S_min = 0.0;
  double S_max = 1e12;
  double S_noise = 1.0;
  // Networks of discrete steps: ddim, pndm, one_step.
  std::int64_t steps_offset = 1;          // added to the evenly spaced steps
  bool set_alpha_to_one = false;          // alpha-bar below the first step: 1, else that of step 0
  std::int64_t timestep = 999;            // the one step's
  std::vector<double> timesteps;          // few_step: the student's t, descending: sigma, or a step
};

struct TrainDetectorSpec {
  DatasetSpec dataset;
  std::int64_t held_out = 500;            // images never trained on
  std::int64_t iterations = 1000;
  std::int64_t batch = 128;
  OptimizerSpec optimizer;                // recipe: 1e-3, cosine, weight decay 1e-4
};

struct TrainTeacherSpec {
  DatasetSpec dataset;
  NetworkSpec network;
  std::int64_t images = 450000;
  std::int64_t batch = 128;
  double P_mean = 0.0;                    // ln(sigma) ~ N(P_mean, P_std^2), EDM Table 1
  double P_std = 1.2;
  double ema_half_life_images = 2000;
  OptimizerSpec optimizer;                // recipe: 2e-3, ramp 100, cosine, beta2 .99
};

// Text to image: a teacher is a diffusers pipeline folder, or a single .safetensors file of the original names with `like`, a
// pipeline folder for its configuration and vocabulary; `prompts` is then the output folder of an encode_prompts job.

struct EncodePromptsSpec {
  std::string teacher;                    // whose tokenizer and text encoder
  std::string like;
  std::string prompts;                    // text file, one prompt a line; or JSON lines {"text": ...}: a name ending in .jsonl
  std::int64_t batch = 64;                // prompts a network call; fixed by the spec
};

// An AutoencoderKL of images: |x - decoded| (or its square) plus kl_weight KL(q(z | x) || N(0, 1)) (Rombach et al. 2022, without the
// perceptual and adversarial terms), each a mean over the batch and the elements of x, or of z.
struct TrainAutoencoderSpec {
  DatasetSpec dataset;
  std::string config;                     // folder whose config.json has the network's options; its weights are not read
  std::int64_t images = 100000;
  std::int64_t batch = 32;
  std::string loss = "l1";                // or "l2"
  double kl_weight = 1e-6;
  double ema_half_life_images = 2000;
  OptimizerSpec optimizer;                // recipe: 1e-3, ramp 100, cosine, beta2 .999
};

// What an autoencoder makes of each image, once.
struct EncodeSpec {
  DatasetSpec dataset;
  std::string autoencoder;                // folder of an AutoencoderKL
  std::int64_t batch = 16;                // images a network call; fixed by the spec
};

// A Stable Diffusion U-Net from its first weights, on latents and prompts: the teacher where no published one fits.
struct TrainTextTeacherSpec {
  std::string base;                       // pipeline folder; of unet/ its config.json alone is read
  std::string latents;                    // output folder of an encode job
  std::string prompts;                    // of an encode_prompts job: prompt c is the caption of the images of class c
  std::int64_t images = 450000;
  std::int64_t batch = 128;
  double text_dropout = 0.1;              // share of samples trained on the empty prompt, for guidance
  double ema_half_life_images = 2000;
  OptimizerSpec optimizer;                // recipe: 2e-3, ramp 100, cosine, beta2 .99
};

struct GeneratePairsSpec {
  std::string teacher;                    // run or export folder
  std::string like;
  std::string prompts;                    // pair i has prompt i mod their number
  std::int64_t count = 500;
  std::int64_t rows_per_shard = 250;
  std::int64_t batch = 125;               // rows a network call; fixed by the spec, so bits don't depend on ranks
  SamplerSpec sampler;
};

// The learned distance of the regression: VGG16 and LPIPS's linear layers.
struct LpipsSpec {
  std::vector<std::string> weights;       // one or two safetensors files: torchvision's trunk, lpips's linear layers
  std::int64_t resize = 224;              // side before the trunk, bilinear; 0: as the images are
  std::string pooling = "max";            // "max" or "average" (piq's replace_pooling)
};

// Names follow docs/algorithm.md.
struct DistillSpec {
  struct Warmup {                         // regression alone
    std::int64_t iterations = 250;
    std::int64_t pairs = 192;             // pairs an iteration
    OptimizerSpec optimizer;              // recipe: 1e-3, ramp 20
  };
  struct FakeWarmup {                     // the fake score alone catches up with the generator
    std::int64_t iterations = 60;
  };
  // A discriminator of noised images on the fake network's bottleneck (DMD2, arXiv 2405.14867, Sec. 4.3): on when there are real images.
  struct Gan {
    DatasetSpec dataset;                  // the real images
    std::string latents;                  // with prompts, in their place: output folder of an encode job, a class for each prompt
    double lambda_generator = 3e-3;       // weight of softplus(-logit) of the samples in the generator's loss
    double lambda_discriminator = 1e-2;   // weight of the discriminator's loss beside the denoising loss
    double sigma_lo = 0.002;              // sigma_t of the images it sees, uniform in the rho-7 coordinate
    double sigma_hi = 80.0;
    double t_lo = 0.0;                    // networks of discrete steps: t uniform over the steps between these shares of all
    double t_hi = 1.0;
    [[nodiscard]] bool is_on() const { return !dataset.path.empty() || !latents.empty(); }
    bool operator==(const Gan&) const = default;
  };
  // What holds from an iteration of the DMD phase on, in place of dmd's own (DMD Table 5).
  struct Stage {
    std::int64_t from_iteration = 0;      // of the DMD phase
    double lambda_reg = 0.1;
    double t_hi = 0.98;
    std::string decoder;                  // "": the spec's
    bool operator==(const Stage&) const = default;
  };
  struct Dmd {
    std::int64_t iterations = 300;
    std::int64_t batch = 128;             // fresh samples an iteration
    std::int64_t pairs = 64;              // pairs an iteration; 0 with lambda_reg 0
    double lambda_reg = 0.1;              // weight of the regression loss
    double lambda_dm = 1.0;               // weight of the distribution matching loss; 0: regression alone
    double sigma_lo = 0.5;                // sigma_t of the diffused samples, uniform in the rho-7 coordinate
    double sigma_hi = 5.0;
    // Networks of discrete steps: the diffused samples' t, uniform over the steps between these shares of all; the fake score
    // trains on every step.
    double t_lo = 0.02;
    double t_hi = 0.98;
    double guidance_scale = 1.0;          // of the real score; off at 1
    std::int64_t fake_updates_per_generator_update = 1;  // DMD2's two-time-scale update rule: the generator's turn is every n-th iteration
    bool regression_joins_dm = false;     // the pairs' generated images take part in distribution matching and the fake score's batch too
    Gan gan;
    std::vector<Stage> schedule;          // from_iteration ascends; none: dmd's own values to the end
    OptimizerSpec generator;              // recipe: 1e-4, beta1 0, clip 1
    OptimizerSpec fake;                   // recipe: 1e-3, beta1 0, clip 1
  };
  std::string teacher;
  std::string like;
  std::string prompts;
  std::string pairs;                      // "": none, where nothing regresses
  std::int64_t max_pairs = 0;             // use only the first N pairs; 0: all
  std::string distance = "l2";            // regression: "l2" or "lpips"
  LpipsSpec lpips;                        // for distance "lpips"
  std::string decoder;                    // latents become images for lpips: folder of an AutoencoderKL or AutoencoderTiny
  double generator_sigma = 80.0;          // the generator's fixed sigma
  std::vector<double> student_timesteps;  // a student of several steps: its t, descending; the first is the generator's; none: one step
  double ema_half_life_images = 6000;     // of the delivered generator
  Warmup warmup;
  FakeWarmup fake_warmup;
  Dmd dmd;
  // When `detector` is not empty, the coordinator evaluates each committed checkpoint beside the run.
  struct Evaluation {
    std::string detector;
    DatasetSpec dataset;
    std::int64_t count = 2000;
  } evaluation;
};

struct EvaluateSpec {
  std::string source = "model";           // "model", "images", or "real_split_half": the data against itself
  std::string model;                      // run, checkpoint or export folder; for source "model" alone
  std::string images;                     // folder of PNG and JPEG files; for source "images" alone
  std::string weights = "ema";            // "ema" or "raw" (raw: checkpoints only)
  std::string like;
  std::string prompts;                    // image i is of prompt i mod their number
  SamplerSpec sampler;
  std::int64_t count = 5000;              // generated images, labels i mod label_dim; of a folder, at most so many
  std::int64_t batch = 250;
  DatasetSpec dataset;                    // the reference: all its images
  std::string reference;                  // or an .npz of statistics or features; for Inception
  std::string detector;                   // folder of a digit detector, or a .safetensors file of Inception's weights
  std::string resize = "tf1";             // to Inception's 299 pixels: "tf1" (EDM), "pytorch_fid", "clean_fid"
  std::int64_t lanczos = 0;               // side to which images are first scaled as Pillow's Lanczos does; 0: as they are
  std::vector<std::string> metrics = {"fid"};  // of Inception: some of "fid", "is", "kid", "precision_recall"
  std::vector<std::string> compare;       // evaluate runs whose panels stand left of this one's in comparison.png
};

struct ExportSpec {
  std::string model;                      // distill or teacher run folder, or checkpoint folder
  std::string weights = "ema";
  std::string format = "folder";          // or "unet_file": a text-to-image generator's U-Net alone, unet.safetensors
  std::string dtype = "fp32";             // of the weights: "fp32", "bf16", "fp16"
  std::string evaluation;                 // an evaluate run of this model, whose figure the card names
  std::string selection = "auto";         // of a run: its "best" evaluated checkpoint, its "last" state; "auto": best if any
};

struct SampleSpec {
  std::string model;                      // export or run folder
  std::int64_t count = 16;
  std::string like;
  std::vector<std::string> prompts;       // texts, not a file: image i is of prompt i mod their number
  std::int64_t label = -1;                // class; -1: i mod label_dim
  std::string out;                        // PNG file
};

using JobOptions = std::variant<TrainDetectorSpec, TrainTeacherSpec, TrainAutoencoderSpec, EncodeSpec, EncodePromptsSpec,
                                TrainTextTeacherSpec, GeneratePairsSpec, DistillSpec, EvaluateSpec, ExportSpec, SampleSpec>;

struct JobSpec {
  std::string name;
  std::string kind;                       // "train_detector", ...; the variant's alternative says the same
  int ranks = 1;
  std::int64_t micro_batches = 1;         // M: power of two; ranks divide it (training kinds)
  std::uint64_t seed = 0;
  std::string device = "cpu";
  std::string numerics = "native";        // "portable" pins the CPU's instruction set
  std::string reduction = "exact";        // "fast": any rank count, plain all-reduce, bits may differ
  std::string output;                     // run folder; "": chosen by the coordinator or the command line
  std::int64_t report_every = 10;         // iterations between progress reports
  bool activation_checkpointing = false;  // train_teacher, distill: less memory, one more forward pass, the same bits
  CheckpointSpec checkpoint;
  HealthSpec health;
  JobOptions options;
};

// The registered kinds, in the order of the variant.
const std::vector<std::string>& job_kinds();
bool is_training_kind(const std::string& kind);
// A letter, then letters, digits, '-' and '_'; at most 64 characters.
bool is_job_name(const std::string& name);

// Paths resolve against `base` (absolute). All violations at once, pointers prefixed with `pointer`; `where` names the document.
// Errors: ConfigError.
JobSpec parse_job_spec(const nlohmann::json& json, const std::string& base, const std::string& where);
// For pipelines: the spec and its violations, nothing thrown.
struct ParsedJobSpec {
  JobSpec spec;
  std::vector<Violation> violations;
};
ParsedJobSpec check_job_spec(const nlohmann::json& json, const std::string& base, const std::string& pointer);

// Every field with its resolved value, options that came after format version 1 when they are not at their default;
// parse(to_json(s)) == s.
nlohmann::json to_json(const JobSpec& spec);
nlohmann::json to_json(const NetworkSpec& network);
nlohmann::json to_json(const SamplerSpec& sampler);
// Used by config.json of networks too. Errors: ConfigError naming `where`.
NetworkSpec network_spec_from_json(const nlohmann::json& json, const std::string& where);

// to_json without the keys that can't change bits: name, ranks, output, report_every, activation_checkpointing,
// checkpoint, health, evaluation.
// The worker replaces paths by digests before it hashes or compares.
nlohmann::json bit_relevant_config(const JobSpec& spec);
// JSON pointers of leaves that differ, each "pointer: expected X, found Y" (expected: the checkpoint's).
std::vector<std::string> differing_keys(const nlohmann::json& expected, const nlohmann::json& found);

// Replaces every "@name" path by resolve(name).
JobSpec substitute_references(JobSpec spec, const std::function<std::string(const std::string&)>& resolve);
// Names after "@", each once.
std::vector<std::string> references(const JobSpec& spec);
// Every use of "@name": where it stands, and the kinds of job whose output folder can stand there.
struct ReferenceUse {
  std::string pointer;             // JSON pointer of the field
  std::string name;                // after "@"
  std::vector<std::string> kinds;  // empty: nothing that a job writes
};
std::vector<ReferenceUse> reference_uses(const JobSpec& spec);
// Every file or folder that the spec names itself, resolved, with the JSON pointer of its field; `output` too.
struct PathUse {
  std::string pointer;
  std::string path;
};
std::vector<PathUse> path_uses(const JobSpec& spec);

}  // namespace onestep
