// The driver: an IMAP session on a stream, for coroutines. Nothing on the server changes but by what is called for it:
// Select() and the commands that need it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "libs/async/runtime.h"
#include "libs/imap/error.h"
#include "libs/imap/known_servers.h"
#include "libs/imap/session.h"
#include "libs/net/stream.h"

namespace poststelle::imap {

inline constexpr uint32_t kMaxUid = 0xFFFFFFFF;

// How long the server may take. `command` is the longest silence while an answer is awaited; whatever it sends, a
// command also ends after kMaxCommandTime (a server that trickles bytes holds no session for ever).
struct Timeouts {
  absl::Duration tls = absl::Seconds(30);
  absl::Duration command = absl::Seconds(60);
  static Timeouts All(absl::Duration each) { return {each, each}; }
};

// What a connection comes through, in this order; with STARTTLS the greeting is before TLS.
enum class ConnectStep { kTls, kGreeting, kSignIn };

struct ConnectOptions {
  Encryption encryption = Encryption::kTls;
  net::TlsOptions tls;
  std::string login;
  SecretString password;
  struct {
    uint64_t max_body_bytes = 64 << 20;
  } limits;
  Timeouts timeouts;
  // The folders that ExamineAll() will be called for first: they are then opened in one packet with the sign-in.
  std::vector<std::string> folders;
  // Where to remember what the server can do; null: nowhere. It outlives the call.
  KnownServers* known_servers = nullptr;
  std::string server;  // its name there
  // Told each step as it begins, and the stream while it lives: for a dialog that shows how far it came. May be empty.
  // Called by the coroutine that connects.
  std::function<void(ConnectStep, const net::Stream&)> on_step;
};

struct FolderState {
  uint32_t uid_validity = 0;  // 0: not told
  uint32_t uid_next = 0;      // 0: not told
  uint32_t exists = 0;
  uint64_t highest_modseq = 0;  // 0: none
};

// A folder that was opened for changes, and what the server can do there.
struct WritableFolder {
  FolderState state;
  bool read_only = false;    // it lets nobody change anything
  bool move = false;         // MOVE (RFC 6851)
  bool uid_expunge = false;  // UID EXPUNGE (RFC 4315)
};

struct UidRange {
  uint32_t from = 1;
  uint32_t to = kMaxUid;  // kMaxUid: "*"
};

struct MessageInfo {
  uint32_t uid = 0;
  uint64_t size = 0;
  int64_t internal_date_unix = 0;
  bool seen = false;
  bool deleted = false;
  std::string header_fields;  // Message-ID, Date and From as they stand, if asked for
  // What of size and receive time the response did not hold, or empty. Perhaps the server has not told it yet, or told
  // it before: it may also send a response that nobody asked for, because a flag changed.
  std::string_view lacks;
};

// Receives bodies. A status that is not OK ends the session.
class BodySink {
 public:
  virtual ~BodySink() = default;
  virtual absl::Status Begin(uint32_t uid, uint64_t size) = 0;
  virtual absl::Status Append(std::string_view bytes) = 0;
  virtual absl::Status End(uint32_t uid) = 0;
};

struct FetchBodiesResult {
  std::vector<uint32_t> missing;  // asked for and not delivered
  std::string refusal;            // the server's words, if it refused
  bool passing = false;           // … for a reason that passes
};

// Used by one coroutine. Errors carry their kind (error.h, net/stream.h); after one the client is dead, except where a
// method says otherwise.
class Client {
 public:
  // Signs in on `stream`: TLS first or STARTTLS as the options say.
  static async::Task<absl::StatusOr<std::unique_ptr<Client>>> Connect(std::unique_ptr<net::Stream> stream,
                                                                      ConnectOptions options);
  // What the server said it can do, upper case; after the sign-in, if it told it then.
  const std::set<std::string>& capabilities() const { return session_.capabilities(); }
  // Opens a folder read-only (EXAMINE). kFolderMissing if there is none, kServerRefused if it may be opened later;
  // after both the client goes on, with no folder open.
  async::Task<absl::StatusOr<FolderState>> Examine(std::string folder);
  // The same for several, all written before the first answer is read. The last of those that can be opened stays open
  // only if it is the last of all.
  async::Task<absl::StatusOr<std::vector<absl::StatusOr<FolderState>>>> ExamineAll(std::vector<std::string> folders);
  // Flags, size, receive time of every message in the range, in the server's order; what it sends unasked comes as
  // well.
  async::Task<absl::Status> FetchInfos(UidRange range, bool with_header_fields,
                                       std::function<absl::Status(MessageInfo)> on_message);
  // Downloads messages with BODY.PEEK[]; all commands are written before the first answer is read. An empty body is
  // delivered as one of 0 bytes: whether it can be one, the caller knows, who knows the listed size.
  async::Task<absl::StatusOr<FetchBodiesResult>> FetchBodies(std::vector<uint32_t> uids, BodySink& sink);
  // The first `max_bytes` of the headers. NotFound if the server delivers none, mostly because the message is gone.
  // After kServerRefused or NotFound the client goes on.
  async::Task<absl::StatusOr<std::string>> FetchHeader(uint32_t uid, uint32_t max_bytes);
  // Which of `uids` are unread; which are there at all.
  async::Task<absl::StatusOr<std::vector<uint32_t>>> SearchUnseen(std::vector<uint32_t> uids);
  async::Task<absl::StatusOr<std::vector<uint32_t>>> SearchUids(std::vector<uint32_t> uids);
  // Messages with this Message-ID (without angle brackets), at most 100.
  async::Task<absl::StatusOr<std::vector<uint32_t>>> SearchMessageId(std::string message_id);
  // Opens a folder for changes (SELECT); errors as Examine().
  async::Task<absl::StatusOr<WritableFolder>> Select(std::string folder);
  // What follows changes messages of the folder that Select() opened. UIDs that are not there any more are passed over
  // by the server. kServerRefused with its words (kFolderMissing where it says that the target folder does not exist);
  // the client goes on then, and what was done of `uids` is unknown.
  // Adds a flag, for example "\\Seen".
  async::Task<absl::Status> AddFlag(std::vector<uint32_t> uids, std::string flag);
  // MOVE; only where WritableFolder::move.
  async::Task<absl::Status> Move(std::vector<uint32_t> uids, std::string target_folder);
  async::Task<absl::Status> Copy(std::vector<uint32_t> uids, std::string target_folder);
  // Removes those of `uids` that are marked \Deleted, and nothing else; only where WritableFolder::uid_expunge. There
  // is no plain EXPUNGE here: it would remove what others marked.
  async::Task<absl::Status> UidExpunge(std::vector<uint32_t> uids);
  // Says goodbye without waiting for the answer. Only where nothing is under way any more.
  async::Task<absl::Status> Leave();
  // Says goodbye and waits for the answer, so that nothing that is under way is cut.
  async::Task<absl::Status> Logout();

