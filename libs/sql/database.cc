#include "libs/sql/database.h"

#include <cstdlib>

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

absl::StatusOr<std::unique_ptr<Database>> Open(asio::any_io_executor executor, const std::string& url) {
  constexpr std::string_view kSqlite = "sqlite:";
  if (url.starts_with("postgresql://") || url.starts_with("postgres://")) {
    return OpenPostgres(std::move(executor), url, PostgresOptions{});
  }
  if (!url.starts_with(kSqlite) || url.size() == kSqlite.size()) {
    // What is there instead is not repeated: it may hold a password.
    return absl::InvalidArgumentError("the database URL is not of the form sqlite:PATH or postgresql://HOST/NAME");
  }
  return OpenSqlite(url.substr(kSqlite.size()));
}

}  // namespace poststelle::sql
