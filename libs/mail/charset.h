// Text of a mail to UTF-8, whatever its label says.
#pragma once

#include <string>
#include <string_view>

namespace poststelle::mail {

// Decodes `bytes` labelled `label` (may be empty or wrong): UTF-8 stays UTF-8, its bad bytes become U+FFFD; otherwise
// the label as browsers read it (WHATWG: latin1 means windows-1252), a detected charset, and at last windows-1252. What
// can't be decoded becomes U+FFFD; NUL becomes U+FFFD; nothing is dropped. The result is valid UTF-8.
std::string ToUtf8(std::string_view bytes, std::string_view label);

bool IsValidUtf8(std::string_view text);

// iconv's name for a label in any of its spellings; empty for a charset that is not read here.
std::string CharsetName(std::string_view label);

// Loads the tables of every charset and holds them, so that none has to be opened later (libs/parsing: the sandbox lets
// no file be opened). What this machine has no table for is not read from then on. Before any thread converts.
void PreloadCharsets();

}  // namespace poststelle::mail
