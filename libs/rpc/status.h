// gRPC errors with google.rpc details: one ErrorInfo always, BadRequest with every bad field, RetryInfo when waiting
// helps.
#pragma once

#include <grpcpp/support/status.h>

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace poststelle::rpc {

// One bad field, by its path from the request ("mailbox.connection.port"), and what would be right.
struct Violation {
  std::string field;
  std::string description;
};

// An error with ErrorInfo{reason, domain "poststelle", metadata}. UNAVAILABLE carries RetryInfo of one second.
grpc::Status Error(grpc::StatusCode code, const std::string& reason, const std::string& message,
                   const std::map<std::string, std::string>& metadata = {});

// INVALID_ARGUMENT with reason INVALID_FIELDS (or another) that names every violation.
grpc::Status InvalidFields(const std::vector<Violation>& violations, const std::string& reason = "INVALID_FIELDS");

// The same for functions that return absl::Status: kInvalidArgument that FromAbsl turns into InvalidFields.
absl::Status InvalidFieldsStatus(const std::vector<Violation>& violations, const std::string& reason);

// `status` with an entry of ErrorInfo.metadata, which FromAbsl puts into the answer.
absl::Status WithMetadata(absl::Status status, const std::string& key, const std::string& value);

// The code as it is; the reason it carries (libs/base/reason.h), or one made of the code; the metadata and bad fields
// that the functions above put there.
grpc::Status FromAbsl(const absl::Status& status);

// The reason of an error that came over the wire; empty if there is none.
std::string ReasonOf(const grpc::Status& status);
// Its metadata.
std::map<std::string, std::string> MetadataOf(const grpc::Status& status);
// The bad fields of an error that came over the wire.
std::vector<Violation> ViolationsOf(const grpc::Status& status);

}  // namespace poststelle::rpc
