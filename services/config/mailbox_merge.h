// Update masks (AIP-134).
#pragma once

#include <google/protobuf/field_mask.pb.h>

#include <vector>

#include "libs/rpc/status.h"
#include "poststelle/config/v1/mailbox.pb.h"

namespace poststelle::config {

// Puts the masked fields of `update` into `stored`: an absent mask takes what is set, "*" everything. Output fields,
// the name and the direction are never changed; trying to change the direction, or an unknown path, is a violation.
std::vector<rpc::Violation> Merge(const v1::Mailbox& update, const google::protobuf::FieldMask& mask,
                                  v1::Mailbox& stored);

}  // namespace poststelle::config
