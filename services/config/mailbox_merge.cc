#include "services/config/mailbox_merge.h"

#include <google/protobuf/util/field_mask_util.h>

#include "absl/strings/str_cat.h"
#include "services/config/mailbox_validator.h"

namespace poststelle::config {

using google::protobuf::util::FieldMaskUtil;

std::vector<rpc::Violation> Merge(const v1::Mailbox& update, const google::protobuf::FieldMask& mask,
                                  v1::Mailbox& stored) {
  std::vector<rpc::Violation> violations;
  auto wrong = [&violations](const std::string& field, const std::string& description) {
    rpc::Violation violation;
    violation.field = field;
    violation.description = description;
    violations.push_back(std::move(violation));
  };
  for (const std::string& path : mask.paths()) {
    if (path != "*" && !FieldMaskUtil::IsValidPath<v1::Mailbox>(path)) {
      wrong("update_mask", absl::StrCat("names \"", path, "\", which is no field of a mailbox"));
    }
  }
  if (update.direction() != v1::Mailbox::DIRECTION_UNSPECIFIED && update.direction() != stored.direction()) {
    wrong("mailbox.direction", "never changes; create another mailbox instead");
  }
  if (!violations.empty()) return violations;

  const v1::Mailbox before = stored;
  const bool usual_port = stored.connection().port() == UsualPort(stored.connection());
  const bool all = mask.paths_size() == 1 && mask.paths(0) == "*";
  if (all) {
    stored = update;
  } else if (mask.paths().empty()) {
    stored.MergeFrom(update);
  } else {
    FieldMaskUtil::MergeOptions options;
    options.set_replace_message_fields(true);
    options.set_replace_repeated_fields(true);
    FieldMaskUtil::MergeMessageTo(update, mask, options, &stored);
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
