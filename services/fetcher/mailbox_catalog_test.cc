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

}  // namespace
}  // namespace poststelle::fetcher
