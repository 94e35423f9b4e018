#include "libs/probe/request.h"

#include <map>
#include <vector>

#include "absl/strings/str_cat.h"

namespace poststelle::probe {

grpc::Status CheckMailbox(const config::v1::Mailbox& mailbox, config::v1::Mailbox::Direction direction) {
  std::vector<rpc::Violation> violations;
  if (mailbox.direction() != direction) violations.push_back({"mailbox.direction", "is served by another service"});
  if (mailbox.connection().host().empty()) violations.push_back({"mailbox.connection.host", "must be given"});
  const int32_t port = mailbox.connection().port();
  if (port < 1 || port > 65'535) violations.push_back({"mailbox.connection.port", "must be 1 to 65535"});
  return violations.empty() ? grpc::Status::OK : rpc::InvalidFields(violations);
}

grpc::Status TestFailed(const Step& step) {
  std::map<std::string, std::string> metadata{
      {"step", Step::Kind_Name(step.kind())},      {"step_reason", step.reason()},
      {"explanation_de", step.explanation().de()}, {"explanation_en", step.explanation().en()},
      {"remedy_de", step.remedy().de()},           {"remedy_en", step.remedy().en()}};
  if (!step.server_words().empty()) metadata["server_words"] = step.server_words();
  return rpc::Error(grpc::StatusCode::FAILED_PRECONDITION, "TEST_FAILED",
                    absl::StrCat(step.explanation().en(), " ", step.remedy().en()), metadata);
}

}  // namespace poststelle::probe
