#include "services/config/keys_command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "libs/base/process.h"
#include "libs/base/status_macros.h"
#include "libs/secrets/key_file.h"
#include "libs/secrets/vault.h"
#include "services/config/key_rotation.h"
#include "services/config/key_state.h"
#include "services/config/mailbox_store.h"

namespace poststelle::config {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;
constexpr int kUnreadable = 3;
constexpr size_t kNamed = 20;

struct Keys {
  std::string key_file;
  sql::Database& database;
  const secrets::Vault& vault;
  KeyRotation rotation;
};

std::string KeyList(const std::vector<std::string>& ids) { return absl::StrJoin(ids, ", "); }

// Keys of the file behind the first that no stored secret needs.
std::vector<std::string> Spare(const std::vector<std::string>& ids, const std::map<std::string, KeyUse>& use) {
  std::vector<std::string> out;
  for (size_t i = 1; i < ids.size(); ++i) {
    auto it = use.find(ids[i]);
    if (it == use.end() || it->second.secrets == 0) out.push_back(ids[i]);
  }
  return out;
}

int SayUnreadable(const std::vector<std::string>& mailboxes) {
  if (mailboxes.empty()) return 0;
  const size_t named = std::min(mailboxes.size(), kNamed);
  std::cerr << mailboxes.size()
            << (mailboxes.size() == 1 ? " secret can't be opened and stays" : " secrets can't be opened and stay")
            << " as it was: "
            << absl::StrJoin(std::vector<std::string>(mailboxes.begin(), mailboxes.begin() + static_cast<long>(named)),
                             ", ")
            << (named < mailboxes.size() ? ", …" : "")
            << ". Put the missing key's line back into the key file, or enter these passwords again.\n";
  return kUnreadable;
}

async::Task<absl::StatusOr<int>> List(Keys& keys) {
  PS_CO_ASSIGN_OR_RETURN(const std::vector<secrets::Key> held, secrets::LoadKeys(keys.key_file));
  PS_CO_ASSIGN_OR_RETURN(auto use, co_await keys.rotation.Usage());
  PS_CO_ASSIGN_OR_RETURN(const std::string unfinished, co_await UnfinishedRotation(keys.database));
  std::cout << "KEY\tPASSWORDS\tREQUESTS\tSTATE\n";
  for (size_t i = 0; i < held.size(); ++i) {
    const KeyUse needed = use[held[i].id];
    use.erase(held[i].id);
    std::string state = i == 0 ? "seals what is new" : needed.secrets == 0 ? "not needed: keys prune" : "opens";
    if (held[i].id == unfinished) absl::StrAppend(&state, "; a rotation to it was not finished: keys rotate");
    std::cout << held[i].id << "\t" << needed.secrets << "\t" << needed.requests << "\t" << state << "\n";
  }
  int code = 0;
  for (const auto& [id, needed] : use) {
    std::cout << (id.empty() ? "(malformed)" : id) << "\t" << needed.secrets << "\t" << needed.requests
              << "\tmissing from " << keys.key_file << "\n";
    if (needed.secrets > 0) code = kUnreadable;
  }
  co_return code;
}

// A rotation that was ended in the middle is gone on with: it made its key already.
async::Task<absl::Status> MakeKey(Keys& keys, secrets::KeyFileEditor& editor) {
  PS_CO_ASSIGN_OR_RETURN(const std::string unfinished, co_await UnfinishedRotation(keys.database));
  if (!unfinished.empty() && unfinished == editor.ids().front()) {
    std::cout << "going on with the rotation to key " << unfinished << ", which was not finished\n";
    co_return absl::OkStatus();
  }
  const std::string id = secrets::KeyFileEditor::NewId(absl::Now());
  PS_CO_RETURN_IF_ERROR(co_await BeginRotation(keys.database, id));
  const absl::Status added = editor.AddFirst(id);
  if (added.ok()) {
    std::cout << "key " << id << " made; it is the first one of " << keys.key_file << " now\n";
    co_return absl::OkStatus();
  }
  PS_CO_RETURN_IF_ERROR(co_await EndRotation(keys.database));
  if (!absl::IsPermissionDenied(added)) co_return added;
  std::cout << "no key is made: " << added.message() << ". Rewriting to the first key that is there\n";
  co_return absl::OkStatus();
}

async::Task<absl::StatusOr<int>> Rotate(Keys& keys, bool keep_key_file) {
  PS_CO_ASSIGN_OR_RETURN(const std::unique_ptr<secrets::KeyFileEditor> editor,
                         secrets::KeyFileEditor::Open(keys.key_file));
  if (!keep_key_file) PS_CO_RETURN_IF_ERROR(co_await MakeKey(keys, *editor));
  std::cout << std::flush;
  PS_CO_ASSIGN_OR_RETURN(const KeyRotation::Resealed done, co_await keys.rotation.ResealAll());
  PS_CO_RETURN_IF_ERROR(co_await EndRotation(keys.database));
  std::cout << done.rewritten << " passwords rewritten to key " << keys.vault.FirstKey() << ", " << done.already
            << " were under it already\n";
  PS_CO_ASSIGN_OR_RETURN(const auto use, co_await keys.rotation.Usage());
  for (size_t i = 1; i < editor->ids().size(); ++i) {
    auto it = use.find(editor->ids()[i]);
    if (it == use.end() || it->second.secrets == 0) continue;
    std::cout << "still needed: " << it->first << ", by " << it->second.secrets << " passwords\n";
  }
  const std::vector<std::string> spare = Spare(editor->ids(), use);
  if (!spare.empty()) {
    std::cout << "not needed any more: " << KeyList(spare) << ". poststelle-config keys prune removes "
              << (spare.size() == 1 ? "it" : "them") << "; keep copies for as long as backups of the database\n";
  }
  co_return SayUnreadable(done.unreadable);
}

async::Task<absl::StatusOr<int>> Prune(Keys& keys) {
  PS_CO_ASSIGN_OR_RETURN(const std::unique_ptr<secrets::KeyFileEditor> editor,
                         secrets::KeyFileEditor::Open(keys.key_file));
  // What a process that had not seen the last rotation's key yet stored since.
  PS_CO_ASSIGN_OR_RETURN(const KeyRotation::Resealed late, co_await keys.rotation.ResealAll());
  if (late.rewritten > 0) {
    std::cout << late.rewritten << " passwords rewritten to key " << keys.vault.FirstKey() << "\n";
  }
  std::vector<std::string> candidates(editor->ids().begin() + 1, editor->ids().end());
  PS_CO_ASSIGN_OR_RETURN(const KeyRotation::Retired retired, co_await keys.rotation.Retire(candidates));
  if (retired.keys.empty()) {
    std::cout << "every key is needed; nothing is removed\n";
    co_return 0;
  }
  // The database first: from here on nothing can be stored under them, also by a process that still knows them.
  const absl::Status removed = editor->Remove(retired.keys);
  if (absl::IsPermissionDenied(removed)) {
    std::cout << "out of use: " << KeyList(retired.keys) << ". " << removed.message()
              << "; take these lines out where the file comes from\n";
  } else if (!removed.ok()) {
    co_return removed;
  } else {
    std::cout << "removed: " << KeyList(retired.keys) << "\n";
  }
  std::cout << retired.forgotten_requests << " creates can't be recognised any more if they are sent again\n";
  co_return 0;
}

enum class Verb { kList, kRotate, kRotateKeepFile, kPrune };

async::Task<absl::StatusOr<int>> Run(Keys& keys, MailboxStore& store, Verb verb) {
  const std::vector<sql::Migration> migrations = ConfigMigrations();
  PS_CO_RETURN_IF_ERROR(co_await sql::Migrate(keys.database, migrations));
  PS_CO_RETURN_IF_ERROR((co_await store.Epoch()).status());
  if (verb == Verb::kList) co_return co_await List(keys);
  if (verb == Verb::kPrune) co_return co_await Prune(keys);
  co_return co_await Rotate(keys, verb == Verb::kRotateKeepFile);
}

async::Task<void> RunInto(Keys& keys, MailboxStore& store, Verb verb, std::optional<absl::StatusOr<int>>& out) {
  out.emplace(co_await Run(keys, store, verb));
}

int Fail(const std::string& option, const absl::Status& status) {
  std::cerr << option << (option.empty() ? "" : ": ") << status.message() << "\n";
  return kFailed;
}

}  // namespace

