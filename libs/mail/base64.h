// Base64 as mail programs write it, fast. What is irregular is left to GMime, which mends it.
#pragma once

#include <string>
#include <string_view>

namespace poststelle::mail {

// Appends what `encoded` means to `out`. False, and `out` is as it was, unless it is regular: letters of the alphabet
// in groups of four, blanks and line ends between them, padding at the very end only.
bool DecodeRegularBase64(std::string_view encoded, std::string& out);

}  // namespace poststelle::mail
