// What a server's certificate says of itself, for a person who has to find out what is wrong with it.
#pragma once

#include <openssl/x509.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace poststelle::net {

// Nothing in it is trusted; every text is printable and short.
struct Certificate {
  std::string subject;                 // common name, else the first host name
  std::string issuer;                  // common name, else organisation
  std::vector<std::string> dns_names;  // host names and addresses it is made out to, at most 20
  int64_t not_before = 0;              // seconds since 1970
  int64_t not_after = 0;
  std::string key_sha256;  // of its SubjectPublicKeyInfo, 64 hexadecimal digits (RFC 7469 §2.4)
};

Certificate Describe(X509* certificate);

// SHA-256 of the SubjectPublicKeyInfo in lower-case hexadecimal.
std::string KeySha256(X509* certificate);

// Puts the certificate beside an error, and takes it out again.
absl::Status WithCertificate(absl::Status status, const Certificate& certificate);
std::optional<Certificate> GetCertificate(const absl::Status& status);

}  // namespace poststelle::net
