// What a server says it can do, in its reply to EHLO.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "libs/smtp/reply.h"

namespace poststelle::smtp {

struct Capabilities {
  bool esmtp = false;  // it knew EHLO
  bool start_tls = false;
  bool pipelining = false;             // RFC 2920
  bool eight_bit_mime = false;         // RFC 6152
  bool smtp_utf8 = false;              // RFC 6531
  bool chunking = false;               // RFC 3030
  bool dsn = false;                    // RFC 3461
  bool enhanced_status_codes = false;  // RFC 2034
  bool size = false;                   // RFC 1870
  uint64_t max_size = 0;               // bytes; 0: not told, or no limit
  std::set<std::string> auth;          // mechanisms, upper case; also from the old form "AUTH=LOGIN"
  uint32_t max_recipients = 0;         // RCPTMAX of LIMITS (RFC 9422); 0: not told
  uint32_t max_mails = 0;              // MAILMAX; 0: not told
};

// Of a positive reply to EHLO. What is unknown or malformed is passed over.
Capabilities ParseCapabilities(const Reply& reply);

}  // namespace poststelle::smtp
