#include "libs/rpc/access.h"

#include <sys/stat.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "libs/base/secret_string.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"
#include "libs/observe/log.h"
#include "libs/rpc/status.h"
#include "libs/secrets/private_file.h"

namespace poststelle::rpc {
namespace {

using auth::v1::Role;

// Not our proto, so it has no option of ours: whoever is known may ask what the API is.
constexpr char kReflection[] = "grpc.reflection.v1alpha.ServerReflection";
constexpr auto kLookEvery = std::chrono::milliseconds(500);
constexpr char kMissing[] = "TOKEN_MISSING";
constexpr char kUnknown[] = "TOKEN_UNKNOWN";

void LogCall(const grpc::CallbackServerContext& context, const MethodRule& rule, const CallerIdentity& caller,
             const grpc::Status& status) {
  const observe::Level level = status.ok() ? observe::Level::kDebug : observe::Level::kInfo;
  if (!observe::Logs(level)) return;
  nlohmann::json fields{{"method", rule.method}, {"peer", context.peer()}};
  if (!caller.name.empty()) fields["caller"] = caller.name;
  if (!caller.name.empty()) fields["role"] = RoleName(caller.role);
  if (!status.ok()) fields["reason"] = ReasonOf(status);
  observe::Log(level, status.ok() ? "call" : "call.refused", fields);
}

grpc::Status Unauthenticated(const std::string& reason, const MethodRule& rule) {
  const std::string what = reason == kMissing
                               ? " needs a token, and none came: send the metadata \"authorization: Bearer <token>\""
                               : ": the authorization that came with the call is no \"Bearer <token>\" known here";
  return Error(grpc::StatusCode::UNAUTHENTICATED, reason, rule.method + what, {{"method", rule.method}});
}

}  // namespace

bool MethodRule::Serves(Role role) const { return std::find(served.begin(), served.end(), role) != served.end(); }

MethodRule MakeMethodRule(const google::protobuf::Descriptor& request) {
  const google::protobuf::MethodDescriptor* method = nullptr;
  int takers = 0;
  for (int s = 0; s < request.file()->service_count(); ++s) {
    const google::protobuf::ServiceDescriptor& service = *request.file()->service(s);
    for (int m = 0; m < service.method_count(); ++m) {
      if (service.method(m)->input_type() != &request) continue;
      method = service.method(m);
      ++takers;
    }
  }
  MethodRule rule;
  rule.method = request.full_name();
  if (takers != 1) return rule;
  rule.method = absl::StrCat(method->service()->full_name(), "/", method->name());
  const bool reflection = method->service()->full_name() == kReflection;
  for (int i = auth::v1::Role_MIN; i <= auth::v1::Role_MAX; ++i) {
    const auto held = static_cast<Role>(i);
    if (reflection && held != auth::v1::ROLE_UNSPECIFIED) rule.served.push_back(held);
    const auto& options = method->options();
    for (int n = 0; n < options.ExtensionSize(auth::v1::allow); ++n) {
      if (!Includes(held, options.GetExtension(auth::v1::allow, n))) continue;
      rule.served.push_back(held);
      break;
    }
  }
  return rule;
}

bool IsLoopback(const std::string& peer) {
  for (const char* start : {"unix:", "unix-abstract:", "ipv4:127.",
                            "ipv6:[::1]:", "ipv6:%5B::1%5D:", "ipv6:[::ffff:127.", "ipv6:%5B::ffff:127."}) {
    if (absl::StartsWith(peer, start)) return true;
  }
  return false;
}

absl::StatusOr<std::unique_ptr<Access>> Access::Open(AccessOptions options) {
  const bool file = !options.identities_file.empty();
  if (!file && !options.allow_unauthenticated_loopback) {
    return absl::FailedPreconditionError(
        "nobody could call: give a file with lines \"<name> <role> <token>\" (docs/access.md), or, on a machine of "
        "your own, --allow-unauthenticated-loopback");
  }
  std::unique_ptr<Access> access(new Access(std::move(options)));
  if (file) PS_RETURN_IF_ERROR(access->Load());
  return access;
}

std::unique_ptr<Access> Access::Unguarded() {
  std::unique_ptr<Access> access(new Access({}));
  access->unguarded_ = true;
  return access;
}

Access::Fingerprint Access::Look() const {
  struct stat info{};  // of the file that the link leads to: Kubernetes changes secrets by changing links
  if (stat(options_.identities_file.c_str(), &info) != 0) return {};
  constexpr int64_t kSecond = 1'000'000'000;
  return {info.st_dev, info.st_ino, info.st_size, info.st_mtim.tv_sec * kSecond + info.st_mtim.tv_nsec,
          info.st_ctim.tv_sec * kSecond + info.st_ctim.tv_nsec};
}

absl::Status Access::Load() const {
  looked_ = std::chrono::steady_clock::now();
  fingerprint_ = Look();  // before it is read: a change in between is seen at the next look
  PS_ASSIGN_OR_RETURN(std::string text, secrets::ReadSecretFile(options_.identities_file));
  const SecretString content(std::move(text));
  PS_ASSIGN_OR_RETURN(Identities parsed, Identities::Parse(options_.identities_file, content.Reveal()));
  identities_ = std::make_shared<const Identities>(std::move(parsed));
  return absl::OkStatus();
}

std::shared_ptr<const Identities> Access::Current() const {
  const std::lock_guard lock(mutex_);
  if (options_.identities_file.empty()) return nullptr;
  const auto now = std::chrono::steady_clock::now();
  if (now - looked_ < kLookEvery) return identities_;
  looked_ = now;
  if (Look() == fingerprint_) return identities_;
  if (const absl::Status loaded = Load(); !loaded.ok()) {
    observe::Log(observe::Level::kError, "access.identities_kept", {{"error", std::string(loaded.message())}});
  } else {
    observe::Log(observe::Level::kInfo, "access.identities_loaded", {{"tokens", identities_->size()}});
  }
  return identities_;
}

Access::Claim Access::ClaimOf(const grpc::CallbackServerContext& context) const {
  Claim claim;
  const auto [begin, end] = context.client_metadata().equal_range("authorization");
  if (begin == end) {
    claim.loopback = unguarded_ || (options_.allow_unauthenticated_loopback && IsLoopback(context.peer()));
    if (!claim.loopback) claim.refusal = kMissing;
    return claim;
  }
  absl::string_view value(begin->second.data(), begin->second.size());
  constexpr size_t kScheme = 7;
  if (std::next(begin) != end || !absl::EqualsIgnoreCase(value.substr(0, kScheme), "Bearer ")) {
    claim.refusal = kUnknown;
  } else {
    claim.token = Identities::DigestOf(Sv(value.substr(kScheme)));
  }
  return claim;
}

Access::Caller Access::Recognise(const Claim& claim) const {
  Caller caller;
  caller.refusal = claim.refusal;
  if (claim.refusal != nullptr) return caller;
  if (claim.loopback) {
    caller.identity.name = "loopback";
    caller.identity.role = auth::v1::ROLE_ADMIN;
    return caller;
  }
  const std::shared_ptr<const Identities> identities = Current();
  const CallerIdentity* found = identities == nullptr ? nullptr : identities->Find(claim.token);
  if (found == nullptr) {
    caller.refusal = kUnknown;
  } else {
    caller.identity = *found;
  }
  return caller;
}

grpc::Status Access::StatusOf(const Caller& caller, const MethodRule& rule) {
  if (caller.refusal != nullptr) return Unauthenticated(caller.refusal, rule);
  return rule.Serves(caller.identity.role) ? grpc::Status::OK : RoleInsufficient(caller.identity, rule);
}

grpc::Status Access::Check(const grpc::CallbackServerContext& context, const MethodRule& rule) const {
  const Caller caller = Recognise(ClaimOf(context));
  const grpc::Status status = StatusOf(caller, rule);
  LogCall(context, rule, caller.identity, status);
  return status;
}

grpc::Status Access::CheckAgain(const Claim& claim, const MethodRule& rule) const {
  return StatusOf(Recognise(claim), rule);
}

CallerIdentity Access::CallerOf(const grpc::CallbackServerContext& context) const {
  return Recognise(ClaimOf(context)).identity;
}

grpc::Status RoleInsufficient(const CallerIdentity& caller, const MethodRule& rule, std::string_view part) {
  const auto name = [](std::string* out, Role role) { absl::StrAppend(out, RoleName(role)); };
  const std::string roles = absl::StrJoin(rule.served, ",", name);
  const std::string who = rule.served.empty() ? "nobody" : absl::StrJoin(rule.served, ", ", name);
  return Error(
      grpc::StatusCode::PERMISSION_DENIED, "ROLE_INSUFFICIENT",
      absl::StrCat(caller.name, " has the role ", RoleName(caller.role), "; ", rule.method, Av(part), " serves ", who),
      {{"method", rule.method}, {"caller", caller.name}, {"role", RoleName(caller.role)}, {"roles", roles}});
}

}  // namespace poststelle::rpc
