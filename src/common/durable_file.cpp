#include "common/durable_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "common/error.h"

namespace onestep {
namespace {

FaultHook& fault_hook() {
  static FaultHook hook;
  return hook;
}

// Runs `function` (a system call: negative on failure, errno set) unless the hook fails it; repeats
// it on EINTR.
template <typename Function>
auto call(const char* name, const std::string& path, Function function) -> decltype(function()) {
  if (fault_hook()) {
    if (const int error = fault_hook()(name, path); error != 0) {
      errno = error;
      return -1;
    }
  }
  for (;;) {
    const auto result = function();
    if (result >= 0 || errno != EINTR) return result;
  }
}

[[noreturn]] void fail(const char* name, const std::string& path, int error) {
  throw Error(ErrorCode::kIo, path + ": " + name + ": " + std::strerror(error));
}

[[noreturn]] void fail_read(const char* name, const std::string& path, int error) {
  if (error == ENOENT || error == ENOTDIR) {
    throw Error(ErrorCode::kNotFound, path + ": " + name + ": " + std::strerror(error));
  }
  fail(name, path, error);
}

void require_regular(const std::string& path, const struct stat& status) {
  if (S_ISREG(status.st_mode)) return;
  throw Error(ErrorCode::kIo, path + ": expected a regular file, found something else");
}

std::string parent_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

void sync_descriptor(int descriptor, const std::string& path) {
  if (call("fsync", path, [&] { return ::fsync(descriptor); }) < 0) fail("fsync", path, errno);
}

// A file descriptor for the length of a scope.
class Descriptor {
 public:
  Descriptor(const std::string& path, int flags)
      : value_(call("open", path, [&] { return ::open(path.c_str(), flags | O_CLOEXEC); })) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  [[nodiscard]] int value() const { return value_; }

 private:
  int value_;
};

void rename_durably(const std::string& from, const std::string& to) {
  if (call("rename", to, [&] { return ::rename(from.c_str(), to.c_str()); }) < 0)
    fail("rename", to, errno);
  sync_folder(parent_of(to));
}

std::string unique_temporary_name(const std::string& path) {
  static std::atomic<unsigned> counter{0};
  return path + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
}

}  // namespace

void set_fault_hook_for_tests(FaultHook hook) { fault_hook() = std::move(hook); }

DurableFile::DurableFile(std::string path) : DurableFile(path, unique_temporary_name(path)) {}

DurableFile::DurableFile(std::string path, std::string temporary_path)
    : path_(std::move(path)), temporary_path_(std::move(temporary_path)) {
  descriptor_ = call("open", temporary_path_, [&] {
    return ::open(temporary_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  });
  if (descriptor_ < 0) fail("open", temporary_path_, errno);
}

DurableFile::DurableFile(DurableFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_path_(std::move(other.temporary_path_)),
      descriptor_(std::exchange(other.descriptor_, -1)) {
  other.temporary_path_.clear();
}

DurableFile& DurableFile::operator=(DurableFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(temporary_path_, other.temporary_path_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

DurableFile::~DurableFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_path_.empty()) ::unlink(temporary_path_.c_str());
}

void DurableFile::write(const void* data, std::size_t size) {
  const char* position = static_cast<const char*>(data);
  while (size > 0) {
    // Linux writes at most 0x7ffff000 bytes a call.
    const std::size_t chunk = std::min(size, std::size_t{1} << 30);
    const ssize_t written =
        call("write", temporary_path_, [&] { return ::write(descriptor_, position, chunk); });
    if (written < 0) fail("write", temporary_path_, errno);
    position += written;
    size -= static_cast<std::size_t>(written);
  }
}

void DurableFile::commit() {
  sync_descriptor(descriptor_, temporary_path_);
  const int descriptor = std::exchange(descriptor_, -1);
  if (::close(descriptor) < 0) fail("close", temporary_path_, errno);
  if (call("rename", path_, [&] { return ::rename(temporary_path_.c_str(), path_.c_str()); }) < 0) {
    fail("rename", path_, errno);
  }
  temporary_path_.clear();
  sync_folder(parent_of(path_));
}

void write_file_durably(const std::string& path, std::string_view content) {
  DurableFile file(path);
  file.write(content);
  file.commit();
}

void publish_file_durably(const std::string& temporary_path, const std::string& path) {
  {
    const Descriptor file(temporary_path, O_RDONLY);
    if (file.value() < 0) fail("open", temporary_path, errno);
    sync_descriptor(file.value(), temporary_path);
  }
  rename_durably(temporary_path, path);
}

void create_folders_durably(const std::string& path) {
  std::filesystem::path partial;
  for (const auto& part : std::filesystem::path(path)) {
    partial /= part;
    const std::string folder = partial.string();
    struct stat status {};
    if (::stat(folder.c_str(), &status) == 0) {
      if (!S_ISDIR(status.st_mode)) fail("mkdir", folder, ENOTDIR);
      continue;
    }
    if (call("mkdir", folder, [&] { return ::mkdir(folder.c_str(), 0755); }) < 0 &&
        errno != EEXIST) {
      fail("mkdir", folder, errno);
    }
    sync_folder(parent_of(folder));
  }
}

void sync_folder(const std::string& path) {
  const Descriptor folder(path, O_RDONLY | O_DIRECTORY);
  if (folder.value() < 0) fail("open", path, errno);
  sync_descriptor(folder.value(), path);
}

void remove_file_durably(const std::string& path) {
  if (call("unlink", path, [&] { return ::unlink(path.c_str()); }) < 0) {
    if (errno == ENOENT) return;
    fail("unlink", path, errno);
  }
  sync_folder(parent_of(path));
}

std::string read_file(const std::string& path) {
  const Descriptor file(path, O_RDONLY | O_NONBLOCK);  // a named pipe would wait for its writer
  if (file.value() < 0) fail_read("open", path, errno);
  struct stat status {};
  if (::fstat(file.value(), &status) < 0) fail("stat", path, errno);
  require_regular(path, status);
  std::string content;
  std::vector<char> buffer(std::size_t{1} << 16);
  for (;;) {
    const ssize_t got =
        call("read", path, [&] { return ::read(file.value(), buffer.data(), buffer.size()); });
    if (got < 0) fail("read", path, errno);
    if (got == 0) return content;
    content.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

bool file_exists(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  fail("stat", path, errno);
}

std::uint64_t file_size(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) < 0) fail_read("stat", path, errno);
  require_regular(path, status);
  return static_cast<std::uint64_t>(status.st_size);
}

WorkFile::WorkFile(const std::string& path) : path_(path) {
  descriptor_ = call("open", path, [&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644); });
  if (descriptor_ < 0) fail("open", path, errno);
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) < 0) {
    ::close(descriptor_);
    throw Error(ErrorCode::kConflict, path + ": another program is writing it");
  }
}

