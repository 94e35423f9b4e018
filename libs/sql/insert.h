// Rows of one table in few statements: what a statement costs by itself is often more than what a row costs.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "libs/sql/database.h"

namespace poststelle::sql {

// "INSERT INTO … VALUES" for many rows. Immutable and thread-safe; lives as long as the statements that it makes, so it
// is a static object.
class RowInsert {
 public:
  // `head` ends with VALUES; `tail` is what follows the rows, for instance "ON CONFLICT DO NOTHING".
  RowInsert(std::string_view head, size_t columns, std::string_view tail = "");
  // Appends the statements that insert `rows`, in this order, each row of as many values as there are columns. A row
  // that fails takes with it what is in the same statement.
  void Append(std::vector<std::vector<Value>> rows, std::vector<Statement>& statements) const;

 private:
  // Few sizes, because each one is a statement that every connection prepares.
  static constexpr std::array<size_t, 3> kSizes{16, 4, 1};
  std::array<std::string, kSizes.size()> texts_;
};

}  // namespace poststelle::sql
