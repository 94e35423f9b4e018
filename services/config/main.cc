// poststelle-config: owns the mailbox definitions. This file lists the parts.
#include <iostream>

#include "libs/rpc/options.h"
#include "libs/rpc/server.h"
#include "libs/secrets/vault.h"
#include "services/config/credential_service.h"
#include "services/config/mailbox_service.h"
#include "services/config/mailbox_store.h"

namespace poststelle::config {
namespace {

async::Task<void> Prepare(sql::Database& database, MailboxStore& store, absl::StatusOr<std::string>& epoch) {
  absl::Status migrated = co_await sql::Migrate(database, ConfigMigrations());
  if (migrated.ok()) {
    epoch = co_await store.Epoch();
  } else {
    epoch = migrated;
  }
}

int Fail(const std::string& option, const absl::Status& status) {
  std::cerr << option << ": " << status.message() << "\n";
  return 1;
}

int Main(int argc, char** argv) {
  std::string database_url = "sqlite:config.db";
  std::string key_file = "config.key";
  std::string token_file = "fetcher.token";
  absl::Duration min_interval = absl::Minutes(1);
  int64_t history = 10'000;

  rpc::Options options("config", "Owns the mailbox definitions.");
  options.common().listen = "127.0.0.1:7071";
  options.Text("--database", database_url, "Where the mailboxes live: sqlite:PATH or postgresql://USER@HOST/NAME");
  options.Text("--key-file", key_file, "File with the keys that seal passwords; made at the first start");
  options.Text("--fetcher-token-file", token_file, "File with the fetcher's token; made at the first start");
  options.Duration("--min-fetch-interval", min_interval, "Shortest fetch interval that is accepted");
  options.Number("--watch-history", history, "Changes that are kept for watchers that come back", 1, 10'000'000);
  if (std::optional<int> exit_code = options.Parse(argc, argv)) return *exit_code;

  rpc::ServiceFrame frame("config", options.common());
  auto vault = secrets::Vault::OpenOrCreate(key_file);
  if (!vault.ok()) return Fail("--key-file", vault.status());
  auto token = secrets::LoadOrCreateToken(token_file);
  if (!token.ok()) return Fail("--fetcher-token-file", token.status());
  async::Runtime runtime(2);
  const asio::any_io_executor executor = runtime.executor();
  auto database = sql::Open(executor, database_url);
  if (!database.ok()) return Fail("--database", database.status());

  MailboxStore store(**database, history);
  absl::StatusOr<std::string> epoch = absl::UnknownError("not prepared");
  async::RunBlocking(executor, Prepare(**database, store, epoch));
  if (!epoch.ok()) return Fail("--database", epoch.status());

  MailboxService mailboxes(executor, store, **vault, *epoch, min_interval, frame.draining());
  CredentialService credentials(executor, store, **vault, *token);
  frame.Add(mailboxes);
  frame.Add(credentials);
  if (absl::Status started = frame.Start(); !started.ok()) return Fail("start", started);
  return frame.RunUntilSignal([] {});
}

}  // namespace
}  // namespace poststelle::config

int main(int argc, char** argv) { return poststelle::config::Main(argc, argv); }
