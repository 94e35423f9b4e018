#include "services/fetcher/probe_run.h"

#include <algorithm>
#include <functional>
#include <unordered_set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/status_macros.h"
#include "libs/probe/dial.h"
#include "services/fetcher/failure_policy.h"
#include "services/fetcher/imap_options.h"
#include "services/fetcher/list_window.h"
#include "services/fetcher/listing.h"
#include "services/fetcher/listing_windows.h"
#include "services/fetcher/mailbox_catalog.h"

namespace poststelle::fetcher {
namespace {

using config::v1::AfterImport;
using config::v1::FolderPreview;
using probe::Step;

// How long a test waits for its turn at a host whose connections are in use.
constexpr absl::Duration kPatience = absl::Seconds(20);

imap::ConnectOptions OptionsFor(const config::v1::Mailbox& mailbox, absl::Duration command_timeout) {
  const config::v1::PasswordAuthentication& password = mailbox.password_authentication();
  imap::ConnectOptions out = ImapOptions(mailbox.connection());
  out.login = password.login_name().empty() ? mailbox.address() : password.login_name();
  out.password = SecretString(password.password());
  out.timeouts = imap::Timeouts::All(command_timeout);
  return out;
}

std::string Date(int64_t seconds) {
  return absl::FormatTime("%Y-%m-%d", absl::FromUnixSeconds(seconds), absl::UTCTimeZone());
}

// Why a message would be passed over; nullptr: it would be imported.
const char* ReasonToPassOver(const ListingRules& rules, const Listed& mail,
                             const std::unordered_set<uint32_t>& settled) {
  if (settled.contains(mail.uid)) return "ALREADY_IMPORTED";
  switch (Decide(rules, mail).kind) {
    case Decision::Kind::kPassedOver:
      return mail.deleted ? "DELETED" : "TOO_OLD";
    case Decision::Kind::kAsRead:
      return "AS_READ";
    default:
      return nullptr;
  }
}

void Count(const std::string& reason, FolderPreview& out) {
  auto& counts = *out.mutable_passed_over();
  auto it = std::find_if(counts.begin(), counts.end(), [&reason](const auto& c) { return c.reason() == reason; });
  FolderPreview::PassedOver& count = it == counts.end() ? *counts.Add() : *it;
  count.set_reason(reason);
  count.set_messages(count.messages() + 1);
}

// Widens oldest and newest to hold `seconds`.
template <typename Message>
void Include(int64_t seconds, Message& out) {
  if (!out.has_oldest() || seconds < out.oldest().seconds()) out.mutable_oldest()->set_seconds(seconds);
  if (!out.has_newest() || seconds > out.newest().seconds()) out.mutable_newest()->set_seconds(seconds);
}

}  // namespace

bool ProbeRun::Fail(const absl::Status& status, std::string reason) {
  log_.Fail(reason.empty() ? FailureReason(status) : reason, status);
  return false;
}

void ProbeRun::OnStep(imap::ConnectStep step, const net::Stream& stream) {
  if (log_.kind() == Step::KIND_TLS) {
    if (const std::optional<net::TlsPeer> peer = stream.tls_peer()) {
      log_.Detail(absl::StrCat(peer->version, ", certificate of ", peer->subject));
    }
  }
  switch (step) {
    case imap::ConnectStep::kTls:
      return log_.Begin(Step::KIND_TLS);
    case imap::ConnectStep::kGreeting:
      return log_.Begin(Step::KIND_GREETING);
    case imap::ConnectStep::kSignIn:
      return log_.Begin(Step::KIND_SIGN_IN);
  }
}

async::Task<bool> ProbeRun::Connect() {
  const std::string host = mailbox_.connection().host();
  const auto port = static_cast<uint16_t>(mailbox_.connection().port());
  imap::ConnectOptions options = OptionsFor(mailbox_, context_.command_timeout);
  log_.Begin(Step::KIND_NAME_LOOKUP);
  auto permit = co_await context_.limits.Acquire(absl::AsciiStrToLower(host), options.login, kPatience);
  if (!permit.ok()) co_return Fail(permit.status(), "CONNECTIONS_BUSY");
  permit_ = *std::move(permit);
  auto stream = co_await probe::Dial(context_.dialer, host, port, context_.connect_timeout, log_);
  if (!stream.ok()) co_return Fail(stream.status());
  options.on_step = [this](imap::ConnectStep step, const net::Stream& on) { OnStep(step, on); };
  auto client = co_await imap::Client::Connect(*std::move(stream), std::move(options));
  if (!client.ok()) {
    const bool no_tls = imap::GetErrorKind(client.status()) == imap::ErrorKind::kNoStartTls;
    if (no_tls && log_.kind() != Step::KIND_TLS) log_.Begin(Step::KIND_TLS);
    co_return Fail(client.status());
  }
  client_ = *std::move(client);
  co_return true;
}

async::Task<bool> ProbeRun::Open(std::string folder, std::string missing_reason, imap::FolderState& state) {
  log_.Begin(Step::KIND_FOLDER);
  log_.Say("folder", folder);
  absl::StatusOr<imap::FolderState> opened = co_await client_->Examine(folder);
  if (!opened.ok()) {
    const bool missing = imap::GetErrorKind(opened.status()) == imap::ErrorKind::kFolderMissing;
    co_return Fail(opened.status(), missing ? missing_reason : "");
  }
  state = *opened;
  if (state.uid_validity == 0) {
    co_return Fail(absl::FailedPreconditionError("the server told no UIDVALIDITY"), "PROTOCOL_ERROR");
  }
  log_.Detail(absl::StrCat(folder, ": ", state.exists, " messages"));
  co_return true;
}

async::Task<bool> ProbeRun::TryFolders() {
  imap::FolderState state;
  const AfterImport& after = mailbox_.import_options().after_import();
  if (after.action() == AfterImport::ACTION_MOVE) {
    const bool target = co_await Open(after.target_folder(), "TARGET_FOLDER_MISSING", state);
    if (!target) co_return false;
  }
  const std::vector<FolderKey> folders = FoldersOf(mailbox_);
  for (const FolderKey& key : folders) {
    const bool opened = co_await Open(key.folder, "FOLDER_MISSING", state);
    if (!opened) co_return false;
    messages_ += state.exists;
  }
  co_return true;
}

// Asks for what a poll asks for, of the last message alone.
async::Task<void> ProbeRun::Query(std::string folder) {
  log_.Begin(Step::KIND_QUERY);
  absl::StatusOr<imap::FolderState> state = co_await client_->Examine(folder);
  if (!state.ok()) {
    Fail(state.status());
    co_return;
  }
  int64_t newest = 0;
  std::function<absl::Status(imap::MessageInfo)> on_message = [&newest](imap::MessageInfo info) {
    newest = std::max(newest, info.internal_date_unix);
    return absl::OkStatus();
  };
  if (state->exists > 0) {
    imap::UidRange last;
    last.from = state->uid_next > 1 ? state->uid_next - 1 : imap::kMaxUid - 1;
    absl::Status listed = co_await client_->FetchInfos(last, false, on_message);
    if (!listed.ok()) {
      Fail(listed);
      co_return;
    }
  }
  log_.Detail(absl::StrCat(messages_, " messages"));
  if (newest != 0) log_.Detail(absl::StrCat("the last one of ", Date(newest)));
  const AfterImport::Action action = mailbox_.import_options().after_import().action();
  const bool removes = action == AfterImport::ACTION_MOVE || action == AfterImport::ACTION_DELETE;
  const bool moves = action == AfterImport::ACTION_MOVE && client_->capabilities().contains("MOVE");
  if (removes && !moves && !client_->capabilities().contains("UIDPLUS")) {
    log_.Warn("UIDPLUS_MISSING");
  } else {
    log_.End();
  }
}

async::Task<void> ProbeRun::Test() {
  const bool connected = co_await Connect();
  if (!connected) co_return;
  const bool folders = co_await TryFolders();
  if (!folders) co_return;
  const std::string first = FoldersOf(mailbox_).front().folder;
  co_await Query(first);
  (co_await client_->Logout()).IgnoreError();  // everything was read; nothing is lost with the farewell
}

async::Task<absl::Status> ProbeRun::PreviewFolder(FolderKey key, FolderPreview& out) {
  imap::FolderState state;
  const bool opened = co_await Open(key.folder, "FOLDER_MISSING", state);
  if (!opened) co_return absl::FailedPreconditionError("a step failed");
  Cursor cursor;
  sql::Work read_cursor = [&key, &cursor](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(std::optional<Cursor> found, co_await ReadCursor(tx, key));
    cursor = found.value_or(Cursor{});
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await context_.database.Read(read_cursor));
  const ListingRules rules = RulesFor(mailbox_, cursor, absl::Now());
  out.set_folder(key.folder);
  out.set_messages(state.exists);
  if (state.exists == 0) co_return absl::OkStatus();
  // Window by window, so that a huge folder needs no more memory than a small one.
  ListingWindows windows(0, state.uid_next, state.exists);
  while (std::optional<imap::UidRange> range = windows.Next()) {
    absl::StatusOr<std::vector<ListedMessage>> items = co_await ListWindow(*client_, *range, nullptr, windows);
    if (!items.ok()) {
      Fail(items.status());
      co_return items.status();
    }
    if (items->empty()) continue;
    std::vector<uint32_t> uids;
    const uint32_t first = items->front().mail.uid;
    const uint32_t last = items->back().mail.uid;
    sql::Work read_settled = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
      PS_CO_ASSIGN_OR_RETURN(uids, co_await ReadSettled(tx, key, state.uid_validity, first, last));
      co_return absl::OkStatus();
    };
    PS_CO_RETURN_IF_ERROR(co_await context_.database.Read(read_settled));
    const std::unordered_set<uint32_t> settled(uids.begin(), uids.end());
    for (const ListedMessage& item : *items) {
      if (const char* reason = ReasonToPassOver(rules, item.mail, settled)) {
        Count(reason, out);
        continue;
      }
      out.set_would_import(out.would_import() + 1);
      out.set_bytes(out.bytes() + static_cast<int64_t>(item.mail.size));
      Include(item.mail.internal_date, out);
    }
  }
  log_.End();
  co_return absl::OkStatus();
}

async::Task<absl::StatusOr<config::v1::PreviewMailboxResponse>> ProbeRun::Preview() {
  config::v1::PreviewMailboxResponse out;
  const bool connected = co_await Connect();
  if (!connected) co_return absl::FailedPreconditionError("a step failed");
  const std::vector<FolderKey> folders = FoldersOf(mailbox_);
  for (const FolderKey& key : folders) {
    FolderPreview& preview = *out.add_folders();
    PS_CO_RETURN_IF_ERROR(co_await PreviewFolder(key, preview));
    out.set_would_import(out.would_import() + preview.would_import());
    if (preview.has_oldest()) Include(preview.oldest().seconds(), out);
    if (preview.has_newest()) Include(preview.newest().seconds(), out);
  }
  (co_await client_->Logout()).IgnoreError();  // everything was read; nothing is lost with the farewell
  co_return out;
}

}  // namespace poststelle::fetcher
