// The fetcher's schema, step by step. See ledger.h for the states of a message row.
#pragma once

#include <vector>

#include "libs/sql/database.h"

namespace poststelle::fetcher {

// Every migration of the ledger, in order.
std::vector<sql::Migration> LedgerMigrations();

}  // namespace poststelle::fetcher
