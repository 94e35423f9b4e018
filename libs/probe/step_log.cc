#include "libs/probe/step_log.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "libs/base/printable.h"
#include "libs/base/server_words.h"
#include "libs/base/sv.h"
#include "libs/net/certificate.h"
#include "libs/net/stream.h"

namespace poststelle::probe {
namespace {

constexpr size_t kMaxDetail = 500;  // bytes

std::string Date(int64_t time) {
  return absl::FormatTime("%Y-%m-%d", absl::FromUnixSeconds(time), absl::UTCTimeZone());
}

void Fill(const net::Certificate& from, config::v1::CertificateProblem& to) {
  to.set_subject(from.subject);
  to.set_issuer(from.issuer);
  to.mutable_dns_names()->Assign(from.dns_names.begin(), from.dns_names.end());
  to.mutable_not_before()->set_seconds(from.not_before);
  to.mutable_not_after()->set_seconds(from.not_after);
  to.set_key_sha256(from.key_sha256);
}

}  // namespace

StepLog::StepLog(const config::v1::Mailbox& mailbox, Sink sink) : sink_(std::move(sink)) {
  const std::string& login = mailbox.password_authentication().login_name();
  words_ = {{"host", mailbox.connection().host()},
            {"port", absl::StrCat(mailbox.connection().port())},
            {"address", mailbox.address()},
            {"login", login.empty() ? mailbox.address() : login}};
}

void StepLog::Begin(Step::Kind kind) {
  End();
  step_.Clear();
  step_.set_kind(kind);
  step_.set_outcome(Step::OUTCOME_RUNNING);
  began_ = absl::Now();
  if (sink_) sink_(step_);
}

void StepLog::Detail(std::string_view text) {
  const std::string more = Printable(text, kMaxDetail);
  if (more.empty()) return;
  step_.set_detail(step_.detail().empty() ? more : Printable(absl::StrCat(step_.detail(), "; ", more), kMaxDetail));
}

void StepLog::Warn(const std::string& reason) {
  step_.set_reason(reason);
  Explain(words_, step_);
  Finish(Step::OUTCOME_WARNING);
}

void StepLog::Fail(const std::string& reason, const absl::Status& status) {
  step_.set_reason(reason);
  // The sentences of protocol engines hold the server's words, which not everybody may see; those of libs/net don't.
  if (net::IsNetError(status)) Detail(Sv(status.message()));
  if (const std::optional<net::Certificate> certificate = net::GetCertificate(status)) {
    Fill(*certificate, *step_.mutable_certificate());
    words_["names"] =
        certificate->dns_names.empty() ? certificate->subject : absl::StrJoin(certificate->dns_names, ", ");
    words_["issuer"] = certificate->issuer;
    words_["not_before"] = Date(certificate->not_before);
    words_["not_after"] = Date(certificate->not_after);
  }
  if (step_.server_words().empty()) step_.set_server_words(ServerWordsOf(status));
  Explain(words_, step_);
  Finish(Step::OUTCOME_FAILED);
}

void StepLog::End() {
  if (step_.outcome() == Step::OUTCOME_RUNNING) Finish(Step::OUTCOME_OK);
}

void StepLog::Finish(Step::Outcome outcome) {
  step_.set_outcome(outcome);
  const int64_t took = absl::ToInt64Nanoseconds(absl::Now() - began_);
  const int64_t nanos = took < 0 ? 0 : took;
  step_.mutable_duration()->set_seconds(nanos / 1'000'000'000);
  step_.mutable_duration()->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
  if (sink_) sink_(step_);
}

}  // namespace poststelle::probe
