#include <gtest/gtest.h>

#include "libs/base/reason.h"
#include "libs/rpc/options.h"
#include "libs/rpc/page_token.h"
#include "libs/rpc/status.h"

namespace poststelle::rpc {
namespace {

TEST(Status, EveryBadFieldTravels) {
  const grpc::Status status =
      InvalidFields({{"mailbox.connection.port", "1 to 65535"}, {"mailbox.address", "missing"}});
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ReasonOf(status), "INVALID_FIELDS");
  ASSERT_EQ(ViolationsOf(status).size(), 2u);
  EXPECT_EQ(ViolationsOf(status)[1].field, "mailbox.address");
}

TEST(Status, AnAbslStatusKeepsItsReason) {
  EXPECT_EQ(ReasonOf(FromAbsl(WithReason(absl::NotFoundError("no"), "TICKET_NOT_FOUND"))), "TICKET_NOT_FOUND");
  EXPECT_EQ(ReasonOf(FromAbsl(absl::UnavailableError("later"))), "UNAVAILABLE");
  EXPECT_TRUE(FromAbsl(absl::OkStatus()).ok());
}

TEST(PageToken, IsBoundToItsArgumentsAndRefusedWhenAltered) {
  const std::string token = MakePageToken("key", "mailbox=a", "position");
  EXPECT_EQ(*ReadPageToken("key", "mailbox=a", token), "position");
  EXPECT_EQ(*ReadPageToken("key", "mailbox=a", ""), "");
  EXPECT_FALSE(ReadPageToken("key", "mailbox=b", token).ok());
  EXPECT_FALSE(ReadPageToken("other", "mailbox=a", token).ok());
  EXPECT_FALSE(ReadPageToken("key", "mailbox=a", "x" + token).ok());
  EXPECT_FALSE(ReadPageToken("key", "mailbox=a", "!").ok());
}

TEST(PageToken, PageSizes) {
  EXPECT_EQ(*PageSize(0, 50, 1000), 50);
  EXPECT_EQ(*PageSize(5000, 50, 1000), 1000);
  EXPECT_FALSE(PageSize(-1, 50, 1000).ok());
}

TEST(Options, FlagsAreAlsoEnvironmentVariables) {
  setenv("POSTSTELLE_DEMO_LEASE", "500ms", 1);
  Options options("demo", "A demo.");
  absl::Duration lease = absl::Seconds(10);
  int64_t sessions = 5;
  options.Duration("--lease", lease, "Lease");
  options.Number("--sessions", sessions, "Sessions", 1, 10);
  std::string program = "demo";
  std::string flag = "--sessions=7";
  char* argv[] = {program.data(), flag.data()};
  EXPECT_FALSE(options.Parse(2, argv).has_value());
  EXPECT_EQ(lease, absl::Milliseconds(500));
  EXPECT_EQ(sessions, 7);
  unsetenv("POSTSTELLE_DEMO_LEASE");
}

TEST(Options, AMistakeExitsWithTwo) {
  Options options("demo", "A demo.");
  int64_t sessions = 5;
  options.Number("--sessions", sessions, "Sessions", 1, 10);
  std::string program = "demo";
  std::string flag = "--sessions=11";
  char* argv[] = {program.data(), flag.data()};
  testing::internal::CaptureStderr();
  EXPECT_EQ(options.Parse(2, argv), 2);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("--sessions"), std::string::npos);
}

}  // namespace
}  // namespace poststelle::rpc
