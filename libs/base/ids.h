// Identifiers: random ones for what we create, derived ones for what must come out the same on every try.
#pragma once

#include <string>
#include <string_view>

namespace poststelle {

// 26 characters of lower-case base32 (130 bits) from the kernel's random source; used for resource ids and holders.
std::string RandomId();

// 26 characters of lower-case base32 of SHA-256(kind NUL identity): the same input gives the same id for ever
// (DESIGN §3: ticket, message and event ids derive from the identity).
std::string DerivedId(std::string_view kind, std::string_view identity);

// Raw 32 bytes of SHA-256.
std::string Sha256(std::string_view bytes);

// Lower-case hexadecimal.
std::string Hex(std::string_view bytes);

}  // namespace poststelle
