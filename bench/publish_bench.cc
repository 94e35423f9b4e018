// How fast the ledger publishes, beside bare INSERTs of the same rows in transactions of the same size.
//
// publish_bench --engine sqlite|postgres [--mails N] [--mailboxes N] [--window N] [--repeat N] [--only ours|bare]
//
// Ours: Committer and PublishAll, one window of each mailbox submitted at a time; the rows are listed as pending
// before. Bare: the rows that ours leaves behind, without lookups, fences and heads, built before the clock runs. Both
// on fresh databases with the ledger's schema and its indexes; on PostgreSQL with fsync. Prints one JSON line a
// repetition; fails if the tables of both don't hold the same numbers of rows.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "libs/testing/temp_postgres.h"
#include "services/fetcher/committer.h"
#include "services/fetcher/event_effects.h"
#include "services/fetcher/ledger.h"
#include "services/fetcher/publish.h"
#include "services/fetcher/reply_matcher.h"
#include "services/fetcher/schema.h"

namespace poststelle::fetcher {
namespace {

struct Options {
  sql::Engine engine = sql::Engine::kSqlite;
  size_t mails = 8000;
  size_t mailboxes = 8;
  size_t window = 16;  // mails that a mailbox submits at once
  int repeat = 3;
  bool ours = true;
  bool bare = true;
};

constexpr uint32_t kUidValidity = 7;
constexpr size_t kBodyBytes = 4096;

[[noreturn]] void Die(std::string_view what) {
  std::fprintf(stderr, "publish_bench: %.*s\n", static_cast<int>(what.size()), what.data());
  std::exit(1);
}

void Check(const absl::Status& status) {
  if (!status.ok()) Die(status.ToString());
}

async::Task<void> StoreStatus(async::Task<absl::Status> task, absl::Status& out) { out = co_await std::move(task); }

void Run(async::Runtime& runtime, async::Task<absl::Status> task) {
  absl::Status status;
  async::RunBlocking(runtime.executor(), StoreStatus(std::move(task), status));
  Check(status);
}

double CpuSeconds() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  return static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
         static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

// What one contender did.
struct Figures {
  double seconds = 0;
  double cpu = 0;  // of this process: on SQLite all there is
  size_t commits = 0;
  std::vector<double> latencies_ms;  // of each call that returned when its mails were durable

  double Percentile(double part) {
    if (latencies_ms.empty()) return 0;
    std::sort(latencies_ms.begin(), latencies_ms.end());
    return latencies_ms[std::min(latencies_ms.size() - 1,
                                 static_cast<size_t>(part * static_cast<double>(latencies_ms.size())))];
  }
};

class Stopwatch {
 public:
  explicit Stopwatch(Figures& figures) : figures_(figures) {}
  ~Stopwatch() {
    figures_.seconds = absl::ToDoubleSeconds(absl::Now() - begin_);
    figures_.cpu = CpuSeconds() - cpu_;
  }

 private:
  Figures& figures_;
  const absl::Time begin_ = absl::Now();
  const double cpu_ = CpuSeconds();
};

// Words of a mail; compresses about as text does.
std::string Text(std::mt19937& random, size_t bytes) {
  constexpr std::string_view kSyllables[] = {"an",  "be",  "con", "da",  "er",  "fi", "gen", "hal", "in", "ka",  "lo",
                                             "men", "nor", "ob",  "pre", "qui", "ra", "sa",  "te",  "un", "ver", "zu"};
  std::string out;
  while (out.size() < bytes) {
    for (size_t i = 0; i <= random() % 3; ++i) out += kSyllables[random() % std::size(kSyllables)];
    out += random() % 12 == 0 ? "\r\n" : " ";
  }
  out.resize(bytes);
  return out;
}

// All mails of all mailboxes. Every fourth answers one that was published two windows before.
class Corpus {
 public:
  explicit Corpus(const Options& o) : each_(o.mails / o.mailboxes) {
    std::mt19937 random(1);
    for (size_t box = 0; box < o.mailboxes; ++box) {
      FolderKey folder;
      folder.mailbox.id = absl::StrCat("mailbox-", box);
      folder.mailbox.key = absl::StrCat(folder.mailbox.id, "@1700000000");
      folder.folder = "INBOX";
      folders_.push_back(folder);
      for (size_t i = 0; i < each_; ++i) mails_.push_back(Mail(random, folder, i, o.window));
    }
  }