 private:
  Client(std::unique_ptr<net::Stream> stream, const ConnectOptions& options);
  async::Task<absl::Status> Handshake(const ConnectOptions& options);
  void Tell(const ConnectOptions& options, ConnectStep step);
  void RememberServer(const ConnectOptions& options, const absl::Status& connected);
  void CollectFolders();
  async::Task<absl::StatusOr<FolderState>> AwaitOpened(std::string tag, std::string folder);
  async::Task<absl::Status> Change(std::vector<uint32_t> uids, std::string before, std::string behind,
                                   std::string what);
  async::Task<absl::Status> Flush();
  async::Task<absl::Status> ReadOnce(std::string_view what);
  // Waits for the answer to a command; `what` names it for a person.
  async::Task<absl::StatusOr<Response>> Await(std::string tag, std::string what);
  async::Task<absl::StatusOr<std::vector<uint32_t>>> Search(std::vector<std::string> commands);

  std::unique_ptr<net::Stream> stream_;
  const Timeouts timeouts_;
  Session session_;
  std::optional<ConnectStep> told_;
  // The folders that were opened with the sign-in and that nobody has asked for yet, and the commands' tags.
  std::vector<std::string> examined_early_;
  std::vector<std::string> early_tags_;
  // What was told of the folder whose opening is not answered yet, and of those whose is, by tag.
  FolderState folder_;
  std::map<std::string, FolderState> opened_;
  std::vector<char> buffer_;
};

}  // namespace poststelle::imap
