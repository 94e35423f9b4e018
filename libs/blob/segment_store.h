// Raw bytes in append-only files in one directory, for an SQLite database on the same host: several processes may share
// both. docs/decisions/0007 tells why, and why a crash loses nothing.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "libs/blob/blob_store.h"

namespace poststelle::blob {

// Each process start appends to files of its own (`owner`-1.raw, `owner`-2.raw …) and reads everybody's. A file
// `owner`.lock is locked for as long as the process lives; it tells others that what lies behind the last row is still
// to be committed, and is removed by whoever reclaimed that after the end of the process. All files are 0600, the
// directory is made with 0700. Writes happen on a thread of the store: what is submitted while it waits for the disk is
// written and synced together.
//
// `owner`: letters and digits, new at each process start. kFailedPrecondition if the directory can't be used.
absl::StatusOr<std::unique_ptr<Store>> OpenSegmentStore(std::string directory, std::string owner,
                                                        int64_t segment_bytes = int64_t{1} << 30);

}  // namespace poststelle::blob
