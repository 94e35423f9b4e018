// Files that a person names on the command line.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace poststelle::cli {

// The whole of a file, or of standard input for "-"; at most 64 MiB. The error names the file and what stands in the
// way.
absl::StatusOr<std::string> ReadInput(const std::string& path);

// Up to the first line break.
std::string FirstLine(std::string text);

}  // namespace poststelle::cli
