// The sum of one order (recursive halving, then doubling) against MPI_Allreduce, in turns on the same buffers.
//
//   mpirun -n 2 onestep-bench-allreduce [--sizes 1,16,64] [--seconds 6]
#include <mpi.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "common/error.h"
#include "worker/comm/mpi_communicator.h"
#include "worker/comm/mpi_session.h"

namespace onestep {
namespace {

constexpr std::size_t kMega = std::size_t{1} << 20;
constexpr int kLeastRounds = 5;

// What its time may be, as a share of MPI_Allreduce's: small buffers are bound by latency, where there is nothing to win.
double goal_of(std::size_t mega_floats) { return mega_floats <= 1 ? 1.1 : 0.7; }

// One way to do it: works on `sum`, which holds this rank's summand.
struct Side {
  std::string name;
  std::function<void(std::vector<float>& sum, const std::vector<float>& summand)> run;
  double best_s = std::numeric_limits<double>::infinity();
};

// Seconds that the slowest rank took, on every rank.
double time_once(const Side& side, std::vector<float>& sum, const std::vector<float>& summand) {
  std::copy(summand.begin(), summand.end(), sum.begin());
  CHECK_MPI(MPI_Barrier(MPI_COMM_WORLD));
  const double start = MPI_Wtime();
  side.run(sum, summand);
  double elapsed = MPI_Wtime() - start;
  CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, &elapsed, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD));
  return elapsed;
}

std::vector<float> summand_of(int rank, std::size_t length) {
  std::vector<float> values(length);
  for (std::size_t i = 0; i < length; ++i) {
    values[i] = std::ldexp(static_cast<float>((i * 2654435761U + static_cast<std::size_t>(rank) * 40503U) % 65521U) - 32760.F, -20);
  }
  return values;
}

// Largest difference between the two results over the largest magnitude, over all ranks.
double disagreement(const std::vector<float>& ours, const std::vector<float>& theirs) {
  double worst[2] = {0, 0};
  for (std::size_t i = 0; i < ours.size(); ++i) {
    worst[0] = std::max(worst[0], static_cast<double>(std::abs(ours[i] - theirs[i])));
    worst[1] = std::max(worst[1], static_cast<double>(std::abs(theirs[i])));
  }
  CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, worst, 2, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD));
  return worst[0] / worst[1];
}

nlohmann::json measure(Communicator& communicator, std::size_t mega_floats, double seconds) {
  const std::size_t length = mega_floats * kMega;
  const int count = static_cast<int>(length);
  const std::vector<float> summand = summand_of(communicator.rank(), length);
  std::vector<float> sum(length), ours, theirs;
  std::vector<Side> sides = {
      {.name = "ours",
       .run =
           [&](std::vector<float>& buffer, const std::vector<float>&) {
             communicator.reduce_scatter_tree(buffer);
             communicator.all_gather_pieces(buffer);
           }},
      {.name = "mpi_in_place",
       .run =
           [&](std::vector<float>& buffer, const std::vector<float>&) {
             CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, buffer.data(), count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD));
           }},
      {.name = "mpi_two_buffers",
       .run =
           [&](std::vector<float>& buffer, const std::vector<float>& from) {
             CHECK_MPI(MPI_Allreduce(from.data(), buffer.data(), count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD));
           }},
      // What no algorithm can do without: half a buffer comes in, twice.
      {.name = "two_half_copies",
       .run =
           [&](std::vector<float>& buffer, const std::vector<float>& from) {
             std::memcpy(buffer.data(), from.data() + length / 2, length / 2 * sizeof(float));
             std::memcpy(buffer.data() + length / 2, from.data(), length / 2 * sizeof(float));
           }},
  };
  for (Side& side : sides) {  // the warm-up, and the check
    time_once(side, sum, summand);
    if (side.name == "ours") ours = sum;
    if (side.name == "mpi_in_place") theirs = sum;
  }
  const double difference = disagreement(ours, theirs);

  const double start = MPI_Wtime();
  for (int round = 0, more = 1; more != 0; ++round) {
    for (Side& side : sides) side.best_s = std::min(side.best_s, time_once(side, sum, summand));
    more = round + 1 < kLeastRounds || MPI_Wtime() - start < seconds ? 1 : 0;
    CHECK_MPI(MPI_Bcast(&more, 1, MPI_INT, 0, MPI_COMM_WORLD));
  }

  const auto ms = [](double s) { return std::round(s * 1e6) / 1e3; };
  const double mpi_s = std::min(sides[1].best_s, sides[2].best_s);
  const double ratio = sides[0].best_s / mpi_s, goal = goal_of(mega_floats);
  // Two summands have one sum; more of them differ by roundings.
  const bool agrees = difference <= (communicator.size() == 2 ? 0.0 : 1e-5);
  return {{"name", "allreduce/" + std::to_string(mega_floats) + "M"},
          {"ratio", std::round(ratio * 1e3) / 1e3},
          {"goal", goal},
          {"at_most", true},
          {"pass", ratio <= goal && agrees},
          {"ranks", communicator.size()},
          {"ours_ms", ms(sides[0].best_s)},
          {"mpi_in_place_ms", ms(sides[1].best_s)},
          {"mpi_two_buffers_ms", ms(sides[2].best_s)},
          {"relative_difference", difference},
          {"limit", "memory: copying half the buffer twice on every rank at once, which no sum can do without, takes " +
                        std::to_string(ms(sides[3].best_s)).substr(0, 6) + " ms"}};
}

int bench_main(int argc, char** argv) {
  std::vector<std::size_t> sizes = {1, 16, 64};
  double seconds = 6;
  std::size_t chunk = kDefaultChunkFloats;
  CLI::App app("Canonical sum against MPI_Allreduce.", "onestep-bench-allreduce");
  app.add_option("--sizes", sizes, "buffer lengths in units of 1,048,576 floats")->delimiter(',')->check(CLI::Range(1, 512));
  app.add_option("--seconds", seconds, "time for each size, at least")->check(CLI::Range(0.0, 600.0));
  app.add_option("--chunk", chunk, "floats of the exchange that one message carries")->check(CLI::Range(1, 1 << 28));
  CLI11_PARSE(app, argc, argv);
  if (!launched_by_mpi()) throw Error(ErrorCode::kUsage, "expected to be started by mpirun -n 2");
  const MpiSession session;
  MpiCommunicator communicator(session, chunk);
  for (const std::size_t mega_floats : sizes) {
    const nlohmann::json line = measure(communicator, mega_floats, seconds);
    if (communicator.rank() == 0) std::cout << line.dump() << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) {
  try {
    return onestep::bench_main(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "onestep-bench-allreduce: " << error.what() << "\n";
    onestep::abort_mpi(1);
    return 1;
  }
}
