// Servers that send anything at all: a session stays bounded, ends, and never says that a message was accepted unless a
// positive reply followed the permit. The seeds are fixed, so that a failure repeats.
#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "libs/smtp/session.h"

namespace poststelle::smtp {
namespace {

using State = Session::State;

// What a good server says there, often enough to get to the end.
std::string GoodAnswer(Step step) {
  if (step == Step::kGreeting || step == Step::kStartTls) return "220 go\r\n";
  if (step == Step::kAuth) return "235 in\r\n";
  return step == Step::kData ? "354 go\r\n" : "250 ok\r\n";
}

// Parts that lead somewhere, and some that don't.
std::string Piece(std::mt19937& random) {
  static const char* const kParts[] = {"220 hi\r\n",
                                       "250 ok\r\n",
                                       "250-x\r\n",
                                       "250 PIPELINING\r\n",
                                       "250-AUTH PLAIN LOGIN\r\n",
                                       "250-STARTTLS\r\n",
                                       "250-CHUNKING\r\n",
                                       "250-SIZE 100000\r\n",
                                       "334 \r\n",
                                       "235 in\r\n",
                                       "354 go\r\n",
                                       "421 bye\r\n",
                                       "450 4.2.1 x\r\n",
                                       "550-5.1.1 x\r\n",
                                       "550 5.1.1 x\r\n",
                                       "\r\n",
                                       "\n",
                                       "2",
                                       "25",
                                       "250",
                                       "250 ",
                                       "250-",
                                       "\0",
                                       "999 x\r\n",
                                       "-",
                                       "AUTH=",
                                       "\xFF\xFE",
                                       "\x15\x03\x01",
                                       "250 2.0.0 queued\r\n",
                                       "221 bye\r\n",
                                       "504 no\r\n",
                                       "535 5.7.8 no\r\n"};
  if (random() % 20 == 0) {
    std::string noise(random() % 300, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    return noise;
  }
  return kParts[random() % std::size(kParts)];
}

TEST(Hostile, RandomServers) {
  const std::string message = "Subject: x\r\n\r\n" + std::string(40'000, '\n') + ".\r\n";
  int accepted = 0, unknown = 0, idle = 0;
  for (uint32_t seed = 0; seed < 20'000; ++seed) {
    std::mt19937 random(seed);
    SessionOptions options;
    options.encryption = static_cast<Encryption>(random() % 3);
    options.ehlo_name = *WireString::Make("client.test", "name");
    Session session(std::move(options));
    // Mostly a handshake that goes well, so that what is behind it is reached as well.
    if (random() % 4 != 0) {
      session.Receive("220 hi\r\n");
      session.TakeOutput();
      session.Receive(random() % 2 == 0 ? "250-x\r\n250-CHUNKING\r\n250-AUTH PLAIN\r\n250 PIPELINING\r\n"
                                        : "250-x\r\n250-AUTH LOGIN\r\n250 STARTTLS\r\n");
    }
    bool permitted = false;
    bool positive_after_permit = false;
    size_t written = 0;
    for (int step = 0; step < 200 && session.state() != State::kDead; ++step) {
      written += session.TakeOutput().size();
      ASSERT_LT(written, size_t{10} << 20);
      switch (session.state()) {
        case State::kNeedTls:
          session.TlsStarted();
          break;
        case State::kNeedPermit:
          if (random() % 4 == 0) {
            session.Withhold(absl::AbortedError("no"));
          } else {
            session.Permit();
            session.TakeOutput();
            permitted = true;
          }
          break;
        case State::kIdle: {
          ++idle;
          const uint32_t what = random() % 8;
          if (what == 0) session.Reset();
          if (what == 1) session.Quit();
          if (what == 2 || what == 3) session.SignIn({"joe", SecretString("secret")});
          if (what >= 4) {
            permitted = positive_after_permit = false;
            session.Send({*Address::Make("a@x"), {*Address::Make("b@x"), *Address::Make("c@x")}}, message);
          }
          break;
        }
        default: {
          const std::string piece = random() % 3 != 0 ? GoodAnswer(session.step()) : Piece(random);
          // A line end that completes "250 " counts as well; this only bounds from above.
          positive_after_permit = positive_after_permit || permitted;
          session.Receive(piece);
          break;
        }
      }
      if (session.result().outcome == Outcome::kAccepted) {
        ++accepted;
        ASSERT_TRUE(permitted && positive_after_permit) << seed;
        ASSERT_TRUE(session.result().final_reply.positive()) << seed;
      }
      if (session.result().outcome == Outcome::kUnknown) {
        ++unknown;
        ASSERT_TRUE(permitted) << seed;
      }
    }
  }
  // It got everywhere.
  EXPECT_GT(accepted, 0);
  EXPECT_GT(unknown, 0);
  EXPECT_GT(idle, 1000);
}

TEST(Hostile, RandomBytesForTheParser) {
  std::mt19937 random(7);
  for (int round = 0; round < 20'000; ++round) {
    ReplyParser parser;
    std::string bytes;
    for (int i = 0; i < 6; ++i) bytes += Piece(random);
    std::string_view rest = bytes;
    while (!rest.empty()) {
      std::optional<Reply> reply;
      const absl::StatusOr<size_t> taken = parser.Feed(rest, reply);
      if (!taken.ok()) break;
      ASSERT_GT(*taken, 0U);
      rest.remove_prefix(*taken);
      if (!reply) continue;
      ASSERT_TRUE(reply->code >= 200 && reply->code < 600);
      for (unsigned char c : reply->Quoted()) ASSERT_TRUE(c >= 0x20 && c != 0x7F);
    }
  }
}

}  // namespace
}  // namespace poststelle::smtp
