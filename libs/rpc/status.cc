#include "libs/rpc/status.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "libs/base/reason.h"

namespace poststelle::rpc {
namespace {

google::rpc::Status Start(grpc::StatusCode code, const std::string& reason, const std::string& message,
                          const std::map<std::string, std::string>& metadata) {
  google::rpc::Status details;
  details.set_code(code);
  details.set_message(message);
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("poststelle");
  for (const auto& [key, value] : metadata) (*info.mutable_metadata())[key] = value;
  details.add_details()->PackFrom(info);
  if (code == grpc::StatusCode::UNAVAILABLE) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(1);
    details.add_details()->PackFrom(retry);
  }
  return details;
}

grpc::Status Build(const google::rpc::Status& details) {
  return grpc::Status(static_cast<grpc::StatusCode>(details.code()), details.message(), details.SerializeAsString());
}

template <typename T>
T Detail(const grpc::Status& status) {
  google::rpc::Status details;
  T out;
  if (!details.ParseFromString(status.error_details())) return out;
  for (const auto& any : details.details()) {
    if (any.Is<T>() && any.UnpackTo(&out)) return out;
  }
  return out;
}

// What travels in an absl::Status: google.rpc messages under these names.
constexpr const char* kInfoPayload = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr const char* kBadRequestPayload = "type.googleapis.com/google.rpc.BadRequest";

template <typename T>
T Payload(const absl::Status& status, const char* name) {
  T out;
  if (auto payload = status.GetPayload(name)) out.ParsePartialFromString(std::string(*payload));
  return out;
}

google::rpc::BadRequest BadRequestOf(const std::vector<Violation>& violations) {
  google::rpc::BadRequest bad;
  for (const Violation& v : violations) {
    auto* field = bad.add_field_violations();
    field->set_field(v.field);
    field->set_description(v.description);
  }
  return bad;
}

std::string TextOf(const std::vector<Violation>& violations) {
  auto text = [](std::string* out, const Violation& v) { absl::StrAppend(out, v.field, ": ", v.description); };
  return absl::StrJoin(violations, "; ", text);
}

std::string ReasonOfCode(absl::StatusCode code) {
  std::string name = absl::StatusCodeToString(code);
  return name.empty() ? "UNKNOWN" : name;
}

}  // namespace

grpc::Status Error(grpc::StatusCode code, const std::string& reason, const std::string& message,
                   const std::map<std::string, std::string>& metadata) {
  return Build(Start(code, reason, message, metadata));
}

grpc::Status InvalidFields(const std::vector<Violation>& violations, const std::string& reason) {
  google::rpc::Status details = Start(grpc::StatusCode::INVALID_ARGUMENT, reason, TextOf(violations), {});
  details.add_details()->PackFrom(BadRequestOf(violations));
  return Build(details);
}

absl::Status InvalidFieldsStatus(const std::vector<Violation>& violations, const std::string& reason) {
  absl::Status status = WithReason(absl::InvalidArgumentError(TextOf(violations)), reason);
  status.SetPayload(kBadRequestPayload, absl::Cord(BadRequestOf(violations).SerializeAsString()));
  return status;
}

absl::Status WithMetadata(absl::Status status, const std::string& key, const std::string& value) {
  auto info = Payload<google::rpc::ErrorInfo>(status, kInfoPayload);
  (*info.mutable_metadata())[key] = value;
  status.SetPayload(kInfoPayload, absl::Cord(info.SerializeAsString()));
  return status;
}

grpc::Status FromAbsl(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string reason = poststelle::ReasonOf(status);
  if (reason.empty()) reason = ReasonOfCode(status.code());
  const auto info = Payload<google::rpc::ErrorInfo>(status, kInfoPayload);
  google::rpc::Status details = Start(static_cast<grpc::StatusCode>(status.code()), reason,
                                      std::string(status.message()), {info.metadata().begin(), info.metadata().end()});
  const auto bad = Payload<google::rpc::BadRequest>(status, kBadRequestPayload);
  if (!bad.field_violations().empty()) details.add_details()->PackFrom(bad);
  return Build(details);
}

std::string ReasonOf(const grpc::Status& status) { return Detail<google::rpc::ErrorInfo>(status).reason(); }

std::map<std::string, std::string> MetadataOf(const grpc::Status& status) {
  const auto info = Detail<google::rpc::ErrorInfo>(status);
  return {info.metadata().begin(), info.metadata().end()};
}

std::vector<Violation> ViolationsOf(const grpc::Status& status) {
  std::vector<Violation> out;
  const auto bad = Detail<google::rpc::BadRequest>(status);
  for (const auto& v : bad.field_violations()) {
    Violation violation;
    violation.field = v.field();
    violation.description = v.description();
    out.push_back(std::move(violation));
  }
  return out;
}

}  // namespace poststelle::rpc
