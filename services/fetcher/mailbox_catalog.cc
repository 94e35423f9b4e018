#include "services/fetcher/mailbox_catalog.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace poststelle::fetcher {

std::string MailboxIdOf(const std::string& resource_name) {
  return std::string(absl::StripPrefix(resource_name, "mailboxes/"));
}

FolderKey FolderKeyOf(const config::v1::Mailbox& mailbox) {
  FolderKey out;
  out.mailbox.id = MailboxIdOf(mailbox.name());
  out.mailbox.key =
      absl::StrCat(out.mailbox.id, "@", mailbox.create_time().seconds(), ".", mailbox.create_time().nanos());
  out.generation = mailbox.connection_generation();
  out.folder = mailbox.import_options().folders().empty() ? "INBOX" : mailbox.import_options().folders(0);
  return out;
}

void MailboxCatalog::OnChange(std::function<void(const CatalogChange&)> listener) {
  std::lock_guard lock(mutex_);
  listener_ = std::move(listener);
}

MailboxRef MailboxCatalog::Find(const std::string& mailbox_id) const {
  std::lock_guard lock(mutex_);
  auto it = mailboxes_.find(mailbox_id);
  return it == mailboxes_.end() ? nullptr : it->second;
}

std::vector<MailboxRef> MailboxCatalog::List() const {
  std::lock_guard lock(mutex_);
  std::vector<MailboxRef> out;
  out.reserve(mailboxes_.size());
  for (const auto& [id, mailbox] : mailboxes_) out.push_back(mailbox);
  return out;
}

size_t MailboxCatalog::enabled() const {
  std::lock_guard lock(mutex_);
  return enabled_;
}

bool MailboxCatalog::synced() const {
  std::lock_guard lock(mutex_);
  return synced_;
}

void MailboxCatalog::Upsert(config::v1::Mailbox mailbox) {
  CatalogChange change;
  change.mailbox_id = MailboxIdOf(mailbox.name());
  change.mailbox = std::make_shared<const config::v1::Mailbox>(std::move(mailbox));
  std::function<void(const CatalogChange&)> listener;
  {
    std::lock_guard lock(mutex_);
    MailboxRef& place = mailboxes_[change.mailbox_id];
    if (place != nullptr && place->enabled()) --enabled_;
    if (change.mailbox->enabled()) ++enabled_;
    place = change.mailbox;
    listener = listener_;
  }
  if (listener) listener(change);
}

void MailboxCatalog::Delete(const std::string& mailbox_id) {
  std::function<void(const CatalogChange&)> listener;
  {
    std::lock_guard lock(mutex_);
    if (auto it = mailboxes_.find(mailbox_id); it != mailboxes_.end()) {
      if (it->second->enabled()) --enabled_;
      mailboxes_.erase(it);
    }
    listener = listener_;
  }
  CatalogChange change;
  change.mailbox_id = mailbox_id;
  if (listener) listener(change);
}

void MailboxCatalog::FinishSnapshot(const std::set<std::string>& seen) {
  std::vector<std::string> gone;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, mailbox] : mailboxes_) {
      if (!seen.contains(id)) gone.push_back(id);
    }
    synced_ = true;
  }
  for (const std::string& id : gone) Delete(id);
}

}  // namespace poststelle::fetcher
