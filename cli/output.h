// Printing: tables for people, JSON for programs.
#pragma once

#include <google/protobuf/message.h>
#include <google/protobuf/timestamp.pb.h>

#include <string>
#include <vector>

namespace poststelle::cli {

// Control characters (terminal sequences in a subject, say) as \x1b and the like.
std::string Escape(const std::string& text);
// Columns aligned by characters; the first row is the head.
std::string Table(const std::vector<std::vector<std::string>>& rows);
// The API's own JSON, on one line or indented.
std::string Json(const google::protobuf::Message& message, bool indented = true);
// "2026-11-24 10:00:00" in UTC, or "-".
std::string Time(const google::protobuf::Timestamp& time);
// "SOME_PREFIX_OK" without the prefix, in lower case.
std::string Short(const std::string& enum_name, const std::string& prefix);

}  // namespace poststelle::cli
