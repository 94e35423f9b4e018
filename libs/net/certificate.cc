#include "libs/net/certificate.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <asio/ip/address.hpp>

#include <algorithm>
#include <charconv>
#include <ctime>
#include <memory>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "libs/base/ids.h"
#include "libs/base/printable.h"

namespace poststelle::net {
namespace {

constexpr char kCertificateUrl[] = "poststelle/certificate";
constexpr size_t kMaxNames = 20;
constexpr size_t kMaxText = 253;

std::string Text(const ASN1_STRING* value) {
  unsigned char* utf8 = nullptr;
  const int size = value == nullptr ? -1 : ASN1_STRING_to_UTF8(&utf8, value);
  if (size < 0) return "";
  std::string out = Printable(std::string_view(reinterpret_cast<char*>(utf8), static_cast<size_t>(size)), kMaxText);
  OPENSSL_free(utf8);
  return out;
}

// The last entry of a kind: the most specific one.
std::string Entry(const X509_NAME* name, int nid) {
  int found = -1;
  for (int at = X509_NAME_get_index_by_NID(name, nid, -1); at >= 0; at = X509_NAME_get_index_by_NID(name, nid, at)) {
    found = at;
  }
  return found < 0 ? "" : Text(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, found)));
}

std::string NameOf(const X509_NAME* name) {
  for (const int nid : {NID_commonName, NID_organizationName}) {
    if (std::string text = Entry(name, nid); !text.empty()) return text;
  }
  return "";
}

std::string AddressOf(const ASN1_OCTET_STRING* bytes) {
  const unsigned char* data = ASN1_STRING_get0_data(bytes);
  const int size = ASN1_STRING_length(bytes);
  if (size == 4) {
    asio::ip::address_v4::bytes_type raw;
    std::copy_n(data, raw.size(), raw.begin());
    return asio::ip::address_v4(raw).to_string();
  }
  if (size == 16) {
    asio::ip::address_v6::bytes_type raw;
    std::copy_n(data, raw.size(), raw.begin());
    return asio::ip::address_v6(raw).to_string();
  }
  return "";
}

std::vector<std::string> NamesOf(X509* certificate) {
  std::vector<std::string> out;
  std::unique_ptr<GENERAL_NAMES, decltype(&GENERAL_NAMES_free)> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)),
      GENERAL_NAMES_free);
  ERR_clear_error();
  if (names == nullptr) return out;
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()) && out.size() < kMaxNames; ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    std::string text;
    if (name->type == GEN_DNS) text = Text(name->d.dNSName);
    if (name->type == GEN_IPADD) text = AddressOf(name->d.iPAddress);
    if (!text.empty()) out.push_back(std::move(text));
  }
  return out;
}

int64_t SecondsOf(const ASN1_TIME* time) {
  std::tm tm{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &tm) != 1) return 0;
  return timegm(&tm);
}

int64_t Number(absl::string_view text) {
  int64_t out = 0;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

}  // namespace

std::string KeySha256(X509* certificate) {
  unsigned char* der = nullptr;
  const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
  if (size <= 0) return "";
  const std::string digest = Sha256(std::string(reinterpret_cast<char*>(der), static_cast<size_t>(size)));
  OPENSSL_free(der);
  return Hex(digest);
}

Certificate Describe(X509* certificate) {
  Certificate out;
  out.dns_names = NamesOf(certificate);
  out.subject = NameOf(X509_get_subject_name(certificate));
  if (out.subject.empty() && !out.dns_names.empty()) out.subject = out.dns_names.front();
  out.issuer = NameOf(X509_get_issuer_name(certificate));
  out.not_before = SecondsOf(X509_get0_notBefore(certificate));
  out.not_after = SecondsOf(X509_get0_notAfter(certificate));
  out.key_sha256 = KeySha256(certificate);
  return out;
}

absl::Status WithCertificate(absl::Status status, const Certificate& certificate) {
  // A line each; a text that is printable holds no line break.
  status.SetPayload(kCertificateUrl,
                    absl::Cord(absl::StrCat(certificate.subject, "\n", certificate.issuer, "\n", certificate.not_before,
                                            "\n", certificate.not_after, "\n", certificate.key_sha256, "\n",
                                            absl::StrJoin(certificate.dns_names, "\n"))));
  return status;
}

std::optional<Certificate> GetCertificate(const absl::Status& status) {
  const auto payload = status.GetPayload(kCertificateUrl);
  if (!payload) return std::nullopt;
  const std::vector<std::string> lines = absl::StrSplit(std::string(*payload), '\n');
  Certificate out;
  out.subject = lines[0];
  out.issuer = lines[1];
  out.not_before = Number(lines[2]);
  out.not_after = Number(lines[3]);
  out.key_sha256 = lines[4];
  for (size_t i = 5; i < lines.size(); ++i) {
    if (!lines[i].empty()) out.dns_names.push_back(lines[i]);
  }
  return out;
}

}  // namespace poststelle::net
