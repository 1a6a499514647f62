// `onestep dataset pack`: a folder or zip archive of pictures becomes one checked image file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace onestep {

struct PackOptions {
  std::string in, out;
  std::int64_t resolution = 0;  // pixels a side; 0: that of the first picture
  std::int64_t channels =
      0;  // 1 or 3; 0: those of the first picture; grey pictures become RGB when 3 is asked for
  std::string crop;  // "": pictures must be square; "center": the largest square around the middle
  std::string
      resize;  // "": pictures must have the size; "box", "lanczos": larger ones are made smaller
  std::int64_t num_classes = 0;  // 0: as dataset.json has them
  int jobs = 0;                  // threads; 0: the processors
};

struct PackResult {
  std::int64_t count = 0, channels = 0, side = 0;
  std::int64_t num_classes = 0;  // 0: no labels
  std::int64_t reused = 0;       // pictures an interrupted run had packed already
  std::int64_t num_others = 0;   // files left out: neither pictures nor dataset.json
  std::string sha256;            // of pixels and labels: the data set's digest
};

// Decodes on options.jobs threads and writes options.out. Work goes to OUT.packing.tmp and
// OUT.packing.journal.tmp, from where a later run goes on after a kill; equal input gives equal
// bytes, however often it was interrupted and on however many threads. `progress(done, count)` is
// called from time to time, under a lock. Errors: kUsage for options that don't fit; kConflict when
// OUT exists or another program packs it; kNotFound, kIo; kCorrupt naming every bad picture, each
// with what was expected and found: OUT then does not appear.
PackResult pack_dataset(const PackOptions& options,
                        const std::function<void(std::int64_t, std::int64_t)>& progress);

// pack_dataset() with a bar on standard error and one line (or JSON) on standard output; returns
// the exit status 0.
int run_pack_dataset(const PackOptions& options, bool json);

}  // namespace onestep
