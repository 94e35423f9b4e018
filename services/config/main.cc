// poststelle-config: owns the mailbox definitions. This file lists the parts.
#include <iostream>

#include "libs/base/status_macros.h"
#include "libs/observe/log.h"
#include "libs/rpc/client.h"
#include "libs/rpc/options.h"
#include "libs/rpc/server.h"
#include "libs/secrets/vault.h"
#include "libs/sql/monitor.h"
#include "services/config/catalogue_services.h"
#include "services/config/catalogue_store.h"
#include "services/config/credential_service.h"
#include "services/config/fetcher_client.h"
#include "services/config/key_rotation.h"
#include "services/config/keys_command.h"
#include "services/config/mailbox_probe.h"
#include "services/config/mailbox_service.h"
#include "services/config/mailbox_store.h"

namespace poststelle::config {
namespace {

// Mailboxes whose password can't be opened stay as they are; whoever starts with the wrong file is told once, here.
async::Task<absl::Status> WarnOfMissingKeys(sql::Database& database, const secrets::Vault& vault) {
  KeyRotation keys(database, vault);
  PS_CO_ASSIGN_OR_RETURN(const auto use, co_await keys.Usage());
  for (const auto& [id, needed] : use) {
    if (needed.secrets == 0 || vault.HasKey(id)) continue;
    observe::Log(observe::Level::kWarning, "keys.missing",
                 {{"key", id}, {"passwords", needed.secrets}, {"fix", "put its line into the key file"}});
  }
  co_return absl::OkStatus();
}

void LogReload(const absl::Status& loaded, const std::string& first_key) {
  if (loaded.ok()) {
    observe::Log(observe::Level::kInfo, "keys.reloaded", {{"first", first_key}});
  } else {
    observe::Log(observe::Level::kWarning, "keys.reload_failed",
                 {{"error", std::string(loaded.message())}, {"still_first", first_key}});
  }
}

async::Task<absl::Status> Prepare(sql::Database& database, MailboxStore& store, CatalogueStore& statuses,
                                  CatalogueStore& labels, const secrets::Vault& vault, std::string& epoch) {
  const std::vector<sql::Migration> migrations = ConfigMigrations();
  PS_CO_RETURN_IF_ERROR(co_await sql::Migrate(database, migrations));
  PS_CO_ASSIGN_OR_RETURN(epoch, co_await store.Epoch());
  PS_CO_RETURN_IF_ERROR(co_await IndexMailboxes(database));
  PS_CO_RETURN_IF_ERROR(co_await statuses.Seed());
  PS_CO_RETURN_IF_ERROR(co_await labels.Seed());
  co_return co_await WarnOfMissingKeys(database, vault);
}

int Fail(const std::string& option, const absl::Status& status) {
  std::cerr << option << ": " << status.message() << "\n";
  return 1;
}

int Main(int argc, char** argv) {
  std::string database_url = "sqlite:config.db";
  std::string key_file = "config.key";
  std::string fetcher_address;
  std::string sender_address;
  std::string service_token_file = "config.token";
  absl::Duration lookup_timeout = absl::Seconds(2);  // a person waits
  absl::Duration min_interval = absl::Minutes(1);
  int64_t history = 10'000;

  rpc::Options options("config",
                       "Owns the mailbox definitions. `poststelle-config keys --help`: the keys that seal passwords.");
  options.common().listen = "127.0.0.1:7071";
  options.Text("--database", database_url, "Where the mailboxes live: sqlite:PATH or postgresql://USER@HOST/NAME");
  options.Text("--key-file", key_file, "File with the keys that seal passwords; made at the first start");
  options.Text(
      "--fetcher-address", fetcher_address,
      "Address of a fetcher, which asks the network what this service must not: it tries inbound mailboxes and looks "
      "up the mail servers of a domain; without one the former is not possible and the latter are guessed");
  options.Text("--sender-address", sender_address,
               "Address of a sender, which tries outbound mailboxes; without one that is not possible");
  options.Text("--service-token-file", service_token_file,
               "File with the token that this service shows to fetcher and sender: one of the role service");
  options.Duration("--lookup-timeout", lookup_timeout,
                   "How long the fetcher may take to look up a domain's mail servers; after that they are guessed",
                   absl::Milliseconds(1));
  options.Duration("--min-fetch-interval", min_interval, "Shortest fetch interval that is accepted");
  options.Number("--watch-history", history, "Changes that are kept for watchers that come back", 1, 10'000'000);
  if (std::optional<int> exit_code = options.Parse(argc, argv)) return *exit_code;

  rpc::ServiceFrame frame("config", options.common());
  auto vault = secrets::Vault::OpenOrCreate(key_file);
  if (!vault.ok()) return Fail("--key-file", vault.status());
  (*vault)->OnReload(LogReload);
  auto access = rpc::Access::Open(options.common().access);
  if (!access.ok()) return Fail("--identities-file", access.status());
  async::Runtime runtime(2);
  const asio::any_io_executor executor = runtime.executor();
  rpc::Gate gate(executor, **access);
  auto database = sql::Open(executor, database_url);
  if (!database.ok()) return Fail("--database", database.status());

  MailboxStore store(**database, history);
  std::string epoch;  // empty until the database is prepared
  ChangeHub hub(executor, store, epoch);
  store.OnCommit([&hub] { hub.Nudge(); });
  const auto channel = [&service_token_file](const std::string& address) {
    return address.empty() ? nullptr : rpc::MakeChannel(address, service_token_file);
  };
  const std::shared_ptr<grpc::Channel> fetcher = channel(fetcher_address);
  FetcherClient lookup(executor, fetcher, lookup_timeout);
  ProbeClients probe_clients(executor, fetcher, channel(sender_address));
  MailboxProbe probe(store, **vault, min_interval, probe_clients);
  MailboxService mailboxes(gate, store, hub, **vault, epoch, min_interval, frame.draining(), lookup, probe);
  CatalogueStore statuses(**database, TicketStatuses(), store);
  CatalogueStore labels(**database, Labels(), store);
  TicketStatusService status_service(gate, statuses, epoch);
  LabelService label_service(gate, labels, epoch);
  CredentialService credentials(gate, store, **vault);
  frame.Add(mailboxes);
  frame.Add(status_service);
  frame.Add(label_service);
  frame.Add(credentials);

  sql::Monitor monitor(executor, **database, {}, [&frame](bool answers, const absl::Status& error) {
    frame.SetReady("database", answers, error);
  });
  rpc::Work work;
  work.dependency = "database";
  work.prepare = [&] { return Prepare(**database, store, statuses, labels, **vault, epoch); };
  work.start = [&] {
    monitor.Start();
    hub.Start();
  };
  work.stop = {{"change hub", [&] { hub.Stop(); }}, {"database monitor", [&] { monitor.Stop(); }}};
  return frame.Run(gate, work);
}

}  // namespace
}  // namespace poststelle::config

int main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "keys") return poststelle::config::KeysCommand(argc - 1, argv + 1);
  return poststelle::config::Main(argc, argv);
}
