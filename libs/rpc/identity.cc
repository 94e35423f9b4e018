#include "libs/rpc/identity.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <map>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "libs/base/sv.h"
#include "libs/secrets/vault.h"

namespace poststelle::rpc {
namespace {

using auth::v1::Role;

constexpr size_t kMaxNameBytes = 63;
constexpr size_t kMaxTokenBytes = 512;

bool IsName(absl::string_view text) {
  const auto allowed = [](char c) { return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '@' || c == '-'; };
  return text.size() <= kMaxNameBytes && std::all_of(text.begin(), text.end(), allowed);
}

std::optional<Role> RoleOf(absl::string_view word) {
  for (int i = auth::v1::Role_MIN; i <= auth::v1::Role_MAX; ++i) {
    const auto role = static_cast<Role>(i);
    if (role != auth::v1::ROLE_UNSPECIFIED && RoleName(role) == word) return role;
  }
  return std::nullopt;
}

}  // namespace

std::string RoleName(Role role) { return absl::AsciiStrToLower(absl::StripPrefix(auth::v1::Role_Name(role), "ROLE_")); }

bool Includes(Role held, Role wanted) {
  if (wanted == auth::v1::ROLE_UNSPECIFIED) return false;
  if (held == wanted) return true;
  if (wanted == auth::v1::ROLE_VIEWER) return held == auth::v1::ROLE_OPERATOR || held == auth::v1::ROLE_ADMIN;
  return wanted == auth::v1::ROLE_OPERATOR && held == auth::v1::ROLE_ADMIN;
}

Identities::Digest Identities::DigestOf(std::string_view token) {
  Digest digest{};
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest.data());
  return digest;
}

absl::StatusOr<Identities> Identities::Parse(const std::string& path, std::string_view text) {
  Identities out;
  std::map<std::string, Role> roles;  // by name
  int number = 0;
  for (absl::string_view line : absl::StrSplit(Av(text), '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#') continue;
    const auto wrong = [&](const char* what) {
      return absl::FailedPreconditionError(absl::StrCat(path, ":", number, ": ", what));
    };
    const std::vector<absl::string_view> words = absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    if (words.size() != 3) return wrong("expected \"<name> <role> <token>\"");
    if (!IsName(words[0])) return wrong("the name, the first word, may have 63 of A-Z, a-z, 0-9 and ._@-");
    const std::optional<Role> role = RoleOf(words[1]);
    if (!role) {
      return wrong("the role, the second word, must be one of viewer, operator, admin, consumer, service");
    }
    absl::string_view token = words[2];
    Entry entry;
    if (absl::ConsumePrefix(&token, "sha256:")) {
      const bool hex = token.size() == 2 * entry.digest.size() &&
                       std::all_of(token.begin(), token.end(), [](char c) { return absl::ascii_isxdigit(c); });
      if (!hex) return wrong("sha256: must be followed by the 64 hexadecimal digits that sha256sum prints");
      const std::string bytes = absl::HexStringToBytes(token);
      std::copy(bytes.begin(), bytes.end(), entry.digest.begin());
    } else if (token.size() < secrets::kMinTokenBytes || token.size() > kMaxTokenBytes ||
               !std::all_of(token.begin(), token.end(), [](char c) { return absl::ascii_isgraph(c); })) {
      return wrong("the token, the third word, must have 20 to 512 ASCII characters; openssl rand -hex 32 makes one");
    } else {
      entry.digest = DigestOf(Sv(token));
    }
    entry.identity.name = std::string(words[0]);
    entry.identity.role = *role;
    if (const auto [known, fresh] = roles.try_emplace(entry.identity.name, *role); !fresh && known->second != *role) {
      return wrong("a line before gives this name another role; a name has one");
    }
    const auto same = [&entry](const Entry& other) { return other.digest == entry.digest; };
    if (std::any_of(out.entries_.begin(), out.entries_.end(), same)) {
      return wrong("a line before has the same token; give each identity its own");
    }
    out.entries_.push_back(std::move(entry));
  }
  if (out.entries_.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(path, " holds no line \"<name> <role> <token>\""));
  }
  return out;
}

const CallerIdentity* Identities::Find(const Digest& token) const {
  const CallerIdentity* found = nullptr;
  for (const Entry& entry : entries_) {
    if (CRYPTO_memcmp(entry.digest.data(), token.data(), token.size()) == 0) found = &entry.identity;
  }
  return found;
}

}  // namespace poststelle::rpc
