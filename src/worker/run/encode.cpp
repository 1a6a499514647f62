// What an autoencoder makes of each image of a set, once: latents.safetensors.
#include <chrono>

#include "worker/data/image_dataset.h"
#include "worker/data/latent_dataset.h"
#include "worker/run/diffusers_folder.h"
#include "worker/run/encode_images.h"
#include "worker/run/jobs.h"
#include "worker/run/stop_request.h"

namespace onestep {

JobResult run_encode(const RunContext& context) {
  const auto& spec = std::get<EncodeSpec>(context.spec.options);
  JobResult result;
  if (context.communicator.rank() != 0) return result;
  const ImageDataset dataset(spec.dataset);
  AutoencoderKl vae = load_autoencoder_kl(spec.autoencoder);
  check_images_fit(vae->config(), dataset, spec.dataset.path);
  const auto start = std::chrono::steady_clock::now();
  const auto rate = [&](std::int64_t images) {
    return static_cast<double>(images) / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  LatentDataset set;
  set.latents = vae->latents_of(posterior_means(vae, dataset, spec.batch, [&](std::int64_t done) {
    stop_if_asked(context, "nothing is kept: the images are encoded from the first one again");
    context.telemetry.post(MessageType::kProgress, {{"stage", "latents"},
                                                    {"iteration", done},
                                                    {"iterations", dataset.size()},
                                                    {"images", done},
                                                    {"images_total", dataset.size()},
                                                    {"images_per_second", rate(done)},
                                                    {"seconds_left", static_cast<double>(dataset.size() - done) / rate(done)},
                                                    {"metrics", nlohmann::json::object()}});
  }));
  set.labels = dataset.labels();
  set.num_classes = dataset.num_classes();
  set.images_sha256 = dataset.digest();
  set.autoencoder_sha256 = autoencoder_sha256(vae);
  write_latents(context.run + "/" + kLatentFileName, set);
  result.digest = set.digest();
  result.result = {{"count", set.size()},
                   {"num_classes", set.num_classes},
                   {"images_sha256", set.images_sha256},
                   {"autoencoder_sha256", set.autoencoder_sha256},
                   {"latent_deviation", set.latents.to(torch::kFloat64).std(/*unbiased=*/false).item<double>()},
                   {"images_per_second", rate(set.size())}};
  return result;
}

}  // namespace onestep
