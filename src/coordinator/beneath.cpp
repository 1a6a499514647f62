#include "coordinator/beneath.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "common/error.h"

namespace onestep {
namespace {

// openat2 beneath `folder`; negative: errno.
int open_strictly(const std::string& folder, const std::string& relative, int flags) {
  const int root = ::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return -errno;
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  long descriptor = -1;
  do {  // EAGAIN: something on the way was renamed at that moment
    descriptor = ::syscall(SYS_openat2, root, relative.c_str(), &how, sizeof how);
  } while (descriptor < 0 && (errno == EINTR || errno == EAGAIN));
  int result = descriptor < 0 ? -errno : static_cast<int>(descriptor);
  if (result == -ENOSYS || result == -EPERM) result = open_by_parts(root, relative, flags);
  ::close(root);
  return result;
}

std::string text_of_refusal(int cause) {
  if (cause == ELOOP) return "a symbolic link on the way";
  if (cause == EXDEV) return "a path that leaves it";
  return std::strerror(cause);
}

bool lies_beneath(const std::string& path, const std::string& root) {
  return root == "/" || path == root || path.starts_with(root + "/");
}

}  // namespace

int open_by_parts(int root, const std::string& relative, int flags) {
  if (relative.starts_with('/')) return -EXDEV;
  std::vector<std::string> parts;
  for (const auto& part : std::filesystem::path(relative)) {
    if (part == "..") return -EXDEV;
    if (!part.empty() && part != ".") parts.push_back(part.string());
  }
  if (parts.empty()) parts.emplace_back(".");
  int folder = -1;  // of what comes next; -1: root
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    const int found = ::openat(folder < 0 ? root : folder, parts[i].c_str(), (last ? flags : O_PATH) | O_NOFOLLOW | O_CLOEXEC);
    const int cause = errno;
    if (folder >= 0) ::close(folder);
    if (found < 0) return -cause;
    struct stat status {};
    if (::fstat(found, &status) != 0 || S_ISLNK(status.st_mode)) {  // O_PATH opens a link itself
      ::close(found);
      return -ELOOP;
    }
    folder = found;
  }
  return folder;
}

OpenFile::OpenFile(OpenFile&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
OpenFile& OpenFile::operator=(OpenFile&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}
OpenFile::~OpenFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::int64_t OpenFile::size() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) {
    throw Error(ErrorCode::kIo, std::string("fstat of an open file failed; ") + std::strerror(errno));
  }
  return status.st_size;
}

std::string OpenFile::read_at(std::int64_t offset, std::int64_t limit) const {
  if (offset >= size()) return "";  // pread refuses those near the largest number
  std::string bytes(static_cast<std::size_t>(limit), '\0');
  std::size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t size = ::pread(descriptor_, bytes.data() + filled, bytes.size() - filled, offset + static_cast<off_t>(filled));
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) throw Error(ErrorCode::kIo, std::string("reading an open file failed; ") + std::strerror(errno));
    if (size == 0) break;
    filled += static_cast<std::size_t>(size);
  }
  bytes.resize(filled);
  return bytes;
}

std::optional<OpenFile> open_beneath(const std::string& folder, const std::string& relative) {
  // A pipe or a device must not keep the coordinator waiting.
  const int descriptor = open_strictly(folder, relative, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (descriptor == -ENOENT || descriptor == -ENOTDIR) return std::nullopt;
  if (descriptor < 0) {
    const bool escapes = descriptor == -ELOOP || descriptor == -EXDEV;
    throw Error(escapes ? ErrorCode::kConflict : ErrorCode::kIo,
                folder + ": \"" + relative + "\": expected a file beneath the folder, found " + text_of_refusal(-descriptor));
  }
  OpenFile file(descriptor);
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    throw Error(ErrorCode::kConflict, folder + ": \"" + relative + "\": expected a regular file, found something else");
  }
  return file;
}

std::string read_beneath(const std::string& folder, const std::string& relative, std::int64_t offset, std::int64_t limit) {
  const std::optional<OpenFile> file = open_beneath(folder, relative);
  return file ? file->read_at(offset, limit) : "";
}

FileRoots::FileRoots(std::vector<std::string> folders) {
  for (const std::string& folder : folders) {
    if (!folder.starts_with('/')) {
      throw Error(ErrorCode::kUsage, "--root: expected an absolute folder, found \"" + folder + "\"");
    }
    std::string normal = std::filesystem::path(folder).lexically_normal().string();
    if (normal.size() > 1 && normal.back() == '/') normal.pop_back();
    folders_.push_back(normal);
  }
}

std::string FileRoots::refuse(const std::string& path) const {
  std::string reason;
  for (const std::string& root : folders_) {
    if (!lies_beneath(path, root)) continue;
    if (root == "/") return "";
    // What does not exist yet (an output folder) is judged by the part of its path that does.
    std::filesystem::path relative = path == root ? std::filesystem::path(".") : std::filesystem::path(path.substr(root.size() + 1));
    int descriptor = -1;
    while ((descriptor = open_strictly(root, relative.string(), O_PATH)) == -ENOENT && relative.has_parent_path()) {
      relative = relative.parent_path();
    }
    if (descriptor >= 0) ::close(descriptor);
    if (descriptor >= 0 || descriptor == -ENOENT) return "";
    reason = "beneath " + root + ", " + text_of_refusal(-descriptor);
  }
  if (!reason.empty()) return "expected a path without symbolic links, found \"" + path + "\": " + reason;
  std::string list;
  for (const std::string& root : folders_) list += (list.empty() ? "" : ", ") + root;
  return "expected a path beneath one of the coordinator's folders (" + list + "), found \"" + path +
         "\"; its operator adds folders with 'onestep up --root DIR'";
}

}  // namespace onestep