int KeysCommand(int argc, char** argv) {
  ForbidDumps();
  std::string database_url = "sqlite:config.db";
  std::string key_file = "config.key";
  bool keep_key_file = false;
  CLI::App app(
      "The keys that seal passwords. Config processes may serve meanwhile; they see a changed key file by "
      "themselves. See docs/secrets.md.",
      "poststelle-config keys");
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--database", database_url, "As config's own: sqlite:PATH or postgresql://USER@HOST/NAME")
      ->envname("POSTSTELLE_CONFIG_DATABASE")
      ->capture_default_str();
  app.add_option("--key-file", key_file, "As config's own")
      ->envname("POSTSTELLE_CONFIG_KEY_FILE")
      ->capture_default_str();
  const CLI::App* list = app.add_subcommand("list", "Says what each key is needed for");
  CLI::App* rotate = app.add_subcommand(
      "rotate", "Makes a new key and seals every stored password with it. Ended in the middle, run it again");
  rotate->add_flag("--keep-key-file", keep_key_file,
                   "Makes no key: seals everything with the file's first one. So it is where the file is read-only");
  const CLI::App* prune =
      app.add_subcommand("prune", "Seals what is left with the first key and removes the keys that seal nothing then");
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {
    return app.exit(done);
  } catch (const CLI::ParseError& mistake) {
    app.exit(mistake);
    return kUsage;
  }
  const Verb verb = list->parsed()    ? Verb::kList
                    : prune->parsed() ? Verb::kPrune
                    : keep_key_file   ? Verb::kRotateKeepFile
                                      : Verb::kRotate;
  auto vault = secrets::Vault::Open(key_file);
  if (!vault.ok()) return Fail("--key-file", vault.status());
  async::Runtime runtime(2);
  auto database = sql::Open(runtime.executor(), database_url);
  if (!database.ok()) return Fail("--database", database.status());
  MailboxStore store(**database, 1);
  Keys keys{key_file, **database, **vault, KeyRotation(**database, **vault)};
  std::optional<absl::StatusOr<int>> result;
  async::RunBlocking(runtime.executor(), RunInto(keys, store, verb, result));
  if (!result->ok()) return Fail("", result->status());
  return **result;
}

}  // namespace poststelle::config
