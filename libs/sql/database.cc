#include "libs/sql/database.h"

#include <cstdlib>

#include "libs/base/status_macros.h"
#include "libs/sql/engines.h"

namespace poststelle::sql {

int64_t Row::Int(size_t column) const {
  if (IsNull(column)) return 0;
  if (const auto* i = std::get_if<int64_t>(&values_[column])) return *i;
  std::abort();  // a defect of ours: the query and its reader disagree
}

const std::string& Row::Text(size_t column) const {
  static const std::string kEmpty;
  if (IsNull(column)) return kEmpty;
  if (const auto* s = std::get_if<std::string>(&values_[column])) return *s;
  if (const auto* b = std::get_if<Blob>(&values_[column])) return b->bytes;
  std::abort();
}

async::Task<absl::StatusOr<Result>> Database::ReadOne(Statement statement) {
  Result out;
  Work work = [&](Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(out, co_await tx.Execute(statement.sql, statement.params));
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await Read(std::move(work)));
  co_return out;
}

size_t QuotedLength(std::string_view sql) {
  for (const std::string_view quote : {"'", "\"", "$$"}) {
    if (!sql.starts_with(quote)) continue;
    const size_t end = sql.find(quote, quote.size());
    return end == std::string_view::npos ? sql.size() : end + quote.size();
  }
  return 0;
}

std::optional<std::string> SqlitePath(const std::string& url) {
  constexpr std::string_view kSqlite = "sqlite:";
  if (!url.starts_with(kSqlite) || url.size() == kSqlite.size()) return std::nullopt;
  return url.substr(kSqlite.size());
}

absl::StatusOr<std::unique_ptr<Database>> Open(asio::any_io_executor executor, const std::string& url) {
  if (url.starts_with("postgresql://") || url.starts_with("postgres://")) {
    return OpenPostgres(std::move(executor), url, PostgresOptions{});
  }
  const std::optional<std::string> path = SqlitePath(url);
  if (!path) {
    // What is there instead is not repeated: it may hold a password.
    return absl::InvalidArgumentError("the database URL is not of the form sqlite:PATH or postgresql://HOST/NAME");
  }
  return OpenSqlite(*path);
}

}  // namespace poststelle::sql
