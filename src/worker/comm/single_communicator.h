// One process alone: every collective is the identity.
#pragma once

#include "worker/comm/communicator.h"

namespace onestep {

class SingleCommunicator final : public Communicator {
 public:
  [[nodiscard]] int rank() const override { return 0; }
  [[nodiscard]] int size() const override { return 1; }
  void barrier() override {}
  void broadcast(std::span<std::byte> bytes, int root) override;
  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  std::vector<std::string> gather_texts(const std::string& mine, int root) override;
  void reduce_scatter_tree(std::span<float>) override {}
  void all_gather_pieces(std::span<float>) override {}
  void all_reduce_fast(std::span<float>) override {}
};

}  // namespace onestep
