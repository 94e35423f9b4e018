#include "libs/parsing/jsonl.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/time/time.h"
#include "libs/mail/delivery_report.h"

namespace poststelle::parsing {
namespace {

using nlohmann::ordered_json;

std::string Dump(const ordered_json& line) { return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace); }

ordered_json Addresses(const google::protobuf::RepeatedPtrField<mail::Address>& list) {
  ordered_json out = ordered_json::array();
  for (const mail::Address& a : list) out.push_back(a.address());
  return out;
}

// In the terms of other projects' sample mails beside our own: there a mere delay is no bounce.
void AddOrigin(const mail::ParsedMail& mail, ordered_json& line) {
  if (mail.origin() != mail::ORIGIN_UNSPECIFIED) {
    line["origin"] = mail::Origin_Name(mail.origin());
    line["origin_evidence"] = mail.origin_evidence();
  }
  const auto& reports = mail.delivery_reports();
  const bool lost = reports.empty() || std::any_of(reports.begin(), reports.end(),
                                                   [](const auto& report) { return report.action() != "delayed"; });
  line["is_bounce"] = mail.origin() == mail::ORIGIN_BOUNCE && lost;
  line["is_auto_reply"] = mail.origin() == mail::ORIGIN_AUTOMATIC_REPLY;
  if (reports.empty()) return;
  for (const char* key : {"bounce_recipients", "bounce_status", "bounce_reply_code"}) line[key] = ordered_json::array();
  for (const mail::DeliveryReport& report : reports) {
    line["bounce_recipients"].push_back(report.recipient());
    if (!report.status().empty()) line["bounce_status"].push_back(report.status());
    if (const std::string code = mail::ReplyCodeIn(report.diagnostic()); !code.empty()) {
      line["bounce_reply_code"].push_back(code);
    }
  }
  line["bounce_count"] = reports.size();
  line["original_message_id"] = reports[0].original_message_id();
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
  AddOrigin(mail, line);
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
