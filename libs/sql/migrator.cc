#include <algorithm>
#include <string>

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

}  // namespace

async::Task<absl::Status> Migrate(Database& database, const std::vector<Migration>& migrations) {
  // One write transaction is the lock: whoever comes second finds everything done.
  Work work = [&migrations](Transaction& tx) -> async::Task<absl::Status> {
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
        PS_CO_RETURN_IF_ERROR((co_await tx.Execute(statement)).status());
      }
      std::vector<Value> params{int64_t{step.version}, std::string(step.name)};
      PS_CO_RETURN_IF_ERROR(
          (co_await tx.Execute("INSERT INTO schema_migration (version, name) VALUES ($1, $2)", std::move(params)))
              .status());
    }
    co_return absl::OkStatus();
  };
  co_return co_await database.Write(work);
}

}  // namespace poststelle::sql
