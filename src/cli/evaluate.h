// Judges a folder of anyone's pictures by running the worker beside this program; no coordinator.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace onestep {

struct EvaluateOptions {
  std::string images;                          // folder of PNG and JPEG files
  std::string reference;                       // .npz of statistics or features, or an HDF5 image file; "": none
  std::string detector;                        // .safetensors of Inception; "": ONESTEP_INCEPTION
  std::string resize = "tf1";
  std::int64_t lanczos = 0;
  std::vector<std::string> metrics = {"fid"};
  std::int64_t count = 0;                      // the first so many; 0: all
  std::string save;                            // .npz for the pictures' own statistics; "": none
  bool json = false;
};

// The job spec that the worker gets; paths absolute. Errors: ConfigError.
std::string evaluate_spec_text(const EvaluateOptions& options, const std::string& run_folder);
// Returns the worker's exit status; it has said on standard error what was wrong. Errors: kUsage without a detector, kNotFound.
int evaluate_images(const EvaluateOptions& options);

}  // namespace onestep
