#include "libs/sasl/sasl.h"

#include "absl/strings/escaping.h"
#include "libs/base/sv.h"

namespace poststelle::sasl {

SecretString Base64(std::string_view bytes) { return SecretString(absl::Base64Escape(Av(bytes))); }

absl::StatusOr<SecretString> Plain(std::string_view login, const SecretString& password) {
  if (login.find('\0') != std::string_view::npos || password.Reveal().find('\0') != std::string_view::npos) {
    return absl::InvalidArgumentError("login name and password must not hold a NUL");
  }
  std::string message(1, '\0');
  message.append(login);
  message.push_back('\0');
  message.append(password.Reveal());
  SecretString encoded = Base64(message);
  OPENSSL_cleanse(message.data(), message.size());
  return encoded;
}

}  // namespace poststelle::sasl
