// Decides who may call what: identities by token, roles by method. The gate (gate.h) asks before every call.
#pragma once

#include <google/protobuf/descriptor.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/rpc/identity.h"

namespace poststelle::rpc {

struct AccessOptions {
  // File of `Identities`. Empty: nobody has a token.
  std::string identities_file;
  // Callers on this machine that bring no token are admins. Never in front of a proxy: to the service, whoever comes
  // through it is on this machine.
  bool allow_unauthenticated_loopback = false;
};

// What the proto says about a method.
struct MethodRule {
  std::string method;                  // "poststelle.config.v1.MailboxService/GetMailbox"
  std::vector<auth::v1::Role> served;  // every role that may call it, those that include another one too

  bool Serves(auth::v1::Role role) const;
};

// The rule of the one method, in the file of `request`, that takes it. A type that no method takes, or several do, has
// a rule that serves nobody.
MethodRule MakeMethodRule(const google::protobuf::Descriptor& request);

template <typename Request>
const MethodRule& RuleOf() {
  static const MethodRule rule = MakeMethodRule(*Request::descriptor());
  return rule;
}

// The address of a peer, as gRPC writes it, is of this machine.
bool IsLoopback(const std::string& peer);

// Looks at the file again within a second of its change, at the next call: no restart to give or take a token. What is
// wrong then is logged, and the identities stay as they were. Thread-safe.
class Access {
 public:
  // Errors say what to mend: no file and no loopback, a file that others may read, a malformed line.
  static absl::StatusOr<std::unique_ptr<Access>> Open(AccessOptions options);

  // Everybody is an admin. For unit tests alone: a channel within a process has no address, so is not of loopback.
  static std::unique_ptr<Access> Unguarded();

  // OK, UNAUTHENTICATED (TOKEN_MISSING, TOKEN_UNKNOWN) or PERMISSION_DENIED (ROLE_INSUFFICIENT). Tokens are neither in
  // the answer nor in the log, which names the caller.
  grpc::Status Check(const grpc::CallbackServerContext& context, const MethodRule& rule) const;

  // What a call brought to prove who calls.
  struct Claim {
    bool loopback = false;          // no token, and none is needed
    const char* refusal = nullptr;  // the reason, if nothing could be made of it
    Identities::Digest token{};
  };
  Claim ClaimOf(const grpc::CallbackServerContext& context) const;

  // The same for a call that was let in and goes on: its token may have been taken away since.
  grpc::Status CheckAgain(const Claim& claim, const MethodRule& rule) const;

  // Who calls, for what a method says to some roles only, and for the record. Nobody if the token is not known (any
  // more).
  CallerIdentity CallerOf(const grpc::CallbackServerContext& context) const;

 private:
  using Fingerprint = std::tuple<uint64_t, uint64_t, int64_t, int64_t, int64_t>;
  struct Caller {
    CallerIdentity identity;
    const char* refusal = nullptr;  // the reason; nullptr if the identity is somebody
  };
  explicit Access(AccessOptions options) : options_(std::move(options)) {}
  Fingerprint Look() const;
  absl::Status Load() const;  // with mutex_ held
  std::shared_ptr<const Identities> Current() const;
  Caller Recognise(const Claim& claim) const;
  static grpc::Status StatusOf(const Caller& caller, const MethodRule& rule);

  const AccessOptions options_;
  bool unguarded_ = false;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const Identities> identities_;  // guarded by mutex_; shared with the calls being checked
  mutable Fingerprint fingerprint_;                       // guarded by mutex_
  mutable std::chrono::steady_clock::time_point looked_;  // guarded by mutex_
};

// PERMISSION_DENIED with reason ROLE_INSUFFICIENT, which names the method and who may call it. Also for handlers whose
// methods serve a role in part: `part` says which, with `rule` narrowed to those who may.
grpc::Status RoleInsufficient(const CallerIdentity& caller, const MethodRule& rule, std::string_view part = "");

}  // namespace poststelle::rpc
