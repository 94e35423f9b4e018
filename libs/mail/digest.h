// What recognises a mail again (SPEC §5.4).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace poststelle::mail {

// SHA-256 over all bytes but the trace headers that a delivery adds (kTraceHeaders in digest.cc), line ends as LF: the
// same mail delivered or moved in twice has the same digest.
std::string Digest(std::string_view raw);

// SHA-256 over Message-ID, Date and From as they stand (unfolded, blanks collapsed), size and receive time. The same
// from a whole header block as from an answer to BODY[HEADER.FIELDS (MESSAGE-ID DATE FROM)].
std::string AnchorFromHeaders(std::string_view header_block, uint64_t size, int64_t internal_date);

}  // namespace poststelle::mail
