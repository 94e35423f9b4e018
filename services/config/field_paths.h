// The paths of a field mask.
#pragma once

#include <google/protobuf/field_mask.pb.h>
#include <google/protobuf/util/field_mask_util.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "libs/base/text.h"
#include "libs/rpc/status.h"

namespace poststelle::config {

// The paths of `mask` that are fields of a Message, or "*"; for each other one a violation of `field`.
template <typename Message>
google::protobuf::FieldMask KnownPaths(const google::protobuf::FieldMask& mask, const std::string& field,
                                       std::vector<rpc::Violation>& violations) {
  google::protobuf::FieldMask known;
  for (const std::string& path : mask.paths()) {
    if (path == "*" || google::protobuf::util::FieldMaskUtil::IsValidPath<Message>(path)) {
      known.add_paths(path);
    } else {
      violations.push_back({field, absl::StrCat("names \"", Shown(path), "\", which is no field of the resource")});
    }
  }
  return known;
}

}  // namespace poststelle::config
