// An empty database of either engine for one test.
#pragma once

#include <filesystem>
#include <string>

#include "libs/sql/database.h"

namespace poststelle::testing {

// Its database is gone with it (SQLite) or with the program (PostgreSQL). Throws if PostgreSQL can't be started.
class TempDatabase {
 public:
  explicit TempDatabase(sql::Engine engine);
  ~TempDatabase();
  TempDatabase(const TempDatabase&) = delete;
  TempDatabase& operator=(const TempDatabase&) = delete;
  const std::string& url() const { return url_; }
  // Of the SQLite file; empty for PostgreSQL.
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_;
  std::string url_;
};

// For the names of parameterised tests.
std::string EngineName(sql::Engine engine);

}  // namespace poststelle::testing
