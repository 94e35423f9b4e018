#include "cli/files.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"

namespace poststelle::cli {
namespace {

constexpr size_t kMaxBytes = 64 << 20;

absl::StatusOr<std::string> ReadAll(std::istream& in, const std::string& name) {
  std::string out;
  char block[64 << 10];
  while (in.read(block, sizeof block) || in.gcount() > 0) {
    out.append(block, static_cast<size_t>(in.gcount()));
    if (out.size() > kMaxBytes) return absl::InvalidArgumentError(name + " has more than 64 MiB");
  }
  if (in.bad()) return absl::UnavailableError(absl::StrCat("can't read ", name, ": ", std::strerror(errno)));
  return out;
}

}  // namespace

absl::StatusOr<std::string> ReadInput(const std::string& path) {
  if (path == "-") return ReadAll(std::cin, "standard input");
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError(absl::StrCat("can't read ", path, ": ", std::strerror(errno)));
  return ReadAll(in, path);
}

std::string FirstLine(std::string text) {
  if (const size_t end = text.find_first_of("\r\n"); end != std::string::npos) text.resize(end);
  return text;
}

}  // namespace poststelle::cli
