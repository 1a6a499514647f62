// The one door to open, write, fsync and rename: a test can fail its Nth call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace onestep {

// Writes a new file under a temporary name beside `path`; commit() makes it appear whole or not at all.
// Move-only; destroyed without commit(), it removes the temporary file. One thread at a time.
class DurableFile {
 public:
  // Errors (all methods): kIo naming path, call and errno text ("No space left on device").
  explicit DurableFile(std::string path);
  // The same under a temporary name of the caller's choice, in the same folder: "pairs-00003.h5.a2.tmp".
  DurableFile(std::string path, std::string temporary_path);
  DurableFile(DurableFile&& other) noexcept;
  DurableFile& operator=(DurableFile&& other) noexcept;
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;
  ~DurableFile();

  void write(const void* data, std::size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  // fsync -> close -> rename to path -> fsync of the folder.
  void commit();
  [[nodiscard]] const std::string& temporary_path() const { return temporary_path_; }

 private:
  std::string path_;
  std::string temporary_path_;
  int descriptor_ = -1;
};

// Whole file in one call: temporary name, write, fsync, rename, fsync of the folder.
void write_file_durably(const std::string& path, std::string_view content);
// For files that another library (HDF5) wrote under `temporary_path`: fsync, rename, fsync of the folder.
void publish_file_durably(const std::string& temporary_path, const std::string& path);
// mkdir -p with fsync of each parent that changed.
void create_folders_durably(const std::string& path);
void sync_folder(const std::string& path);
void remove_file_durably(const std::string& path);  // absent is fine

// Whole content of a regular file. Errors: kNotFound; kIo, also for a folder, a pipe or a device, which have no end to wait for.
std::string read_file(const std::string& path);
bool file_exists(const std::string& path);
std::uint64_t file_size(const std::string& path);

// A file written in place, in any order and over several runs of a program, under a temporary name; publish_file_durably() makes
// it appear. Move-only; write_at() and read_at() from any thread.
class WorkFile {
 public:
  // Opens or creates it, and locks it against other programs while the object lives. Errors: kIo; kConflict when it is locked.
  explicit WorkFile(const std::string& path);
  WorkFile(WorkFile&& other) noexcept;
  WorkFile& operator=(WorkFile&& other) noexcept;
  WorkFile(const WorkFile&) = delete;
  WorkFile& operator=(const WorkFile&) = delete;
  ~WorkFile();

  [[nodiscard]] std::uint64_t size() const;
  void write_at(std::uint64_t offset, const void* data, std::size_t size) const;
  // Errors: kCorrupt when the file ends before.
  void read_at(std::uint64_t offset, void* data, std::size_t size) const;
  void clear() const;  // to no bytes
  void sync() const;

 private:
  std::string path_;
  int descriptor_ = -1;
};

// Read-only memory map of a file, move-only. Errors: kNotFound, kIo.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();
  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Lets the pages behind `part` (of bytes()) leave memory; used again, they are read again.
  void release(std::span<const std::byte> part) const;

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// Test hook: called before each system call with its name ("open", "read", "write", "pwrite", "fsync", "rename",
// "unlink", "mkdir") and path; a non-zero return is used as errno and the call is not made. nullptr restores normal operation.
// Set it while no other thread uses this file's functions.
using FaultHook = std::function<int(const char* call, const std::string& path)>;
void set_fault_hook_for_tests(FaultHook hook);

}  // namespace onestep
