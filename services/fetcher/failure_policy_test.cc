#include "services/fetcher/failure_policy.h"

#include <gtest/gtest.h>

#include "libs/base/reason.h"
#include "libs/net/stream.h"

namespace poststelle::fetcher {
namespace {

TEST(FailurePolicy, BacksOffAndStopsAtTheCap) {
  Failure failure;
  EXPECT_EQ(RetryDelay(failure, 1, absl::Minutes(5)), absl::Minutes(5));
  EXPECT_EQ(RetryDelay(failure, 2, absl::Minutes(5)), absl::Minutes(10));
  EXPECT_EQ(RetryDelay(failure, 50, absl::Minutes(5)), absl::Minutes(30));
  EXPECT_EQ(RetryDelay(failure, 3, absl::Hours(2)), absl::Hours(2));
}

TEST(FailurePolicy, RejectedCredentialsWaitLonger) {
  Failure failure;
  failure.credentials = true;
  EXPECT_EQ(RetryDelay(failure, 1, absl::Seconds(1)), absl::Minutes(5));
  EXPECT_EQ(RetryDelay(failure, 30, absl::Seconds(1)), absl::Hours(6));
}

TEST(FailurePolicy, AnAddressThatIsNotAllowedNamesTheRemedyAndWaits) {
  config::v1::Mailbox mailbox;
  mailbox.mutable_connection()->set_host("imap.example.org");
  mailbox.mutable_connection()->set_port(993);
  const Failure failure = Classify(net::MakeNetError(net::NetError::kEgress, "not allowed."), mailbox);
  EXPECT_EQ(failure.reason, "ADDRESS_NOT_ALLOWED");
  EXPECT_EQ(failure.reason_text,
            "imap.example.org:993: not allowed. An administrator can allow its network with --egress-allow.");
  EXPECT_EQ(RetryDelay(failure, 1, absl::Seconds(1)), absl::Minutes(5));
  EXPECT_EQ(RetryDelay(failure, 30, absl::Seconds(1)), absl::Minutes(30));
}

TEST(FailurePolicy, AReasonThatIsGivenWins) {
  config::v1::Mailbox mailbox;
  mailbox.mutable_connection()->set_host("imap.example.org");
  mailbox.mutable_connection()->set_port(993);
  const Failure failure = Classify(WithReason(absl::FailedPreconditionError("no key"), "SECRET_UNREADABLE"), mailbox);
  EXPECT_EQ(failure.reason, "SECRET_UNREADABLE");
  EXPECT_NE(failure.reason_text.find("imap.example.org:993: no key"), std::string::npos);
  EXPECT_NE(failure.reason_text.find("Enter the password again."), std::string::npos);
}

TEST(FailurePolicy, NetworkErrorsKeepTheirKind) {
  config::v1::Mailbox mailbox;
  EXPECT_EQ(Classify(net::MakeNetError(net::NetError::kResolve, "no such host"), mailbox).reason, "HOST_UNKNOWN");
  EXPECT_EQ(Classify(net::MakeNetError(net::NetError::kCertificateExpired, "expired"), mailbox).reason,
            "CERTIFICATE_EXPIRED");
  EXPECT_EQ(Classify(absl::InternalError("ours"), mailbox).reason, "INTERNAL");
}

TEST(FailurePolicy, AFailureOfOursBacksNoMailboxOff) {
  const Failure failure = Classify(absl::UnavailableError("the database is away"), config::v1::Mailbox());
  EXPECT_EQ(failure.reason, "DATABASE_UNAVAILABLE");
  EXPECT_EQ(RetryDelay(failure, 20, absl::Minutes(5)), absl::Seconds(10));
  EXPECT_EQ(RetryDelay(failure, 20, absl::Seconds(1)), absl::Seconds(1));
}

TEST(FailurePolicy, AParserThatCantServeIsNamedAndTriedAgain) {
  const absl::Status status =
      WithReason(absl::UnavailableError("the parser /x could not be started"), "PARSER_UNAVAILABLE");
  const Failure failure = Classify(status, config::v1::Mailbox());
  EXPECT_EQ(failure.reason, "PARSER_UNAVAILABLE");
  EXPECT_NE(failure.reason_text.find("/x"), std::string::npos);
  EXPECT_FALSE(failure.credentials);
}

}  // namespace
}  // namespace poststelle::fetcher
