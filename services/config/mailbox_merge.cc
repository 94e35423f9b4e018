#include "services/config/mailbox_merge.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/config/field_paths.h"
#include "services/config/mailbox_validator.h"

namespace poststelle::config {

namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::util::FieldMaskUtil;

// The path of every field that is set, the innermost ones; lists, maps and protobuf's own messages as a whole.
void AddSetFields(const google::protobuf::Message& message, const std::string& above,
                  google::protobuf::FieldMask& out) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string path = absl::StrCat(above, field->name());
    const bool whole = field->is_repeated() || field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE ||
                       absl::StartsWith(field->message_type()->full_name(), "google.protobuf.");
    const int before = out.paths_size();
    if (!whole) AddSetFields(message.GetReflection()->GetMessage(message, field), absl::StrCat(path, "."), out);
    if (out.paths_size() == before) out.add_paths(path);
  }
}

}  // namespace

std::vector<rpc::Violation> Merge(const v1::Mailbox& update, const google::protobuf::FieldMask& mask,
                                  v1::Mailbox& stored) {
  std::vector<rpc::Violation> violations;
  auto wrong = [&violations](const std::string& field, const std::string& description) {
    rpc::Violation violation;
    violation.field = field;
    violation.description = description;
    violations.push_back(std::move(violation));
  };
  google::protobuf::FieldMask known = KnownPaths<v1::Mailbox>(mask, "update_mask", violations);
  if (mask.paths().empty()) AddSetFields(update, "", known);
  if (update.direction() != v1::Mailbox::DIRECTION_UNSPECIFIED && update.direction() != stored.direction()) {
    wrong("mailbox.direction", "never changes; create another mailbox instead");
  }

  const v1::Mailbox before = stored;
  const bool usual_port = stored.connection().port() == UsualPort(stored.connection());
  const bool all = mask.paths_size() == 1 && mask.paths(0) == "*";
  if (all) {
    stored = update;
  } else {
    FieldMaskUtil::MergeOptions options;
    options.set_replace_message_fields(true);
    options.set_replace_repeated_fields(true);
    FieldMaskUtil::MergeMessageTo(update, known, options, &stored);
  }
  // A port that was the usual one follows the encryption, unless a port is given.
  const bool port_given = update.connection().port() != 0 && stored.connection().port() == update.connection().port();
  if (usual_port && !port_given && stored.connection().encryption() != before.connection().encryption()) {
    stored.mutable_connection()->set_port(0);
  }
  // What the service alone decides stays.
  stored.set_name(before.name());
  stored.set_direction(before.direction());
  stored.set_connection_generation(before.connection_generation());
  stored.set_enable_generation(before.enable_generation());
  *stored.mutable_create_time() = before.create_time();
  *stored.mutable_update_time() = before.update_time();
  stored.set_etag(before.etag());
  stored.clear_warnings();
  return violations;
}

}  // namespace poststelle::config
