#include "libs/probe/request.h"

#include <algorithm>
#include <map>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/api/field_behavior.pb.h"
#include "libs/base/text.h"

namespace poststelle::probe {
namespace {

using google::protobuf::FieldDescriptor;

constexpr size_t kMaxText = 1024;  // bytes; config's own limits are lower
constexpr size_t kMaxPem = 64 << 10;
constexpr size_t kMaxHost = 253;

bool Has(const FieldDescriptor& field, google::api::FieldBehavior behavior) {
  const auto& behaviors = field.options().GetRepeatedExtension(google::api::field_behavior);
  return std::find(behaviors.begin(), behaviors.end(), behavior) != behaviors.end();
}

// What texts and enums of a mailbox may be at all, wherever they stand: config has checked what they mean, but nothing
// that comes over a network is believed.
class Checker {
 public:
  explicit Checker(std::vector<rpc::Violation>& violations) : violations_(violations) {}

  void Check(const google::protobuf::Message& message, const std::string& path) {
    std::vector<const FieldDescriptor*> fields;
    message.GetReflection()->ListFields(message, &fields);
    for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
      const FieldDescriptor* field = message.GetDescriptor()->field(i);
      const bool given = std::find(fields.begin(), fields.end(), field) != fields.end();
      if (!given && Has(*field, google::api::REQUIRED)) {
        violations_.push_back({absl::StrCat(path, ".", field->name()), "must be given"});
      }
    }
    for (const FieldDescriptor* field : fields) {
      if (Has(*field, google::api::OUTPUT_ONLY)) continue;
      const std::string at = absl::StrCat(path, ".", field->name());
      const int count = field->is_repeated() ? message.GetReflection()->FieldSize(message, field) : 1;
      for (int i = 0; i < count; ++i) CheckValue(message, *field, i, at);
    }
  }

 private:
  void CheckValue(const google::protobuf::Message& message, const FieldDescriptor& field, int i,
                  const std::string& at) {
    const google::protobuf::Reflection& reflection = *message.GetReflection();
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Check(field.is_repeated() ? reflection.GetRepeatedMessage(message, &field, i)
                                : reflection.GetMessage(message, &field),
            at);
    } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
      const int number = field.is_repeated() ? reflection.GetRepeatedEnumValue(message, &field, i)
                                             : reflection.GetEnumValue(message, &field);
      if (field.enum_type()->FindValueByNumber(number) == nullptr) violations_.push_back({at, "is no known value"});
    } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      CheckText(field.is_repeated() ? reflection.GetRepeatedString(message, &field, i)
                                    : reflection.GetString(message, &field),
                field.name(), at);
    }
  }
  void CheckText(const std::string& text, const std::string& name, const std::string& at) {
    const bool pem = name == "ca_certificates_pem";
    const size_t most = pem ? kMaxPem : name == "host" ? kMaxHost : kMaxText;
    if (text.size() > most) {
      violations_.push_back({at, absl::StrCat("must have at most ", most, " bytes")});
    } else if (pem ? !absl::StrContains(text, "-----BEGIN CERTIFICATE-----") : HasControl(text)) {
      violations_.push_back({at, pem ? "must be certificates in PEM form" : "must have no control characters"});
    }
  }

  std::vector<rpc::Violation>& violations_;
};

}  // namespace

grpc::Status CheckMailbox(const config::v1::Mailbox& mailbox, config::v1::Mailbox::Direction direction,
                          std::vector<rpc::Violation> violations) {
  Checker(violations).Check(mailbox, "mailbox");
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
