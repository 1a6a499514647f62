#include "worker/comm/communicator.h"

#include <bit>

#include "common/error.h"

namespace onestep {

PieceRange piece_of_rank(int rank, int size, std::int64_t length) {
  if (size < 1 || !std::has_single_bit(static_cast<unsigned>(size)) || length % size != 0) {
    throw Error(ErrorCode::kConfig, "ranks: expected a power of two that divides the buffer of " +
                                        std::to_string(length) + " elements, found " + std::to_string(size) +
                                        "; reduction \"fast\" takes any number");
  }
  PieceRange piece{0, length};
  for (int distance = 1; distance < size; distance *= 2) {
    piece.length /= 2;
    if ((rank & distance) != 0) piece.offset += piece.length;
  }
  return piece;
}

std::string Communicator::broadcast_text(const std::string& text, int root) {
  std::uint64_t length = text.size();
  broadcast(std::as_writable_bytes(std::span(&length, 1)), root);
  std::string result = rank() == root ? text : std::string(length, '\0');
  broadcast(std::as_writable_bytes(std::span(result.data(), result.size())), root);
  return result;
}

}  // namespace onestep
