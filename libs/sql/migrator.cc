#include <string>

#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"
#include "libs/sql/database.h"

namespace poststelle::sql {
namespace {

// The statements of a step: split at semicolons at the end of a line, comments left to the database.
std::vector<std::string> Split(std::string_view sql) {
  std::vector<std::string> out;
  std::string statement;
  size_t begin = 0;
  while (begin < sql.size()) {
    size_t end = sql.find('\n', begin);
    if (end == std::string_view::npos) end = sql.size();
    std::string_view line = sql.substr(begin, end - begin);
    begin = end + 1;
    if (line.starts_with("--")) continue;
    statement.append(line);
    statement.push_back('\n');
    if (line.ends_with(';')) {
      statement.resize(statement.find_last_of(';'));
      out.push_back(std::move(statement));
      statement.clear();
    }
  }
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
