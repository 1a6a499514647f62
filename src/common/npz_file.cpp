#include "common/npz_file.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>

#include "common/error.h"
#include "common/hash.h"
#include "common/little_endian.h"

namespace onestep {
namespace {

constexpr std::uint32_t kLocalSignature = 0x04034b50, kDirectorySignature = 0x02014b50, kEndSignature = 0x06054b50;
constexpr std::size_t kLocalBytes = 30, kDirectoryBytes = 46, kEndBytes = 22;
constexpr std::uint16_t kStored = 0, kDeflated = 8;
constexpr std::uint64_t kMaxDeflateRatio = 1032;  // of the format itself: a damaged size must not become an allocation
constexpr const char* kSuffix = ".npy";

std::uint16_t u16(const std::byte* data) { return static_cast<std::uint16_t>(little_endian(data, 2)); }
std::uint32_t u32(const std::byte* data) { return static_cast<std::uint32_t>(little_endian(data, 4)); }

std::uint32_t crc_of(const void* data, std::size_t size) {
  return static_cast<std::uint32_t>(crc32_z(0, static_cast<const Bytef*>(data), size));
}

// What a member's two headers share, from the version needed to the length of the extra field.
std::string header_fields(const std::string& name, std::uint32_t crc, std::uint64_t size) {
  std::string fields;
  put_little_endian(fields, 20, 2);         // version needed
  put_little_endian(fields, 0, 2);          // flags
  put_little_endian(fields, kStored, 2);
  put_little_endian(fields, 0, 2);          // time
  put_little_endian(fields, 0x21, 2);       // 1980-01-01, the format's first day
  put_little_endian(fields, crc, 4);
  put_little_endian(fields, size, 4);
  put_little_endian(fields, size, 4);
  put_little_endian(fields, name.size(), 2);
  put_little_endian(fields, 0, 2);          // extra field
  return fields;
}

}  // namespace

void NpzFile::fail(const std::string& what) const { throw Error(ErrorCode::kCorrupt, path_ + ": " + what); }

NpzFile::NpzFile(const std::string& path) : path_(path), file_(path) {
  const auto bytes = file_.bytes();
  // The end record is last, before a comment of at most 65,535 bytes whose length it states.
  std::size_t end = bytes.size();
  for (std::size_t at = bytes.size() < kEndBytes ? 0 : bytes.size() - kEndBytes + 1; at-- > 0;) {
    const std::size_t comment = bytes.size() - at - kEndBytes;
    if (comment > std::numeric_limits<std::uint16_t>::max()) break;
    if (u32(bytes.data() + at) == kEndSignature && u16(bytes.data() + at + 20) == comment) {
      end = at;
      break;
    }
  }
  if (end == bytes.size()) fail("expected a zip archive's end record, found none; truncated, or not an .npz file");
  const std::byte* record = bytes.data() + end;
  const std::uint64_t count = u16(record + 10), directory_size = u32(record + 12);
  directory_offset_ = u32(record + 16);
  if (u16(record + 4) != 0 || u16(record + 6) != 0 || u16(record + 8) != count ||
      directory_offset_ + directory_size != end) {
    fail("end record: expected one directory that ends at byte " + std::to_string(end) + ", found one of " +
         std::to_string(directory_size) + " bytes at " + std::to_string(directory_offset_));
  }
  std::uint64_t at = directory_offset_;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string which = "directory entry " + std::to_string(i);
    if (end - at < kDirectoryBytes || u32(bytes.data() + at) != kDirectorySignature) {
      fail(which + ": expected an entry's signature, found another");
    }
    const std::byte* entry = bytes.data() + at;
    const std::uint16_t flags = u16(entry + 8);
    const std::size_t name_size = u16(entry + 28), extra_size = u16(entry + 30), comment_size = u16(entry + 32);
    if (end - at < kDirectoryBytes + name_size + extra_size + comment_size) {
      fail(which + ": expected to end within the directory, found it longer");
    }
    Member member;
    member.name.assign(reinterpret_cast<const char*>(entry + kDirectoryBytes), name_size);
    member.method = u16(entry + 10);
    member.crc = u32(entry + 16);
    member.compressed = u32(entry + 20);
    member.size = u32(entry + 24);
    member.header_offset = u32(entry + 42);
    // Sizes that don't fit 32 bits stand in extra field 1, in this order.
    const std::byte* extra = entry + kDirectoryBytes + name_size;
    for (std::size_t e = 0; e + 4 <= extra_size;) {
      const std::size_t size = u16(extra + e + 2);
      if (e + 4 + size > extra_size) fail(which + ": extra field: expected to end within the entry, found it longer");
      if (u16(extra + e) == 1) {
        std::size_t used = 0;
        for (std::uint64_t* field : {&member.size, &member.compressed, &member.header_offset}) {
          if (*field != 0xFFFFFFFF || used + 8 > size) continue;
          *field = little_endian(extra + e + 4 + used, 8);
          used += 8;
        }
      }
      e += 4 + size;
    }
    const std::string where = "member \"" + member.name + "\": ";
    if ((flags & 1) != 0) fail(where + "expected one that is not encrypted, found an encrypted one");
    if (member.method != kStored && member.method != kDeflated) {
      fail(where + "compression: expected stored (0) or deflated (8), found " + std::to_string(member.method));
    }
    if (member.header_offset >= directory_offset_ || member.compressed > directory_offset_ ||
        (member.method == kStored && member.size != member.compressed) ||
        member.size > member.compressed * kMaxDeflateRatio + kMaxDeflateRatio) {
      fail(where + "size: expected one that its " + std::to_string(member.compressed) + " stored bytes can hold, found " +
           std::to_string(member.size));
    }
    std::string key = member.name;
    if (key.ends_with(kSuffix)) key.resize(key.size() - std::strlen(kSuffix));
    if (!members_.emplace(key, member).second) fail(where + "expected a name of its own, found it twice");
    at += kDirectoryBytes + name_size + extra_size + comment_size;
  }
  if (at != end) fail("directory: expected " + std::to_string(count) + " entries to fill it, found more bytes");
}

