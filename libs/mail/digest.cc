#include "libs/mail/digest.h"

#include <openssl/evp.h>

#include <array>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "libs/base/ids.h"
#include "libs/base/sv.h"
#include "libs/mail/scan.h"

namespace poststelle::mail {
namespace {

// Fields that differ between two deliveries of one mail. Anything else that differs makes another mail.
constexpr std::array<std::string_view, 12> kTraceHeaders = {
    "Return-Path",     "Received",       "Delivered-To",  "X-Original-To",          "Envelope-To",  "X-Envelope-To",
    "X-Envelope-From", "X-Delivered-To", "Delivery-Date", "Authentication-Results", "Received-SPF", "X-UID"};

bool IsTrace(std::string_view line) {
  for (std::string_view name : kTraceHeaders) {
    if (line.size() > name.size() && line[name.size()] == ':' && absl::StartsWithIgnoreCase(Av(line), Av(name)))
      return true;
  }
  return false;
}

// SHA-256 over many small pieces: they are gathered first, since a call of OpenSSL's costs more than a line of text.
class Hash {
 public:
  Hash() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
    gathered_.reserve(kGather);
  }
  void AddLine(std::string_view line) {
    if (gathered_.size() + line.size() + 1 > kGather) Flush();
    if (line.size() >= kGather) {
      EVP_DigestUpdate(context_.get(), line.data(), line.size());
    } else {
      gathered_.append(line);
    }
    gathered_.push_back('\n');
  }
  std::string Finish() {
    Flush();
    std::string out(32, '\0');
    EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(out.data()), nullptr);
    return out;
  }

 private:
  static constexpr size_t kGather = 16 << 10;
  void Flush() {
    EVP_DigestUpdate(context_.get(), gathered_.data(), gathered_.size());
    gathered_.clear();
  }
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
  std::string gathered_;
};

std::string Collapse(std::string_view value) {
  std::string out;
  for (char c : value) {
    const bool blank = c == ' ' || c == '\t' || c == '\r' || c == '\n';
    if (!blank) {
      out.push_back(c);
    } else if (!out.empty() && out.back() != ' ') {
      out.push_back(' ');
    }
  }
  while (out.ends_with(' ')) out.pop_back();
  return out;
}

}  // namespace

std::string Digest(std::string_view raw) {
  Hash hash;
  bool in_headers = true;
  bool skipping = false;
  size_t at = 0;
  while (at < raw.size()) {
    size_t end = raw.find('\n', at);
    if (end == std::string_view::npos) end = raw.size();
    std::string_view line = raw.substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    at = end + 1;
    if (in_headers) {
      const bool continues = !line.empty() && (line[0] == ' ' || line[0] == '\t');
      if (!continues) skipping = IsTrace(line);
      if (line.empty()) in_headers = false;
      if (skipping) continue;
    }
    hash.AddLine(line);
  }
  return hash.Finish();
}

std::string AnchorFromHeaders(std::string_view header_block, uint64_t size, int64_t internal_date) {
  std::string input;
  for (const char* name : {"Message-ID", "Date", "From"}) {
    absl::StrAppend(&input, Collapse(RawHeader(header_block, name)), "\n");
  }
  absl::StrAppend(&input, size, "\n", internal_date);
  return Sha256(input);
}

}  // namespace poststelle::mail
