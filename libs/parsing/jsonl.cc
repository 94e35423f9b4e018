#include "libs/parsing/jsonl.h"

#include <nlohmann/json.hpp>

#include "absl/time/time.h"

namespace poststelle::parsing {
namespace {

using nlohmann::ordered_json;

std::string Dump(const ordered_json& line) { return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace); }

ordered_json Addresses(const google::protobuf::RepeatedPtrField<mail::Address>& list) {
  ordered_json out = ordered_json::array();
  for (const mail::Address& a : list) out.push_back(a.address());
  return out;
}

}  // namespace

std::string ToJsonLine(const std::string& id, const mail::ParsedMail& mail) {
  ordered_json line;
  line["id"] = id;
  if (mail.from_size() > 0) line["from"] = {{"name", mail.from(0).name()}, {"address", mail.from(0).address()}};
  line["to"] = Addresses(mail.to());
  line["cc"] = Addresses(mail.cc());
  line["subject"] = mail.subject();
  if (mail.has_date()) {
    line["date"] = absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::FromUnixSeconds(mail.date_unix()), absl::UTCTimeZone());
  }
  line["message_id"] = mail.message_id();
  line["in_reply_to"] = std::vector<std::string>(mail.in_reply_to().begin(), mail.in_reply_to().end());
  line["references"] = std::vector<std::string>(mail.references().begin(), mail.references().end());
  line["text"] = mail.text();
  line["html"] = mail.html();
  line["attachments"] = ordered_json::array();
  for (const mail::Attachment& a : mail.attachments()) {
    line["attachments"].push_back(
        {{"filename", a.filename()}, {"content_type", a.content_type()}, {"size", a.size()}, {"sha256", a.sha256()}});
  }
  if (mail.undecodable()) line["undecodable"] = mail.undecodable_reason();
  return Dump(line);
}

std::string ErrorLine(const std::string& id, const std::string& error) {
  ordered_json line;
  line["id"] = id;
  line["error"] = error;
  return Dump(line);
}

}  // namespace poststelle::parsing
