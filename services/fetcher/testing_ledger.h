// A ledger in a temporary folder, and short ways to drive it from a test. For tests only.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "libs/async/runtime.h"
#include "libs/base/ids.h"
#include "services/fetcher/committer.h"
#include "services/fetcher/ledger.h"
#include "services/fetcher/publish.h"
#include "services/fetcher/schema.h"

namespace poststelle::fetcher {

template <typename T>
async::Task<void> StoreResult(async::Task<T> task, std::optional<T>& out) {
  out.emplace(co_await std::move(task));
}

class LedgerTest : public ::testing::Test {
 protected:
  LedgerTest() {
    directory_ = std::filesystem::temp_directory_path() / ("poststelle-ledger-" + RandomId());
    std::filesystem::create_directory(directory_);
    auto opened = sql::Open(runtime_.executor(), "sqlite:" + (directory_ / "ledger.db").string());
    if (!opened.ok()) throw std::runtime_error(opened.status().ToString());
    database_ = std::move(*opened);
    const absl::Status migrated = Await(sql::Migrate(*database_, LedgerMigrations()));
    EXPECT_TRUE(migrated.ok()) << migrated;
    auto feed = Await(EnsureFeed(*database_));
    EXPECT_TRUE(feed.ok());
    feed_ = *feed;
    folder_.mailbox.id = "support";
    folder_.mailbox.key = "support@1";
    folder_.folder = "INBOX";
  }
  ~LedgerTest() override {
    database_.reset();
    std::filesystem::remove_all(directory_);
  }

  template <typename T>
  T Await(async::Task<T> task) {
    std::optional<T> out;
    async::RunBlocking(runtime_.executor(), StoreResult(std::move(task), out));
    return std::move(*out);
  }

  absl::Status Write(sql::Work work) { return Await(database_->Write(std::move(work))); }

  // Lists `uid` as pending.
  absl::Status List(uint32_t uid, int64_t internal_date = 1000) {
    std::vector<Decision> decisions(1);
    decisions[0].uid = uid;
    decisions[0].size = 100;
    decisions[0].internal_date = internal_date;
    return Write([&](sql::Transaction& tx) { return InsertDecisions(tx, folder_, 7, decisions); });
  }

  Publication Mail(uint32_t uid, const std::string& from, const std::string& message_id, const std::string& body,
                   int64_t internal_date = 1000) {
    Publication p;
    p.folder = folder_;
    p.uid_validity = 7;
    p.uid = uid;
    p.content.set_name("messages/" + MessageIdOf(folder_, 7, uid));
    p.content.mutable_from()->set_address(from);
    p.content.set_message_id(message_id);
    p.content.set_subject(body);
    p.content.mutable_receive_time()->set_seconds(internal_date);
    p.digest = Sha256(body);
    p.anchor = Sha256("anchor" + message_id + body);
    p.raw = blob::Encode(body);
    return p;
  }

  absl::Status Publish(const Publication& p) {
    return Write([&](sql::Transaction& tx) { return fetcher::Publish(tx, p, feed_); });
  }

  int64_t Count(std::string_view query) {
    int64_t count = -1;
    const absl::Status read = Await(database_->Read([&](sql::Transaction& tx) -> async::Task<absl::Status> {
      absl::StatusOr<sql::Result> rows = co_await tx.Execute(query);
      if (!rows.ok()) co_return rows.status();
      count = rows->rows[0].Int(0);
      co_return absl::OkStatus();
    }));
    EXPECT_TRUE(read.ok()) << read;
    return count;
  }

  std::filesystem::path directory_;
  async::Runtime runtime_{2};
  std::unique_ptr<sql::Database> database_;
  FeedInfo feed_;
  FolderKey folder_;
};

}  // namespace poststelle::fetcher
