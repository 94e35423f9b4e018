#include "services/fetcher/reply_matcher.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"

namespace poststelle::fetcher {
namespace {

constexpr size_t kMaxParticipants = 200;
constexpr size_t kMaxReferences = 100;
constexpr size_t kMaxIndexKey = 500;

void AddUnique(std::vector<std::string>& list, std::string value, size_t limit) {
  if (value.empty() || list.size() >= limit) return;
  value = IndexKey(value);
  if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(std::move(value));
}

}  // namespace

std::string IndexKey(const std::string& text) {
  return text.size() <= kMaxIndexKey ? text : "sha256:" + Hex(Sha256(text));
}

std::vector<std::string> ParticipantsOf(const v1::Message& message) {
  std::vector<std::string> out;
  AddUnique(out, absl::AsciiStrToLower(message.from().address()), kMaxParticipants);
  for (const auto* list : {&message.reply_to(), &message.to(), &message.cc()}) {
    for (const v1::Address& a : *list) AddUnique(out, absl::AsciiStrToLower(a.address()), kMaxParticipants);
  }
  return out;
}

std::vector<std::string> ReferencesOf(const v1::Message& message) {
  std::vector<std::string> out;
  AddUnique(out, message.message_id(), kMaxReferences);
  for (const std::string& id : message.in_reply_to()) AddUnique(out, id, kMaxReferences);
  // The nearest references stand last (RFC 5322 §3.6.4).
  for (auto it = message.references().rbegin(); it != message.references().rend(); ++it) {
    AddUnique(out, *it, kMaxReferences);
  }
  return out;
}

async::Task<absl::StatusOr<std::optional<std::string>>> FindTicket(sql::Transaction& tx, const std::string& mailbox_key,
                                                                   const v1::Message& message) {
  const std::string sender = IndexKey(absl::AsciiStrToLower(message.from().address()));
  if (sender.empty()) co_return std::nullopt;
  for (const std::string& reference : ReferencesOf(message)) {
    if (reference == IndexKey(message.message_id())) continue;
    std::vector<sql::Value> params{mailbox_key, reference, sender};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result found,
        co_await tx.Execute(
            "SELECT t.ticket_id FROM thread_reference r JOIN ticket t ON t.ticket_id = r.ticket_id "
            "JOIN ticket_participant p ON p.ticket_id = t.ticket_id AND p.address = $3 "
            "WHERE r.mailbox_key = $1 AND r.internet_message_id = $2 ORDER BY t.create_time DESC, t.ticket_id LIMIT 1",
            std::move(params)));
    if (!found.rows.empty()) co_return found.rows[0].Text(0);
  }
  co_return std::nullopt;
}

}  // namespace poststelle::fetcher
