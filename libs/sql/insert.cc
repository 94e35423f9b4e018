#include "libs/sql/insert.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "libs/base/sv.h"

namespace poststelle::sql {

RowInsert::RowInsert(std::string_view head, size_t columns, std::string_view tail) {
  for (size_t k = 0; k < kSizes.size(); ++k) {
    texts_[k] = std::string(head);
    for (size_t i = 0; i < kSizes[k] * columns; ++i) {
      const bool first = i % columns == 0;
      const bool last = i % columns == columns - 1;
      absl::StrAppend(&texts_[k], first ? (i == 0 ? " (" : ", (") : ", ", "$", i + 1, last ? ")" : "");
    }
    if (!tail.empty()) absl::StrAppend(&texts_[k], " ", Av(tail));
  }
}

void RowInsert::Append(std::vector<std::vector<Value>> rows, std::vector<Statement>& statements) const {
  size_t at = 0;
  for (size_t k = 0; k < kSizes.size(); ++k) {
    while (rows.size() - at >= kSizes[k]) {
      Statement statement{texts_[k], std::move(rows[at])};
      for (size_t i = 1; i < kSizes[k]; ++i) {
        std::vector<Value>& row = rows[at + i];
        statement.params.insert(statement.params.end(), std::make_move_iterator(row.begin()),
                                std::make_move_iterator(row.end()));
      }
      at += kSizes[k];
      statements.push_back(std::move(statement));
    }
  }
}

}  // namespace poststelle::sql