  size_t each() const { return each_; }
  const std::vector<FolderKey>& folders() const { return folders_; }
  const std::vector<Publication>& mails() const { return mails_; }
  const Publication& mail(size_t box, size_t i) const { return mails_[box * each_ + i]; }
  // The ticket's first mail, which may be the mail itself.
  static size_t OpenerOf(size_t i, size_t window) { return i % 4 == 3 && i >= 2 * window + 3 ? i - 2 * window - 3 : i; }

 private:
  static std::string InternetId(const FolderKey& folder, size_t i) {
    return absl::StrCat("<", Hex(Sha256(absl::StrCat(folder.mailbox.id, i))).substr(0, 24), "@mail.example.org>");
  }

  // A status, a label and a mailbox that answers, as most helpdesks have them.
  static config::v1::ImportOptions ImportOptions() {
    config::v1::ImportOptions options;
    options.set_new_ticket_status("ticketStatuses/new");
    options.set_reply_ticket_status("ticketStatuses/open");
    options.add_ticket_labels("labels/customer");
    options.set_reply_via("mailboxes/answers");
    return options;
  }

  static Publication Mail(std::mt19937& random, const FolderKey& folder, size_t i, size_t window) {
    const size_t opener = OpenerOf(i, window);
    Publication p;
    p.folder = folder;
    p.uid_validity = kUidValidity;
    p.uid = static_cast<uint32_t>(i + 1);
    v1::Message& m = p.content;
    m.set_name(absl::StrCat("messages/", MessageIdOf(folder, kUidValidity, p.uid)));
    m.set_mailbox(absl::StrCat("mailboxes/", folder.mailbox.id));
    m.mutable_from()->set_display_name("Erika Mustermann");
    m.mutable_from()->set_address(absl::StrCat("customer-", opener, "@example.org"));
    m.add_to()->set_address(absl::StrCat(folder.mailbox.id, "@example.com"));
    m.set_subject(absl::StrCat("Order ", opener, " has not arrived"));
    m.mutable_date()->set_seconds(1'700'000'000 + static_cast<int64_t>(i));
    m.mutable_receive_time()->set_seconds(1'700'000'002 + static_cast<int64_t>(i));
    m.set_message_id(InternetId(folder, i));
    if (opener != i) {
      m.add_in_reply_to(InternetId(folder, opener));
      m.add_references(InternetId(folder, opener));
    }
    m.set_text(Text(random, kBodyBytes));
    const std::string head =
        absl::StrCat("From: Erika Mustermann <", m.from().address(), ">\r\nTo: ", m.to(0).address(),
                     "\r\nSubject: ", m.subject(), "\r\nMessage-ID: ", m.message_id(), "\r\n\r\n");
    const std::string raw = head + m.text();
    m.set_size(static_cast<int64_t>(raw.size()));
    p.effects = EffectsOf(ImportOptions(), m);
    p.raw = blob::Encode(raw);
    p.digest = Sha256(raw + "digest");
    p.anchor = Sha256(head);
    return p;
  }

  const size_t each_;
  std::vector<FolderKey> folders_;
  std::vector<Publication> mails_;
};

// A fresh database with the ledger's schema.
class Ledger {
 public:
  Ledger(async::Runtime& runtime, const Options& o, testing::TempPostgres* postgres) : runtime_(runtime) {
    std::string url;
    if (postgres != nullptr) {
      url = postgres->NewDatabase();
    } else {
      folder_ = std::filesystem::temp_directory_path() / ("poststelle-bench-" + RandomId());
      std::filesystem::create_directory(folder_);
      url = absl::StrCat("sqlite:", (folder_ / "ledger.db").string());
    }
    auto opened = sql::Open(runtime.executor(), url);
    Check(opened.status());
    database_ = std::move(*opened);
    Run(runtime_, sql::Migrate(*database_, LedgerMigrations()));
    Run(runtime_, ReadFeed());
    (void)o;
  }
  ~Ledger() {
    database_.reset();
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  sql::Database& database() { return *database_; }
  const FeedInfo& feed() const { return feed_; }

  std::map<std::string, int64_t> Counts() {
    std::map<std::string, int64_t> out;
    Run(runtime_, CountInto(out));
    return out;
  }

 private:
  async::Task<absl::Status> ReadFeed() {
    PS_CO_ASSIGN_OR_RETURN(feed_, co_await EnsureFeed(*database_));
    co_return absl::OkStatus();
  }
  async::Task<absl::Status> CountInto(std::map<std::string, int64_t>& out) {
    sql::Work work = [&out](sql::Transaction& tx) -> async::Task<absl::Status> {
      constexpr std::pair<const char*, std::string_view> kQueries[] = {
          {"message", "SELECT COUNT(*) FROM message WHERE state = 'published'"},
          {"message_content", "SELECT COUNT(*) FROM message_content"},
          {"raw_message", "SELECT COUNT(*) FROM raw_message"},
          {"raw_chunk", "SELECT COUNT(*) FROM raw_chunk"},
          {"ticket", "SELECT COUNT(*) FROM ticket"},
          {"ticket_message", "SELECT COUNT(*) FROM ticket_message"},
          {"ticket_participant", "SELECT COUNT(*) FROM ticket_participant"},
          {"thread_reference", "SELECT COUNT(*) FROM thread_reference"},
          {"event", "SELECT COUNT(*) FROM event"}};
      for (const auto& [table, query] : kQueries) {
        PS_CO_ASSIGN_OR_RETURN(sql::Result rows, co_await tx.Execute(query));
        out[table] = rows.rows[0].Int(0);
      }
      co_return absl::OkStatus();
    };
    co_return co_await database_->Read(work);
  }

  async::Runtime& runtime_;
  std::filesystem::path folder_;
  std::unique_ptr<sql::Database> database_;
  FeedInfo feed_;
};

// --- ours ----------------------------------------------------------------------------------------------------------

async::Task<absl::Status> ListAll(sql::Database& database, const Corpus& corpus) {
  for (const FolderKey& folder : corpus.folders()) {
    std::vector<Decision> decisions(corpus.each());
    for (size_t i = 0; i < decisions.size(); ++i) {
      decisions[i].uid = static_cast<uint32_t>(i + 1);
      decisions[i].size = kBodyBytes;
      decisions[i].internal_date = 1'700'000'002 + static_cast<int64_t>(i);
    }
    sql::Work work = [&](sql::Transaction& tx) { return InsertDecisions(tx, folder, kUidValidity, decisions); };
    PS_CO_RETURN_IF_ERROR(co_await database.Write(work));
  }
  co_return absl::OkStatus();
}

struct Submitter {
  Hold hold;
  std::vector<double> latencies_ms;
  absl::Status status;
};

async::Task<void> Submit(Committer& committer, const Corpus& corpus, size_t box, size_t window, Submitter& self) {
  self.hold.folder = corpus.folders()[box];
  for (size_t at = 0; at < corpus.each() && self.status.ok(); at += window) {
    std::vector<Unit> units(std::min(window, corpus.each() - at));
    for (size_t i = 0; i < units.size(); ++i) {
      units[i].hold = &self.hold;
      units[i].publication = &corpus.mail(box, at + i);
    }
    const absl::Time begin = absl::Now();
    self.status = co_await committer.Commit(units);
    self.latencies_ms.push_back(absl::ToDoubleMilliseconds(absl::Now() - begin));
  }
}

Figures Ours(async::Runtime& runtime, Ledger& ledger, const Corpus& corpus, const Options& o) {
  Run(runtime, ListAll(ledger.database(), corpus));
  std::atomic<size_t> commits{0};
  Committer committer(runtime.executor(), ledger.database(), ledger.feed(), "bench", [&commits] { ++commits; });
  std::vector<Submitter> submitters(o.mailboxes);
  Figures out;
  {
    const Stopwatch running(out);
    async::TaskScope scope(runtime.executor());
    for (size_t box = 0; box < o.mailboxes; ++box) {
      scope.Spawn(Submit(committer, corpus, box, o.window, submitters[box]));
    }
    scope.JoinBlocking();
  }
  committer.Stop();
  for (const Submitter& s : submitters) {
    Check(s.status);
    out.latencies_ms.insert(out.latencies_ms.end(), s.latencies_ms.begin(), s.latencies_ms.end());
  }
  out.commits = commits;
  return out;
}

// --- bare ----------------------------------------------------------------------------------------------------------

// The rows that a publication leaves, as plain INSERTs.
class Rows {
 public:
  Rows(const Options& o, const FeedInfo& feed) : window_(o.window), feed_(feed) {}

  void Append(const Publication& p, std::vector<sql::Statement>& out) {
    const std::string message_id = MessageIdOf(p.folder, p.uid_validity, p.uid);
    const auto opener = static_cast<uint32_t>(Corpus::OpenerOf(p.uid - 1, window_) + 1);
    const std::string ticket_id = DerivedId("ticket", MessageIdOf(p.folder, p.uid_validity, opener));
    const int64_t now = NowMs();
    const int64_t partition = PartitionOf(ticket_id, feed_.partitions);
    const bool opens = opener == p.uid;
    out.push_back(
        {"INSERT INTO raw_message (sha256, size, codec, chunks) VALUES ($1, $2, $3, $4)",
         {sql::Blob{p.raw->sha256}, p.raw->size, int64_t{p.raw->codec}, static_cast<int64_t>(p.raw->chunks.size())}});
    for (size_t i = 0; i < p.raw->chunks.size(); ++i) {
      out.push_back({"INSERT INTO raw_chunk (sha256, idx, bytes) VALUES ($1, $2, $3)",
                     {sql::Blob{p.raw->sha256}, static_cast<int64_t>(i), sql::Blob{p.raw->chunks[i]}}});
    }
    out.push_back({"INSERT INTO message_content (message_id, content) VALUES ($1, $2)",
                   {message_id, sql::Blob{p.content.SerializeAsString()}}});
    out.push_back(
        {"INSERT INTO message (mailbox_key, generation, folder, uid_validity, uid, message_id, mailbox_id, state, "
         "reason, historical, size, internal_date, attempts, attempt_holder, list_time, decide_time, anchor, digest, "
         "internet_message_id, raw_sha256, ticket_id, undecodable) VALUES ($1, $2, $3, $4, $5, $6, $7, 'published', "
         "'', 0, $8, $9, 0, '', $10, $11, $12, $13, $14, $15, $16, 0)",
         {p.folder.mailbox.key, p.folder.generation, p.folder.folder, int64_t{p.uid_validity}, int64_t{p.uid},
          message_id, p.folder.mailbox.id, static_cast<int64_t>(p.raw->size), p.content.receive_time().seconds(), now,
          now, sql::Blob{p.anchor}, sql::Blob{p.digest}, p.content.message_id(), sql::Blob{p.raw->sha256}, ticket_id}});
    if (opens) {
      out.push_back(
          {"INSERT INTO ticket (ticket_id, mailbox_id, subject, feed_partition, create_time, update_time, "
           "message_count) VALUES ($1, $2, $3, $4, $5, $6, 1)",
           {ticket_id, p.folder.mailbox.id, p.content.subject(), partition, now, now}});
      for (const std::string& address : ParticipantsOf(p.content)) {
        out.push_back({"INSERT INTO ticket_participant (ticket_id, address) VALUES ($1, $2)", {ticket_id, address}});
      }
    }
    out.push_back({"INSERT INTO ticket_message (ticket_id, ordinal, message_id) VALUES ($1, $2, $3)",
                   {ticket_id, int64_t{opens ? 1 : 2}, message_id}});
    out.push_back({"INSERT INTO thread_reference (mailbox_key, internet_message_id, ticket_id) VALUES ($1, $2, $3)",
                   {p.folder.mailbox.key, p.content.message_id(), ticket_id}});
    out.push_back(
        {"INSERT INTO event (feed_partition, feed_offset, event_id, ticket_id, type, message_id, create_time, effects) "
         "VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
         {partition, ++offsets_[partition], DerivedId("event", message_id), ticket_id, int64_t{opens ? 1 : 2},
          message_id, now, sql::Blob{opens ? p.effects.if_opened : p.effects.if_reply}}});
  }

 private:
  const size_t window_;
  const FeedInfo& feed_;
  std::map<int64_t, int64_t> offsets_;
};

async::Task<absl::Status> InsertAll(sql::Database& database, std::vector<std::vector<sql::Statement>>& batches,
                                    std::vector<double>& latencies_ms) {
  for (std::vector<sql::Statement>& batch : batches) {
    const absl::Time begin = absl::Now();
    sql::Work work = [&batch](sql::Transaction& tx) -> async::Task<absl::Status> {
      co_return (co_await tx.ExecuteAll(std::move(batch))).status();
    };
    PS_CO_RETURN_IF_ERROR(co_await database.Write(work));
    latencies_ms.push_back(absl::ToDoubleMilliseconds(absl::Now() - begin));
  }
  co_return absl::OkStatus();
}

Figures Bare(async::Runtime& runtime, Ledger& ledger, const Corpus& corpus, const Options& o, size_t batch_size) {
  // In the order in which the windows of the mailboxes come.
  Rows rows(o, ledger.feed());
  std::vector<std::vector<sql::Statement>> batches;
  size_t in_batch = batch_size;
  for (size_t at = 0; at < corpus.each(); at += o.window) {
    for (size_t box = 0; box < o.mailboxes; ++box) {
      for (size_t i = at; i < std::min(at + o.window, corpus.each()); ++i) {
        if (in_batch >= batch_size) {
          batches.emplace_back();
          in_batch = 0;
        }
        rows.Append(corpus.mail(box, i), batches.back());
        ++in_batch;
      }
    }
  }
  Figures out;
  {
    const Stopwatch running(out);
    Run(runtime, InsertAll(ledger.database(), batches, out.latencies_ms));
  }
  out.commits = batches.size();
  return out;
}

// -------------------------------------------------------------------------------------------------------------------

std::string Json(Figures& f, size_t mails) {
  char text[512];
  std::snprintf(
      text, sizeof text,
      R"({"seconds": %.4f, "mails_per_s": %.1f, "cpu_us": %.1f, "commits": %zu, "p50_ms": %.2f, "p99_ms": %.2f})",
      f.seconds, static_cast<double>(mails) / f.seconds, f.cpu / static_cast<double>(mails) * 1e6, f.commits,
      f.Percentile(0.5), f.Percentile(0.99));
  return text;
}

Options Parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const std::string_view value = argv[i + 1];
    if (name == "--engine") {
      o.engine = value == "postgres" ? sql::Engine::kPostgres : sql::Engine::kSqlite;
    } else if (name == "--mails") {
      o.mails = static_cast<size_t>(std::atol(argv[i + 1]));
    } else if (name == "--mailboxes") {
      o.mailboxes = static_cast<size_t>(std::atol(argv[i + 1]));
    } else if (name == "--window") {
      o.window = static_cast<size_t>(std::atol(argv[i + 1]));
    } else if (name == "--repeat") {
      o.repeat = std::atoi(argv[i + 1]);
    } else if (name == "--only") {
      o.ours = value == "ours";
      o.bare = value == "bare";
    } else {
      Die(absl::StrCat("unknown option ", argv[i]));
    }
  }
  if (o.mailboxes == 0 || o.window == 0 || o.window % 4 != 0 || o.mails < o.mailboxes) {
    Die("--window is a multiple of four, and every mailbox has a mail");
  }
  return o;
}

int Main(int argc, char** argv) {
  const Options o = Parse(argc, argv);
  std::unique_ptr<testing::TempPostgres> postgres;
  if (o.engine == sql::Engine::kPostgres) {
    postgres = std::make_unique<testing::TempPostgres>(testing::TempPostgres::Durability::kOn);
  }
  async::Runtime runtime(2);
  const Corpus corpus(o);
  const size_t mails = corpus.mails().size();
  for (int turn = 0; turn < o.repeat; ++turn) {
    std::map<std::string, int64_t> counts;
    Figures ours, bare;
    if (o.ours) {
      Ledger ledger(runtime, o, postgres.get());
      ours = Ours(runtime, ledger, corpus, o);
      counts = ledger.Counts();
    }
    const size_t batch = o.ours ? (mails + ours.commits - 1) / ours.commits : o.mailboxes * o.window / 2;
    if (o.bare) {
      Ledger ledger(runtime, o, postgres.get());
      bare = Bare(runtime, ledger, corpus, o, batch);
      if (o.ours && ledger.Counts() != counts) Die("the tables don't hold the same numbers of rows");
    }
    std::printf("{\"engine\": \"%s\", \"mails\": %zu, \"batch\": %zu", postgres ? "postgres" : "sqlite", mails, batch);
    if (o.ours) std::printf(", \"ours\": %s", Json(ours, mails).c_str());
    if (o.bare) std::printf(", \"bare\": %s", Json(bare, mails).c_str());
    for (const auto& [table, rows] : counts) std::printf(", \"%s\": %lld", table.c_str(), static_cast<long long>(rows));
    std::printf("}\n");
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace poststelle::fetcher

int main(int argc, char** argv) { return poststelle::fetcher::Main(argc, argv); }
