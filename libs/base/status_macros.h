// Early return on a failed absl::Status. The CO_ forms are for coroutines that return Status or StatusOr.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define PS_CONCAT_INNER(a, b) a##b
#define PS_CONCAT(a, b) PS_CONCAT_INNER(a, b)

#define PS_RETURN_IF_ERROR(expr)                                            \
  do {                                                                      \
    if (absl::Status ps_status = (expr); !ps_status.ok()) return ps_status; \
  } while (false)

#define PS_CO_RETURN_IF_ERROR(expr)                                            \
  do {                                                                         \
    if (absl::Status ps_status = (expr); !ps_status.ok()) co_return ps_status; \
  } while (false)

#define PS_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr, ret) \
  auto tmp = (expr);                                  \
  if (!tmp.ok()) ret tmp.status();                    \
  lhs = std::move(*tmp)

#define PS_ASSIGN_OR_RETURN(lhs, expr) PS_ASSIGN_OR_RETURN_IMPL(PS_CONCAT(ps_or_, __LINE__), lhs, expr, return)
#define PS_CO_ASSIGN_OR_RETURN(lhs, expr) PS_ASSIGN_OR_RETURN_IMPL(PS_CONCAT(ps_or_, __LINE__), lhs, expr, co_return)
