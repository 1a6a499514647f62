// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): counter in, four words out, no state.
#pragma once

#include <array>
#include <cstdint>

namespace onestep {

// constexpr integer arithmetic only: the same bits from g++ and from nvcc (--expt-relaxed-constexpr).
constexpr std::array<std::uint32_t, 4> philox4x32_10(std::array<std::uint32_t, 4> counter,
                                                      std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product0)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

// What a draw is for; part of the counter, so no two purposes share a number. Values are fixed for ever.
enum class RandomStream : std::uint32_t {
  kOrder = 1,            // permutation of an epoch
  kInit = 2,             // parameter initialisation
  kTrainSigma = 3,       // teacher: ln(sigma)
  kTrainNoise = 4,
  kPairNoise = 5,        // noise of the pair set, by global index
  kGeneratorNoise = 6,   // z of the fresh samples
  kGeneratorLabel = 7,
  kScoreSigma = 8,       // sigma_t of the distribution matching gradient
  kScoreNoise = 9,
  kFakeSigma = 10,       // fresh draws of the fake score's update
  kFakeNoise = 11,
  kEvaluationNoise = 12,
  kSampleNoise = 13,
  kSplit = 14,           // held-out and split-half choices
  kSamplerNoise = 15,    // noise that a sampler adds on its way; the step is the sampler's
  kStudentStep = 16,     // which of its steps a student of several is trained on
  kBackwardNoise = 17,   // noise between its earlier steps, by student step and sample
  kRealOrder = 18,       // permutation of an epoch of real images
  kGanSigma = 19,        // the generator's turn: what the discriminator judges
  kGanNoise = 20,
  kDiscriminatorSigma = 21,  // the fake score's turn: noised samples, then noised real images
  kDiscriminatorNoise = 22,
  kTextDropout = 23,     // text teacher: which samples are trained on the empty prompt
  kPosteriorNoise = 24,  // autoencoder: noise of the posterior's sample
};

// The four words of (seed, stream, step, sample index, block): law 1. step < 2^32, sample < 2^48, stream < 2^16.
constexpr std::array<std::uint32_t, 4> keyed_words(std::uint64_t seed, RandomStream stream, std::uint32_t step,
                                                   std::uint64_t sample, std::uint32_t block) {
  return philox4x32_10({block, static_cast<std::uint32_t>(sample), step,
                        (static_cast<std::uint32_t>(stream) << 16) |
                            static_cast<std::uint32_t>((sample >> 32) & 0xFFFFu)},
                       {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
}

}  // namespace onestep
