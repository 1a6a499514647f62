// HDF5 files of other people are opened by a process of their own first, which has nothing to lose.
#pragma once

#include <string>

namespace onestep {

// Opens `path` in a child that can neither write, connect nor start anything, with limits on time, memory and open files, and
// looks at every link and dataset in it. Refused: soft and external links, data in other files (external storage, virtual
// datasets), filters other than deflate, shuffle and fletcher32, more than 100,000 objects, and whatever kills the child or
// keeps it busy for more than 10 s. A file that the library politely refuses passes: the reader says what is wrong with it.
// A file that passed is not looked at again while its inode, size and time of change stay.
// Errors: kCorrupt naming the file; kIo when no child can be made.
void check_hdf5_in_child(const std::string& path);

}  // namespace onestep
