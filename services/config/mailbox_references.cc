#include "services/config/mailbox_references.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "libs/base/reason.h"
#include "libs/base/status_macros.h"
#include "libs/rpc/status.h"

namespace poststelle::config {
namespace {

constexpr size_t kNamedUsers = 20;  // of more than these the text and the metadata give the number

std::string_view CollectionOf(std::string_view name) { return name.substr(0, name.find('/')); }
std::string IdOf(std::string_view name) { return std::string(name.substr(name.find('/') + 1)); }

rpc::Violation Wrong(const Reference& reference, const std::string& what) {
  rpc::Violation violation;
  violation.field = "mailbox." + reference.field;
  violation.description = what;
  return violation;
}

// What is wrong with a reference to a mailbox, given the direction of that one; empty if nothing.
std::string WrongDirection(const v1::Mailbox& mailbox, const Reference& reference, int64_t direction) {
  if (reference.field == kReplyVia) {
    return direction == v1::Mailbox::DIRECTION_OUTBOUND ? "" : "must name an outbound mailbox";
  }
  return direction == mailbox.direction() ? "must name a mailbox of the other direction" : "";
}

}  // namespace

std::vector<Reference> ReferencesOf(const v1::Mailbox& mailbox) {
  std::vector<Reference> out;
  auto add = [&out](std::string_view field, const std::string& target) {
    if (!target.empty()) out.push_back({std::string(field), target});
  };
  const v1::ImportOptions& options = mailbox.import_options();
  add(kCounterpart, mailbox.counterpart());
  add(kReplyVia, options.reply_via());
  add("import_options.new_ticket_status", options.new_ticket_status());
  add("import_options.reply_ticket_status", options.reply_ticket_status());
  for (const std::string& label : options.ticket_labels()) add("import_options.ticket_labels", label);
  return out;
}

async::Task<absl::Status> CheckReferences(sql::Transaction& tx, const v1::Mailbox& mailbox) {
  std::vector<rpc::Violation> violations;
  for (const Reference& reference : ReferencesOf(mailbox)) {
    const bool is_mailbox = CollectionOf(reference.target) == "mailboxes";
    std::vector<sql::Value> params{IdOf(reference.target)};
    if (!is_mailbox) params.emplace_back(std::string(CollectionOf(reference.target)));
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result found,
        co_await tx.Execute(is_mailbox
                                ? std::string_view("SELECT direction FROM mailbox WHERE mailbox_id = $1 FOR UPDATE")
                                : std::string_view("SELECT entry_id FROM catalogue_entry WHERE entry_id = $1 "
                                                   "AND collection = $2 FOR UPDATE"),
                            std::move(params)));
    if (found.rows.empty()) {
      violations.push_back(Wrong(reference, absl::StrCat("names ", reference.target, ", which does not exist")));
    } else if (is_mailbox) {
      const std::string wrong = WrongDirection(mailbox, reference, found.rows[0].Int(0));
      if (!wrong.empty()) violations.push_back(Wrong(reference, wrong));
    }
  }
  if (violations.empty()) co_return absl::OkStatus();
  co_return rpc::InvalidFieldsStatus(violations, "REFERENCE_NOT_FOUND");
}

async::Task<absl::StatusOr<std::vector<std::string>>> UsersOf(sql::Transaction& tx, std::string target,
                                                              std::string_view field) {
  std::vector<sql::Value> params{std::move(target), std::string(field)};
  PS_CO_ASSIGN_OR_RETURN(sql::Result found,
                         co_await tx.Execute("SELECT DISTINCT mailbox_id FROM mailbox_reference WHERE target = $1 AND "
                                             "($2 = '' OR field = $2) ORDER BY mailbox_id",
                                             std::move(params)));
  std::vector<std::string> users;
  for (const sql::Row& row : found.rows) users.push_back(row.Text(0));
  co_return users;
}

absl::Status InUse(const std::string& what, const std::vector<std::string>& users, const std::string& reason,
                   const std::string& remedy) {
  std::vector<std::string> names;
  for (size_t i = 0; i < std::min(users.size(), kNamedUsers); ++i) names.push_back("mailboxes/" + users[i]);
  if (users.size() > kNamedUsers) names.push_back(absl::StrCat("and ", users.size() - kNamedUsers, " more"));
  const std::string list = absl::StrJoin(names, ", ");
  absl::Status status =
      WithReason(absl::FailedPreconditionError(absl::StrCat(what, " is used by ", list, "; ", remedy)), reason);
  return rpc::WithMetadata(std::move(status), "users", list);
}

void ReplaceReference(v1::Mailbox& mailbox, const std::string& target, const std::string& replacement) {
  if (mailbox.counterpart() == target) mailbox.set_counterpart(replacement);
  if (!mailbox.has_import_options()) return;
  v1::ImportOptions& options = *mailbox.mutable_import_options();
  if (options.reply_via() == target) options.set_reply_via(replacement);
  if (options.new_ticket_status() == target) options.set_new_ticket_status(replacement);
  if (options.reply_ticket_status() == target) options.set_reply_ticket_status(replacement);
  std::vector<std::string> labels;
  for (const std::string& label : options.ticket_labels()) {
    const std::string& kept = label == target ? replacement : label;
    if (!kept.empty() && std::find(labels.begin(), labels.end(), kept) == labels.end()) labels.push_back(kept);
  }
  options.mutable_ticket_labels()->Assign(labels.begin(), labels.end());
}

}  // namespace poststelle::config
