// Files are opened beneath a folder and nowhere else: no "..", no symbolic link, no other mount's magic on the way.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace onestep {

// An open regular file, read by offset. Move-only.
class OpenFile {
 public:
  explicit OpenFile(int descriptor) : descriptor_(descriptor) {}
  OpenFile(OpenFile&& other) noexcept;
  OpenFile& operator=(OpenFile&& other) noexcept;
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  ~OpenFile();

  [[nodiscard]] std::int64_t size() const;
  // Up to `limit` bytes from `offset`; fewer at its end. Errors: kIo.
  [[nodiscard]] std::string read_at(std::int64_t offset, std::int64_t limit) const;

 private:
  int descriptor_ = -1;
};

// nullopt: not there. Errors: kConflict for a path that leaves `folder` or has a symbolic link on the way, and for
// what is no regular file; kIo. `folder` itself is the operator's: it may be a link.
std::optional<OpenFile> open_beneath(const std::string& folder, const std::string& relative);

// What open_beneath does without openat2, which a container's filter may forbid: one open for each part of the path, none of which
// follows a link. `root` is a folder's descriptor; returns a descriptor or a negative errno (ELOOP: a link, EXDEV: a way out). Declared
// for its test.
int open_by_parts(int root, const std::string& relative, int flags);

// Up to `limit` bytes of it; "" when the file is shorter or not there (yet). Errors: those of open_beneath.
std::string read_beneath(const std::string& folder, const std::string& relative, std::int64_t offset, std::int64_t limit);

// The folders that jobs may name files in.
class FileRoots {
 public:
  // Absolute folders; "/" allows everything. Errors: kUsage for one that is not absolute.
  explicit FileRoots(std::vector<std::string> folders);
  [[nodiscard]] const std::vector<std::string>& folders() const { return folders_; }
  // "": `path` (absolute, lexically normal) lies beneath a root and no link leads out of it, as far as it exists.
  // Else what was expected and what was found, for people.
  [[nodiscard]] std::string refuse(const std::string& path) const;

 private:
  std::vector<std::string> folders_;
};

}  // namespace onestep
