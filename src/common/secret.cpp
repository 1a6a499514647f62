#include "common/secret.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/durable_file.h"
#include "common/error.h"

namespace onestep {

std::string random_hex(std::size_t num_bytes) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string bytes(num_bytes, '\0');
  std::size_t filled = 0;
  while (filled < num_bytes) {
    const ssize_t size = ::getrandom(bytes.data() + filled, num_bytes - filled, 0);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) throw Error(ErrorCode::kIo, std::string("getrandom failed; ") + std::strerror(errno));
    filled += static_cast<std::size_t>(size);
  }
  std::string text;
  for (const unsigned char byte : bytes) text += {kHex[byte >> 4], kHex[byte & 15]};
  return text;
}

bool equal_in_constant_time(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::string read_secret_file(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    throw Error(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
                path + ": a file with a secret; expected to read it, found " + std::strerror(errno));
  }
  if (S_ISREG(status.st_mode) && (status.st_mode & 0077) != 0) {
    throw Error(ErrorCode::kConflict, path + ": holds a secret; expected mode 0600, found one that others can read; " +
                                          "chmod 600 it");
  }
  std::string secret = read_file(path);
  secret.resize(std::min(secret.find('\n'), secret.size()));
  if (secret.empty()) throw Error(ErrorCode::kUsage, path + ": expected a secret in its first line, found nothing");
  return secret;
}

void write_secret_file(const std::string& path, std::string_view content) {
  const std::string temporary = path + ".tmp";
  ::unlink(temporary.c_str());
  const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor < 0) throw Error(ErrorCode::kIo, temporary + ": open failed; " + std::strerror(errno));
  const ssize_t written = ::write(descriptor, content.data(), content.size());
  const int cause = errno;
  ::close(descriptor);
  if (written != static_cast<ssize_t>(content.size())) {
    ::unlink(temporary.c_str());
    throw Error(ErrorCode::kIo, temporary + ": write failed; " + std::strerror(cause));
  }
  publish_file_durably(temporary, path);
}

}  // namespace onestep
