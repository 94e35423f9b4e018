// The tables of the config service.
#pragma once

#include <vector>

#include "libs/sql/database.h"

namespace poststelle::config {

std::vector<sql::Migration> ConfigMigrations();

}  // namespace poststelle::config
