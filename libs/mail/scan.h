// Our own scan over the bytes of a mail: limits before GMime, and headers where GMime must not look. Iterative, linear.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/mail/parsed_mail.pb.h"

namespace poststelle::mail {

// Measured against GMime 3.2.13: beyond these it recurses, or needs memory out of all proportion.
inline constexpr size_t kMaxParts = 2000;
inline constexpr size_t kMaxHeaderBytes = 1 << 20;  // of one header block
inline constexpr size_t kMaxHeaders = 5000;         // of the whole mail's blocks, on average one a part and more
inline constexpr size_t kMaxDepth = 50;
inline constexpr size_t kMaxGroups = 100;  // colons in an address field, quotes and comments or not: hiding one is easy

// The header block: everything up to and including the empty line.
std::string_view HeaderBlock(std::string_view raw);

// Calls `f` with the name of each field and its value as it stands, folded, until it answers false.
void EachField(std::string_view header_block,
               const std::function<bool(std::string_view name, std::string_view value)>& f);

// A field's value on one line, without blanks around it.
std::string Unfold(std::string_view value);

// First value of a header field, unfolded, as it stands; empty if there is none.
std::string RawHeader(std::string_view header_block, std::string_view name);

// The values of the first `limit` fields of that name, in their order.
std::vector<std::string> RawHeaders(std::string_view header_block, std::string_view name, size_t limit);

// A mail whose lines end with bare CRs, with LFs instead. Empty: it is none.
std::string WithLineFeeds(std::string_view raw);

// An address field in a form that GMime reads in full: angle brackets around a bare address behind a name, and base64
// with its padding.
std::string MendAddresses(std::string_view value);

// Why GMime must not see this mail; empty if it may.
std::optional<std::string> FindLimit(std::string_view raw);

// True for the value of an address field that GMime must not parse: it descends once for every group (`a:a:a:`).
bool TooManyGroups(std::string_view value);

// `raw` with those of the mail's own address fields renamed ("To" to "Xo") that GMime must not parse. Empty: none is.
std::string HideDeepFields(std::string_view raw);

// What can be read of the headers without GMime: From, To, Cc, Subject, Date, ids, and who wrote it. Never fails.
ParsedMail ScanHeaders(std::string_view raw);

// Decodes encoded words (RFC 2047), those split inside a character included, and raw 8-bit text.
std::string DecodeHeader(std::string_view value);

// The ids of a Message-ID, In-Reply-To or References field, without angle brackets.
std::vector<std::string> ParseIds(std::string_view value);

// RFC 5322 §3.3 with the liberties that mails take, and ISO 8601; false if no date can be read.
bool ParseDate(std::string_view value, int64_t& unix_seconds);

}  // namespace poststelle::mail
