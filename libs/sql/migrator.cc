#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"
#include "libs/sql/database.h"

namespace poststelle::sql {
namespace {

// The statements of a step: split at semicolons outside of quotes ('…', "…", $$…$$) and comments (--). The last one
// needs none.
std::vector<std::string> Split(std::string_view sql) {
  std::vector<std::string> out;
  std::string statement;
  const auto finish = [&out, &statement] {
    if (statement.find_first_not_of(" \t\r\n") != std::string::npos) out.push_back(std::move(statement));
    statement.clear();
  };
  for (size_t i = 0; i < sql.size();) {
    if (sql.substr(i).starts_with("--")) {
      i = std::min(sql.find('\n', i), sql.size());
      continue;
    }
    if (sql[i] == ';') {
      finish();
      ++i;
      continue;
    }
    size_t length = 1;
    for (const std::string_view quote : {"'", "\"", "$$"}) {
      if (!sql.substr(i).starts_with(quote)) continue;
      const size_t end = sql.find(quote, i + quote.size());
      length = (end == std::string_view::npos ? sql.size() : end + quote.size()) - i;
      break;
    }
    statement.append(sql.substr(i, length));
    i += length;
  }
  finish();
  return out;
}

// `statement` in PostgreSQL's words: the type BLOB is BYTEA there. Quoted text stays as it is; Split took the comments.
std::string ForPostgres(std::string_view statement) {
  constexpr std::string_view kBlob = "BLOB";
  const auto in_word = [statement](size_t at) {
    return at < statement.size() &&
           (absl::ascii_isalnum(static_cast<unsigned char>(statement[at])) != 0 || statement[at] == '_');
  };
  std::string out;
  for (size_t i = 0; i < statement.size();) {
    const char c = statement[i];
    size_t length = 1;
    if (c == '\'' || c == '"') {
      length = std::min(statement.find(c, i + 1), statement.size() - 1) + 1 - i;
    } else if (in_word(i)) {
      while (in_word(i + length)) ++length;
      if (statement.substr(i, length) == kBlob) {
        out.append("BYTEA");
        i += length;
        continue;
      }
    }
    out.append(statement.substr(i, length));
    i += length;
  }
  return out;
}

// Of the database alone; any number that nobody else takes.
constexpr int64_t kLockKey = 0x706f737473746c6c;
constexpr absl::Duration kLockPoll = absl::Milliseconds(100);

}  // namespace

async::Task<absl::Status> Migrate(Database& database, const std::vector<Migration>& migrations) {
  const bool postgres = database.engine() == Engine::kPostgres;
  bool busy = false;
  // One write transaction with a lock: whoever comes second finds everything done. SQLite's is the lock by itself.
  Work work = [&migrations, &busy, postgres](Transaction& tx) -> async::Task<absl::Status> {
    busy = false;
    if (postgres) {
      // Asked for again and again instead of waited for: a long step of another process is no time-out of ours.
      std::vector<Value> key{kLockKey};
      PS_CO_ASSIGN_OR_RETURN(Result locked,
                             co_await tx.Execute("SELECT pg_try_advisory_xact_lock($1)", std::move(key)));
      busy = locked.rows[0].Int(0) == 0;
      if (busy) co_return absl::UnavailableError("another process migrates the database");
    }
    PS_CO_RETURN_IF_ERROR(
        (co_await tx.Execute("CREATE TABLE IF NOT EXISTS schema_migration (version INTEGER PRIMARY KEY, "
                             "name TEXT NOT NULL)"))
            .status());
    PS_CO_ASSIGN_OR_RETURN(Result present,
                           co_await tx.Execute("SELECT COALESCE(MAX(version), 0) FROM schema_migration"));
    const int64_t version = present.rows[0].Int(0);
    const int64_t known = migrations.empty() ? 0 : migrations.back().version;
    if (version > known) {
      co_return absl::FailedPreconditionError(absl::StrCat("the database's schema is version ", version,
                                                           ", newer than this program's ", known,
                                                           "; run the newer program"));
    }
    for (const Migration& step : migrations) {
      if (step.version <= version) continue;
      for (const std::string& statement : Split(step.sql)) {
        const std::string translated = postgres ? ForPostgres(statement) : statement;
        PS_CO_RETURN_IF_ERROR((co_await tx.Execute(translated)).status());
      }
      std::vector<Value> params{int64_t{step.version}, std::string(step.name)};
      PS_CO_RETURN_IF_ERROR(
          (co_await tx.Execute("INSERT INTO schema_migration (version, name) VALUES ($1, $2)", std::move(params)))
              .status());
    }
    co_return absl::OkStatus();
  };
  while (true) {
    absl::Status done = co_await database.Write(work);
    if (done.ok() || !busy) co_return done;
    PS_CO_RETURN_IF_ERROR(co_await async::Sleep(kLockPoll));
  }
}

}  // namespace poststelle::sql