WorkFile::WorkFile(WorkFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

WorkFile& WorkFile::operator=(WorkFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

WorkFile::~WorkFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::uint64_t WorkFile::size() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) < 0) fail("fstat", path_, errno);
  return static_cast<std::uint64_t>(status.st_size);
}

void WorkFile::write_at(std::uint64_t offset, const void* data, std::size_t size) const {
  const char* position = static_cast<const char*>(data);
  while (size > 0) {
    const std::size_t chunk = std::min(size, std::size_t{1} << 30);
    const ssize_t written = call("pwrite", path_, [&] {
      return ::pwrite(descriptor_, position, chunk, static_cast<off_t>(offset));
    });
    if (written < 0) fail("pwrite", path_, errno);
    position += written;
    offset += static_cast<std::uint64_t>(written);
    size -= static_cast<std::size_t>(written);
  }
}

void WorkFile::read_at(std::uint64_t offset, void* data, std::size_t size) const {
  char* position = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t got = call("read", path_, [&] {
      return ::pread(descriptor_, position, size, static_cast<off_t>(offset));
    });
    if (got < 0) fail("pread", path_, errno);
    if (got == 0) {
      throw Error(ErrorCode::kCorrupt, path_ + ": expected " + std::to_string(size) + " more bytes at " +
                                           std::to_string(offset) + ", found the end of the file");
    }
    position += got;
    offset += static_cast<std::uint64_t>(got);
    size -= static_cast<std::size_t>(got);
  }
}

void WorkFile::clear() const {
  if (call("ftruncate", path_, [&] { return ::ftruncate(descriptor_, 0); }) < 0) fail("ftruncate", path_, errno);
}

void WorkFile::sync() const { sync_descriptor(descriptor_, path_); }

MappedFile::MappedFile(const std::string& path) {
  const Descriptor file(path, O_RDONLY);
  if (file.value() < 0) fail_read("open", path, errno);
  struct stat status {};
  if (::fstat(file.value(), &status) < 0) fail("fstat", path, errno);
  if (!S_ISREG(status.st_mode)) {
    throw Error(ErrorCode::kIo, path + ": expected a regular file, found something else");
  }
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ == 0) return;  // mmap refuses an empty range
  void* memory = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.value(), 0);
  if (memory == MAP_FAILED) {
    size_ = 0;
    fail("mmap", path, errno);
  }
  data_ = static_cast<const std::byte*>(memory);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::release(std::span<const std::byte> part) const {
  if (part.empty()) return;
  // Whole pages, the shared ones at both ends too: a neighbour's are read again from the file.
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const auto offset = static_cast<std::size_t>(part.data() - data_);
  const std::size_t begin = offset / page * page;
  // Advice only: when it is refused, memory stays in use and nothing else changes.
  (void)::madvise(const_cast<std::byte*>(data_) + begin, offset + part.size() - begin, MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace onestep
