// Bridge between std::string_view and Debian's absl::string_view, which are different types there.
#pragma once

#include <string_view>

#include "absl/strings/string_view.h"

namespace poststelle {

// For calls into Abseil: absl::StrCat("x", Av(view)).
inline absl::string_view Av(std::string_view v) { return absl::string_view(v.data(), v.size()); }

// For views that come out of Abseil: Sv(status.message()).
inline std::string_view Sv(absl::string_view v) { return std::string_view(v.data(), v.size()); }

}  // namespace poststelle
