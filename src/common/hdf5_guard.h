// HDF5 files of other people are opened by a process of their own first, which has nothing to lose.
#pragma once

#include <string>

#include "common/locked_child.h"

namespace onestep {

// Opens `path` in a child that can neither write, connect, start anything nor open another file, with limits on time and memory,
// and looks at every link and dataset in it. Refused: soft and external links, data in other files (external storage, virtual
// datasets), filters other than deflate, shuffle and fletcher32, more than 100,000 objects, whatever kills the child or keeps it
// busy for more than 10 s, and what it can't look through, such as with 1 GiB of memory. A file that the library does not open
// passes: the reader says what is wrong with it.
// A file that passed is not looked at again while its inode, size and time of change stay.
// Errors: kCorrupt naming the file; kIo when no child can be made.
void check_hdf5_in_child(const std::string& path, const LockedChildLimits& limits = {});

}  // namespace onestep
