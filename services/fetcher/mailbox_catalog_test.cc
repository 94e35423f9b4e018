#include "services/fetcher/mailbox_catalog.h"

#include <gtest/gtest.h>

namespace poststelle::fetcher {
namespace {

TEST(MailboxCatalog, ASnapshotEndsWithWhatItHeldAndNothingElse) {
  constexpr int kMailboxes = 10'000;
  MailboxCatalog catalog;
  std::set<std::string> seen;
  for (int i = 0; i < kMailboxes; ++i) {
    config::v1::Mailbox mailbox;
    mailbox.set_name("mailboxes/box-" + std::to_string(i));
    if (i % 2 == 0) seen.insert("box-" + std::to_string(i));
    catalog.Upsert(std::move(mailbox));
  }
  int deleted = 0;
  catalog.OnChange([&deleted](const CatalogChange& change) { deleted += change.mailbox == nullptr ? 1 : 0; });
  EXPECT_FALSE(catalog.synced());
  catalog.FinishSnapshot(seen);
  EXPECT_TRUE(catalog.synced());
  EXPECT_EQ(deleted, kMailboxes / 2);
  EXPECT_EQ(catalog.List().size(), seen.size());
}

TEST(MailboxCatalog, TheFoldersOfAMailboxEachOnce) {
  config::v1::Mailbox mailbox;
  mailbox.set_name("mailboxes/support");
  mailbox.set_connection_generation(3);
  ASSERT_EQ(FoldersOf(mailbox).size(), 1u);
  EXPECT_EQ(FoldersOf(mailbox)[0].folder, "INBOX");
  EXPECT_EQ(FoldersOf(mailbox)[0].generation, 3);
  for (const char* folder : {"One", "inbox", "one", "InBox", "One"}) {
    mailbox.mutable_import_options()->add_folders(folder);
  }
  std::vector<std::string> names;
  for (const FolderKey& key : FoldersOf(mailbox)) names.push_back(key.folder);
  EXPECT_EQ(names, (std::vector<std::string>{"One", "INBOX", "one"}));
}

TEST(MailboxCatalog, AChangeTellsWhatWasKnownBefore) {
  MailboxCatalog catalog;
  std::vector<bool> before;
  catalog.OnChange([&before](const CatalogChange& change) { before.push_back(change.before != nullptr); });
  config::v1::Mailbox mailbox;
  mailbox.set_name("mailboxes/support");
  catalog.Upsert(mailbox);
  catalog.Upsert(mailbox);
  catalog.Delete("support");
  catalog.Delete("support");
  EXPECT_EQ(before, (std::vector<bool>{false, true, true, false}));
}

}  // namespace
}  // namespace poststelle::fetcher