std::vector<std::string> NpzFile::keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, member] : members_) keys.push_back(key);
  return keys;
}

std::string NpzFile::content(const std::string& key, const Member& member) const {
  const std::string where = "key `" + key + "`: ";
  const auto bytes = file_.bytes();
  const std::byte* header = bytes.data() + member.header_offset;
  if (directory_offset_ - member.header_offset < kLocalBytes || u32(header) != kLocalSignature) {
    fail(where + "expected a member's header at byte " + std::to_string(member.header_offset) + ", found none");
  }
  const std::size_t name_size = u16(header + 26), extra_size = u16(header + 28);
  const std::uint64_t begin = member.header_offset + kLocalBytes + name_size + extra_size;
  if (begin > directory_offset_ || directory_offset_ - begin < member.compressed ||
      std::string_view(reinterpret_cast<const char*>(header + kLocalBytes), name_size) != member.name ||
      u16(header + 8) != member.method) {
    fail(where + "expected the member's header to agree with the directory, found another name, method or end");
  }
  const std::byte* data = bytes.data() + begin;
  std::string content(member.size, '\0');
  if (member.method == kStored) {
    std::memcpy(content.data(), data, member.size);
  } else {
    z_stream stream{};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw Error(ErrorCode::kInternal, "zlib: inflateInit2 failed");
    // zlib counts in 32 bits: feed both ends in pieces.
    constexpr std::uint64_t kPiece = 1u << 30;
    std::uint64_t read = 0, written = 0;
    int status = Z_OK;
    while (status == Z_OK) {
      const std::uint64_t in = std::min(kPiece, member.compressed - read), out = std::min(kPiece, member.size - written);
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(data + read));
      stream.avail_in = static_cast<uInt>(in);
      stream.next_out = reinterpret_cast<Bytef*>(content.data() + written);
      stream.avail_out = static_cast<uInt>(out);
      status = inflate(&stream, Z_NO_FLUSH);
      read += in - stream.avail_in;
      written += out - stream.avail_out;
    }
    inflateEnd(&stream);
    if (status != Z_STREAM_END || written != member.size || read != member.compressed) {
      fail(where + "expected " + std::to_string(member.size) + " bytes when inflated, found damaged or other data");
    }
  }
  if (const std::uint32_t crc = crc_of(content.data(), content.size()); crc != member.crc) {
    fail(where + "check sum: expected " + std::to_string(member.crc) + ", found " + std::to_string(crc));
  }
  return content;
}

NpyArray NpzFile::array(const std::string& key) const {
  const auto found = members_.find(key);
  if (found == members_.end()) {
    std::string list;
    for (const std::string& other : keys()) list += (list.empty() ? "" : ", ") + other;
    fail("key `" + key + "`: expected to be there, found " + (list.empty() ? "an empty archive" : "only " + list));
  }
  return decode_npy(content(key, found->second), path_ + ": key `" + key + "`: ");
}

std::string write_npz(const std::string& path, const std::vector<std::pair<std::string, NpyArray>>& arrays) {
  DurableFile file(path);
  Sha256 hash;
  std::uint64_t position = 0;
  const auto emit = [&](const std::string& text) {
    file.write(text);
    hash.update(text.data(), text.size());
    position += text.size();
    if (position > std::numeric_limits<std::uint32_t>::max()) {
      throw Error(ErrorCode::kUsage, path + ": expected less than 4 GB of arrays, found more");
    }
  };
  std::string directory;
  for (const auto& [key, array] : arrays) {
    const std::string name = key + kSuffix;
    const std::string bytes = encode_npy(array, path + ": key `" + key + "`: ");
    const std::string fields = header_fields(name, crc_of(bytes.data(), bytes.size()), bytes.size());
    put_little_endian(directory, kDirectorySignature, 4);
    put_little_endian(directory, 20, 2);  // made by: version 2.0
    directory += fields;
    directory.append(10, '\0');  // no comment, first disk, no attributes
    put_little_endian(directory, position, 4);
    directory += name;
    std::string header;
    put_little_endian(header, kLocalSignature, 4);
    emit(header + fields + name);
    emit(bytes);
  }
  const std::uint64_t directory_offset = position, count = arrays.size();
  emit(directory);
  std::string end;
  put_little_endian(end, kEndSignature, 4);
  put_little_endian(end, 0, 4);
  put_little_endian(end, count, 2);
  put_little_endian(end, count, 2);
  put_little_endian(end, directory.size(), 4);
  put_little_endian(end, directory_offset, 4);
  put_little_endian(end, 0, 2);
  emit(end);
  file.commit();
  return hash.finish();
}

}  // namespace onestep
