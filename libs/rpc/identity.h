// Who calls: identities with a role each, recognised by the bearer token that a call brings.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "poststelle/auth/v1/access.pb.h"

namespace poststelle::rpc {

// A caller, as handlers and logs may know it: nothing in here is secret.
struct CallerIdentity {
  std::string name;  // empty: nobody
  auth::v1::Role role = auth::v1::ROLE_UNSPECIFIED;
};

// As people write it: "viewer" for ROLE_VIEWER.
std::string RoleName(auth::v1::Role role);

// Whether `held` is `wanted` or includes it: an admin is an operator, an operator is a viewer.
bool Includes(auth::v1::Role held, auth::v1::Role wanted);

// The identities of a file, one a line, `#` before a comment:
//
//     # name    role      token, or the SHA-256 of it
//     anna      admin     sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//     helpdesk  consumer  a-token-of-at-least-20-characters
//
// A name may have several lines, all with the same role: the old token and the new one, while it is being replaced.
// Only the hashes are kept in memory. Immutable, so thread-safe.
class Identities {
 public:
  using Digest = std::array<unsigned char, 32>;  // SHA-256 of a token

  // Errors name line and fix by `path`, and never a word of the line: any of them may be a token in the wrong place.
  static absl::StatusOr<Identities> Parse(const std::string& path, std::string_view text);

  static Digest DigestOf(std::string_view token);
  // Nullptr if no one has this token. Takes as long for a wrong token as for a right one.
  const CallerIdentity* Find(const Digest& token) const;
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    Digest digest{};
    CallerIdentity identity;
  };
  std::vector<Entry> entries_;
};

}  // namespace poststelle::rpc
