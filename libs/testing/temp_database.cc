#include "libs/testing/temp_database.h"

#include "libs/base/ids.h"
#include "libs/testing/temp_postgres.h"

namespace poststelle::testing {

TempDatabase::TempDatabase(sql::Engine engine) {
  if (engine == sql::Engine::kPostgres) {
    url_ = TempPostgres::Shared().NewDatabase();
    return;
  }
  folder_ = std::filesystem::temp_directory_path() / ("poststelle-db-" + RandomId());
  std::filesystem::create_directory(folder_);
  url_ = "sqlite:" + (folder_ / "test.db").string();
}

TempDatabase::~TempDatabase() {
  if (!folder_.empty()) std::filesystem::remove_all(folder_);
}

std::string EngineName(sql::Engine engine) { return engine == sql::Engine::kSqlite ? "sqlite" : "postgres"; }

}  // namespace poststelle::testing
