#include "libs/redis/address.h"

#include <optional>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "libs/base/status_macros.h"

namespace poststelle::redis {
namespace {

absl::Status Wrong(const char* what) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, "; give it as redis://[[user]:password@]host[:port][,host[:port]...][/database]"));
}

std::optional<int> HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

// A '%' that begins no escape stands for itself: passwords were taken as they are before escapes were known.
std::string PercentDecode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      const auto high = HexDigit(text[i + 1]), low = HexDigit(text[i + 2]);
      if (high && low) {
        out.push_back(static_cast<char>(*high * 16 + *low));
        i += 2;
        continue;
      }
    }
    out.push_back(text[i]);
  }
  return out;
}

absl::StatusOr<Endpoint> ParseEndpoint(std::string text) {
  Endpoint out;
  std::string port;
  if (!text.empty() && text.front() == '[') {
    const size_t close = text.find(']');
    if (close == std::string::npos) return Wrong("a bracket is not closed");
    out.host = text.substr(1, close - 1);
    const std::string rest = text.substr(close + 1);
    if (!rest.empty() && rest.front() != ':') return Wrong("after the address in brackets comes :port");
    if (!rest.empty()) port = rest.substr(1);
    if (!rest.empty() && port.empty()) return Wrong("a port is missing");
  } else {
    const size_t colon = text.find(':');
    out.host = text.substr(0, colon);
    if (colon != std::string::npos) {
      port = text.substr(colon + 1);
      if (port.empty()) return Wrong("a port is missing");
    }
  }
  if (out.host.empty()) return Wrong("a host is missing");
  int number = 6379;
  if (!port.empty() && (!absl::SimpleAtoi(port, &number) || number < 1 || number > 65535)) {
    return Wrong("a port is not a number from 1 to 65535");
  }
  out.port = static_cast<uint16_t>(number);
  return out;
}

}  // namespace

std::string Endpoint::ToString() const {
  return host.find(':') == std::string::npos ? absl::StrCat(host, ":", port) : absl::StrCat("[", host, "]:", port);
}

absl::StatusOr<Address> ParseUrl(const std::string& url) {
  Address out;
  const size_t scheme_end = url.find("://");
  if (scheme_end == std::string::npos) return Wrong("the scheme is missing");
  std::string scheme = url.substr(0, scheme_end);
  if (scheme.ends_with("+cluster")) {
    out.cluster = true;
    scheme.resize(scheme.size() - std::string_view("+cluster").size());
  }
  if (scheme != "redis" && scheme != "rediss") {
    return Wrong("the scheme is none of redis, rediss, redis+cluster and rediss+cluster");
  }
  out.tls = scheme == "rediss";
  std::string rest = url.substr(scheme_end + 3);
  if (const size_t at = rest.rfind('@'); at != std::string::npos) {
    const std::string sign_in = rest.substr(0, at);
    const size_t colon = sign_in.find(':');
    if (colon == std::string::npos) return Wrong("before the @ stands user:password or :password");
    out.user = PercentDecode(std::string_view(sign_in).substr(0, colon));
    out.password = SecretString(PercentDecode(std::string_view(sign_in).substr(colon + 1)));
    if (!out.user.empty() && out.password.empty()) return Wrong("the user has no password");
    rest = rest.substr(at + 1);
  }
  if (const size_t slash = rest.find('/'); slash != std::string::npos) {
    if (slash + 1 < rest.size() && (!absl::SimpleAtoi(rest.substr(slash + 1), &out.database) || out.database < 0)) {
      return Wrong("the database is not a number");
    }
    rest.resize(slash);
  }
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(rest, ','))) {
    PS_ASSIGN_OR_RETURN(Endpoint endpoint, ParseEndpoint(part));
    out.nodes.push_back(std::move(endpoint));
  }
  if (out.nodes.size() > 1) out.cluster = true;
  if (out.cluster && out.database != 0) return Wrong("a cluster knows only database 0");
  return out;
}

}  // namespace poststelle::redis
