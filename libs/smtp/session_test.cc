#include "libs/smtp/session.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "libs/net/stream.h"

namespace poststelle::smtp {
namespace {

using State = Session::State;

SessionOptions Options(Encryption encryption) {
  SessionOptions out;
  out.encryption = encryption;
  out.ehlo_name = *WireString::Make("client.test", "name");
  return out;
}

Address To(const std::string& text) { return *Address::Make(text); }
Envelope EnvelopeTo(const std::vector<std::string>& recipients) {
  Envelope out;
  out.sender = To("me@x");
  for (const std::string& r : recipients) out.recipients.push_back(To(r));
  return out;
}
const Credentials kJoe{"joe", SecretString("secret")};
constexpr char kMessage[] = "Subject: x\r\n\r\n.hi\r\n";

// A session that has greeted: `capabilities` are the lines of EHLO.
Session Greeted(const std::vector<std::string>& capabilities, SessionOptions options = Options(Encryption::kNone)) {
  Session session(std::move(options));
  session.Receive("220 hi\r\n");
  EXPECT_EQ(session.TakeOutput(), "EHLO client.test\r\n");
  std::string reply = "250-server\r\n";
  for (const std::string& c : capabilities) absl::StrAppend(&reply, "250-", c, "\r\n");
  session.Receive(reply + "250 HELP\r\n");
  EXPECT_EQ(session.state(), State::kIdle);
  return session;
}

// What the session writes for each of the server's answers.
std::vector<std::string> Talk(Session& session, const std::vector<std::string>& answers) {
  std::vector<std::string> out{session.TakeOutput()};
  for (const std::string& answer : answers) {
    session.Receive(answer);
    out.push_back(session.TakeOutput());
  }
  return out;
}

using Lines = std::vector<std::string>;

TEST(Handshake, StartTlsForgetsWhatWasToldBeforeIt) {
  Session session(Options(Encryption::kStartTls));
  EXPECT_EQ(session.step(), Step::kGreeting);
  EXPECT_EQ(Talk(session, {"220 hi\r\n", "250-x\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n"}),
            (Lines{"", "EHLO client.test\r\n", "STARTTLS\r\n"}));
  EXPECT_EQ(session.step(), Step::kStartTls);
  session.Receive("220 go\r\n");
  EXPECT_EQ(session.state(), State::kNeedTls);
  session.TlsStarted();
  EXPECT_TRUE(session.capabilities().auth.empty());
  EXPECT_EQ(Talk(session, {"250-x\r\n250 AUTH LOGIN\r\n"}), (Lines{"EHLO client.test\r\n", ""}));
  EXPECT_EQ(session.state(), State::kIdle);
  EXPECT_EQ(session.capabilities().auth, std::set<std::string>{"LOGIN"});
}

TEST(Handshake, NoDowngradeAndNoInjection) {
  struct Case {
    Lines answers;
    Step step;
    ErrorKind kind;
    bool temporary;
  };
  const std::string ehlo = "250-x\r\n250 STARTTLS\r\n";
  const Case cases[] = {
      {{"220 hi\r\n", "250 x\r\n"}, Step::kStartTls, ErrorKind::kNoStartTls, false},
      {{"220 hi\r\n", "502 what\r\n"}, Step::kEhlo, ErrorKind::kRefused, false},  // no HELO where TLS is wanted
      {{"220 hi\r\n", ehlo, "454 not now\r\n"}, Step::kStartTls, ErrorKind::kNoStartTls, true},
      {{"220 hi\r\n", ehlo, "502 no\r\n"}, Step::kStartTls, ErrorKind::kNoStartTls, false},
      {{"220 hi\r\n", ehlo, "250 ok\r\n"}, Step::kStartTls, ErrorKind::kProtocol, false},
      {{"220 hi\r\n", ehlo, "220 go\r\n250 injected\r\n"}, Step::kStartTls, ErrorKind::kProtocol, false},
      {{"220 hi\r\n", ehlo, "220 go\r\nx"}, Step::kStartTls, ErrorKind::kProtocol, false},
      {{"220 hi\r\n", ehlo + "220 go\r\n"}, Step::kStartTls, ErrorKind::kProtocol, false},  // before it was asked
      {{"220 hi\r\n" + ehlo}, Step::kEhlo, ErrorKind::kProtocol, false},
  };
  for (const Case& c : cases) {
    Session session(Options(Encryption::kStartTls));
    Talk(session, c.answers);
    EXPECT_EQ(session.state(), State::kDead) << c.answers.back();
    const Failure failure = GetFailure(session.status());
    EXPECT_EQ(failure.step, c.step) << session.status();
    EXPECT_EQ(failure.kind, c.kind) << session.status();
    EXPECT_EQ(failure.temporary, c.temporary) << session.status();
    EXPECT_EQ(session.TakeOutput(), "");
  }
}

TEST(Handshake, GreetingsThatAreNone) {
  struct Case {
    const char* greeting;
    ErrorKind kind;
    bool temporary;
  };
  for (const Case& c :
       {Case{"554 5.3.2 go away\r\n", ErrorKind::kRefused, false},
        Case{"554-no\r\n554 mail\r\n", ErrorKind::kRefused, false},
        Case{"421 4.3.2 busy\r\n", ErrorKind::kRefused, true}, Case{"450 later\r\n", ErrorKind::kRefused, true},
        Case{"250 hm\r\n", ErrorKind::kProtocol, false}, Case{"354 hm\r\n", ErrorKind::kProtocol, false},
        Case{"* OK IMAP\r\n", ErrorKind::kProtocol, false}}) {
    Session session(Options(Encryption::kNone));
    session.Receive(c.greeting);
    EXPECT_EQ(session.state(), State::kDead);
    EXPECT_EQ(GetFailure(session.status()).step, Step::kGreeting);
    EXPECT_EQ(GetFailure(session.status()).kind, c.kind) << session.status();
    EXPECT_EQ(GetFailure(session.status()).temporary, c.temporary) << c.greeting;
  }
}

TEST(Handshake, AnOldServerIsGreetedWithHelo) {
  Session session(Options(Encryption::kNone));
  EXPECT_EQ(Talk(session, {"220 hi\r\n", "502 what?\r\n", "250 x\r\n"}),
            (Lines{"", "EHLO client.test\r\n", "HELO client.test\r\n", ""}));
  EXPECT_EQ(session.state(), State::kIdle);
  EXPECT_FALSE(session.capabilities().esmtp);
  session.SignIn(kJoe);
  EXPECT_EQ(GetFailure(session.status()).kind, ErrorKind::kAuthUnavailable);
  EXPECT_EQ(session.state(), State::kIdle);
}

TEST(SignIn, WithAnInitialResponseOrWithChallenges) {
  Session plain = Greeted({"AUTH LOGIN PLAIN"});
  plain.SignIn(kJoe);
  EXPECT_EQ(Talk(plain, {"235 2.7.0 in\r\n"}), (Lines{"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n", ""}));
  EXPECT_TRUE(plain.status().ok());
  Session login = Greeted({"AUTH=LOGIN"});
  login.SignIn(kJoe);
  EXPECT_EQ(Talk(login, {"334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n", "235 in\r\n"}),
            (Lines{"AUTH LOGIN\r\n", "am9l\r\n", "c2VjcmV0\r\n", ""}));
  EXPECT_TRUE(login.status().ok());
  // A server without initial responses.
  Session asks = Greeted({"AUTH PLAIN"});
  asks.SignIn(kJoe);
  EXPECT_EQ(Talk(asks, {"334 \r\n", "235 in\r\n"}),
            (Lines{"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n", "AGpvZQBzZWNyZXQ=\r\n", ""}));
  EXPECT_TRUE(asks.status().ok());
  // PLAIN is announced and not known.
  Session other = Greeted({"AUTH PLAIN LOGIN"});
  other.SignIn(kJoe);
  EXPECT_EQ(Talk(other, {"504 5.5.4 unknown\r\n"}).back(), "AUTH LOGIN\r\n");
  // One that never has enough.
  Session greedy = Greeted({"AUTH LOGIN"});
  greedy.SignIn(kJoe);
  EXPECT_EQ(Talk(greedy, {"334 \r\n", "334 \r\n", "334 \r\n"}).back(), "*\r\n");
  greedy.Receive("501 cancelled\r\n");
  EXPECT_EQ(GetFailure(greedy.status()).kind, ErrorKind::kProtocol);
  EXPECT_EQ(greedy.state(), State::kDead);
}

TEST(SignIn, WhatIsTooLongForACommandIsAnAnswer) {
  // The longest that fits into 512 bytes with the line end, and the next one.
  for (const size_t size : {size_t{367}, size_t{368}}) {
    Session session = Greeted({"AUTH PLAIN"});
    session.SignIn({"joe", SecretString(std::string(size, 'x'))});
    const std::string line = session.TakeOutput();
    if (size == 367) {
      EXPECT_EQ(line.size(), 509u);
      continue;
    }
    EXPECT_EQ(line, "AUTH PLAIN\r\n");
    session.Receive("334 \r\n");
    EXPECT_EQ(session.TakeOutput().size(), 502u);
    session.Receive("235 in\r\n");
    EXPECT_TRUE(session.status().ok());
  }
}

// The example of RFC 7677 §3, in base64.
constexpr char kScramFirst[] = "biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=";
constexpr char kScramServerFirst[] =
    "334 cj1yT3ByTkdmd0ViZVJXZ2JORWtxTyVodllEcFdVYTJSYVRDQWZ1eEZJbGopaE5sRiRrMCxzPVcyMlphSjBTTlk3c29Fc1VFamI2Z1E9PSxpP"
    "TQwOTY=\r\n";
constexpr char kScramFinal[] =
    "Yz1iaXdzLHI9ck9wck5HZndFYmVSV2diTkVrcU8laHZZRHBXVWEyUmFUQ0FmdXhGSWxqKWhObEYkazAscD1kSHpiWmFwV0lrNGpVaE4rVXRlOXl0Y"
    "Wc5empmTUhnc3FtbWl6N0FuZFZRPQ==\r\n";
constexpr char kScramServerFinal[] = "334 dj02cnJpVFJCaTIzV3BSUi93dHVwK21NaFVaVW4vZEI1bkxUSlJzamw5NUc0PQ==\r\n";
const Credentials kUser{"user", SecretString("pencil")};

Session Scram(const std::string& mechanisms, bool tls = false) {
  SessionOptions options = Options(tls ? Encryption::kTls : Encryption::kNone);
  options.nonce = [] { return "rOprNGfwEbeRWgbNEkqO"; };
  Session session(std::move(options));
  if (tls) session.TlsStarted();
  Talk(session, {"220 hi\r\n", "250-x\r\n250 AUTH " + mechanisms + "\r\n"});
  return session;
}

TEST(SignIn, ScramKeepsThePasswordAndWantsAProof) {
  Session good = Scram("LOGIN PLAIN SCRAM-SHA-256");
  good.SignIn(kUser);
  EXPECT_EQ(Talk(good, {kScramServerFirst, kScramServerFinal, "235 2.7.0 in\r\n"}),
            (Lines{absl::StrCat("AUTH SCRAM-SHA-256 ", kScramFirst, "\r\n"), kScramFinal, "\r\n", ""}));
  EXPECT_TRUE(good.status().ok()) << good.status();
  EXPECT_EQ(good.state(), State::kIdle);

  // Let in without a proof, right away or after our part of it.
  for (const Lines& answers : {Lines{"235 in\r\n"}, Lines{kScramServerFirst, "235 in\r\n"}}) {
    Session forged = Scram("SCRAM-SHA-256");
    forged.SignIn(kUser);
    Talk(forged, answers);
    EXPECT_EQ(forged.state(), State::kDead);
    EXPECT_EQ(GetFailure(forged.status()).kind, ErrorKind::kProtocol) << forged.status();
  }
  // What is no message of the exchange is not answered, and nothing is believed afterwards.
  for (const Lines& answers :
       {Lines{"334 \r\n"}, Lines{"334 *\r\n"}, Lines{kScramServerFinal}, Lines{kScramServerFirst, "334 dj1BQUFB\r\n"},
        Lines{kScramServerFirst, kScramServerFirst}, Lines{kScramServerFirst, kScramServerFinal, kScramServerFinal}}) {
    for (const char* then : {"501 cancelled\r\n", "235 in\r\n"}) {
      Session session = Scram("SCRAM-SHA-256 PLAIN");
      session.SignIn(kUser);
      EXPECT_EQ(Talk(session, answers).back(), "*\r\n");
      session.Receive(then);
      EXPECT_EQ(session.TakeOutput(), "");
      EXPECT_EQ(session.state(), State::kDead);
      EXPECT_EQ(GetFailure(session.status()).kind, ErrorKind::kProtocol) << session.status();
    }
  }
}

TEST(SignIn, AfterScramThePasswordGoesWithTlsOnly) {
  for (const bool tls : {true, false}) {
    for (const Lines& no : {Lines{kScramServerFirst, "535 5.7.8 no\r\n"},
                            Lines{kScramServerFirst, "334 ZT1pbnZhbGlkLXByb29m\r\n", "535 5.7.8 no\r\n"}}) {
      Session session = Scram("SCRAM-SHA-256 PLAIN LOGIN", tls);
      session.SignIn(kUser);
      EXPECT_EQ(Talk(session, no).back(), tls ? "AUTH PLAIN AHVzZXIAcGVuY2ls\r\n" : "");
      if (tls) session.Receive("535 5.7.8 no\r\n");
      EXPECT_EQ(session.state(), State::kIdle);  // and not a third time
      EXPECT_EQ(session.TakeOutput(), "");
      EXPECT_EQ(GetFailure(session.status()).kind, ErrorKind::kAuthRejected) << session.status();
    }
  }
  // Announced and not known: as asked for, the next way.
  Session other = Scram("SCRAM-SHA-256 LOGIN");
  other.SignIn(kUser);
  EXPECT_EQ(Talk(other, {"504 5.5.4 unknown\r\n"}).back(), "AUTH LOGIN\r\n");
  // What SASLprep would have to change goes another way.
  Session umlaut = Scram("SCRAM-SHA-256 PLAIN");
  umlaut.SignIn({"user", SecretString("\xC3\xA4")});
  EXPECT_EQ(umlaut.TakeOutput().substr(0, 11), "AUTH PLAIN ");
}

TEST(SignIn, NeverBeforeTlsWhereTlsIsWanted) {
  // A driver that forgot to start it.
  Session session(Options(Encryption::kTls));
  Talk(session, {"220 hi\r\n", "250-x\r\n250 AUTH PLAIN\r\n"});
  ASSERT_EQ(session.state(), State::kIdle);
  session.SignIn(kJoe);
  EXPECT_EQ(session.TakeOutput(), "");
  EXPECT_EQ(session.state(), State::kDead);
  EXPECT_EQ(GetFailure(session.status()).kind, ErrorKind::kNoStartTls);
}

TEST(SignIn, RefusalsAreClassified) {
  struct Case {
    const char* answer;
    ErrorKind kind;
    bool temporary;
  };
  const Case cases[] = {
      {"535 5.7.8 Error: authentication failed", ErrorKind::kAuthRejected, false},  // Postfix
      {"535 Authentication credentials invalid", ErrorKind::kAuthRejected, false},  // GMX
      {"535-5.7.8 Username and Password not accepted. For more\r\n535 5.7.8 go to x", ErrorKind::kAuthRejected, false},
      {"535 5.7.3 Authentication unsuccessful", ErrorKind::kAuthRejected, false},  // Exchange
      {"535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.",
       ErrorKind::kAuthDisabled, false},
      {"535 5.7.139 Authentication unsuccessful, basic authentication is disabled.", ErrorKind::kAuthDisabled, false},
      {"550 5.7.30 Basic authentication is not supported for Client Submission.", ErrorKind::kAuthDisabled, false},
      {"534-5.7.9 Application-specific password required.\r\n534 5.7.9 x", ErrorKind::kAuthDisabled, false},  // Gmail
      {"534-5.7.14 Please log in via your web browser\r\n534 5.7.14 x", ErrorKind::kAuthDisabled, false},
      {"530 5.7.0 Must issue a STARTTLS command first", ErrorKind::kAuthUnavailable, false},
      {"538 encryption required", ErrorKind::kAuthUnavailable, false},
      {"504 5.5.4 Unrecognized authentication type", ErrorKind::kAuthUnavailable, false},
      {"503 5.5.1 authentication not enabled", ErrorKind::kAuthUnavailable, false},
      {"454 4.7.0 Temporary authentication failure", ErrorKind::kRefused, true},
      {"432 4.3.2 Concurrent connections limit exceeded", ErrorKind::kRefused, true},
      {"421 4.7.0 Too many failed attempts", ErrorKind::kRefused, true},
      {"554 5.7.0 denied", ErrorKind::kRefused, false},
      {"354 hm", ErrorKind::kProtocol, false},
  };
  for (const Case& c : cases) {
    Session session = Greeted({"AUTH PLAIN"});
    session.SignIn(kJoe);
    session.TakeOutput();
    session.Receive(absl::StrCat(c.answer, "\r\n"));
    const Failure failure = GetFailure(session.status());
    EXPECT_EQ(failure.step, Step::kAuth) << c.answer;
    EXPECT_EQ(KindName(failure.kind), KindName(c.kind)) << c.answer;
    EXPECT_EQ(failure.temporary, c.temporary) << c.answer;
    const bool dead = c.kind == ErrorKind::kProtocol || failure.reply.code == 421;
    EXPECT_EQ(session.state(), dead ? State::kDead : State::kIdle) << c.answer;
  }
}

TEST(SignIn, WhatIsNotOffered) {
  Session oauth = Greeted({"AUTH XOAUTH2"});
  oauth.SignIn(kJoe);
  EXPECT_EQ(GetFailure(oauth.status()).kind, ErrorKind::kAuthDisabled);
  Session clear = Greeted({"STARTTLS"});
  clear.SignIn(kJoe);
  EXPECT_EQ(GetFailure(clear.status()).kind, ErrorKind::kAuthUnavailable);
  Session nul = Greeted({"AUTH PLAIN"});
  nul.SignIn({std::string("jo\0e", 4), SecretString("x")});
  EXPECT_EQ(GetFailure(nul.status()).kind, ErrorKind::kUnfit);
  EXPECT_EQ(nul.TakeOutput(), "");
}

TEST(SignIn, AServerThatRepeatsThePasswordIsNotQuoted) {
  Session session = Greeted({"AUTH PLAIN"});
  session.SignIn(kJoe);
  session.TakeOutput();
  session.Receive("535 bad: AGpvZQBzZWNyZXQ= is joe with secret or c2VjcmV0\r\n");
  const std::string said = session.status().ToString();
  for (const char* secret : {"secret", "c2VjcmV0", "AGpvZQBzZWNyZXQ"})
    EXPECT_EQ(said.find(secret), std::string::npos) << said;
}

TEST(Send, OneCommandAtATime) {
  Session session = Greeted({"SIZE"});
  session.Send(EnvelopeTo({"a@x", "b@x", "c@x"}), kMessage);
  EXPECT_EQ(Talk(session, {"250 ok\r\n", "250 ok\r\n", "550 5.1.1 who?\r\n", "251 forwarded\r\n", "354 go\r\n"}),
            (Lines{"MAIL FROM:<me@x> SIZE=19\r\n", "RCPT TO:<a@x>\r\n", "RCPT TO:<b@x>\r\n", "RCPT TO:<c@x>\r\n",
                   "DATA\r\n", ""}));
  ASSERT_EQ(session.state(), State::kNeedPermit);
  session.Permit();
  EXPECT_EQ(session.step(), Step::kFinal);
  EXPECT_EQ(Talk(session, {"250 2.0.0 queued as 7\r\n"}), (Lines{"Subject: x\r\n\r\n..hi\r\n.\r\n", ""}));
  const SendResult& result = session.result();
  EXPECT_EQ(result.outcome, Outcome::kAccepted);
  EXPECT_TRUE(result.status.ok());
  EXPECT_EQ(result.final_reply.Text(), "queued as 7");
  EXPECT_EQ(result.recipients[0].code, 250);
  EXPECT_EQ(result.recipients[1].enhanced, "5.1.1");
  EXPECT_EQ(result.recipients[2].code, 251);
  // The next one needs no RSET.
  session.Send(EnvelopeTo({"a@x"}), kMessage);
  EXPECT_EQ(session.TakeOutput(), "MAIL FROM:<me@x> SIZE=19\r\n");
}

TEST(Send, Pipelined) {
  Session session = Greeted({"PIPELINING"});
  session.Send(EnvelopeTo({"a@x", "b@x"}), kMessage);
  EXPECT_EQ(Talk(session, {"250 ok\r\n250 ok\r\n450 4.2.1 later\r\n", "354 go\r\n"}),
            (Lines{"MAIL FROM:<me@x>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\n", "DATA\r\n", ""}));
  session.Permit();
  session.TakeOutput();
  session.Receive("452 4.3.1 full\r\n");
  EXPECT_EQ(session.result().outcome, Outcome::kNotAccepted);
  EXPECT_EQ(GetFailure(session.result().status).step, Step::kFinal);
  EXPECT_TRUE(GetFailure(session.result().status).temporary);
  // The transaction is over for certain with RSET, in one packet with the next.
  session.Send(EnvelopeTo({"a@x"}), kMessage);
  EXPECT_EQ(Talk(session, {"250 ok\r\n530 5.7.0 sign in first\r\n503 no MAIL\r\n"}),
            (Lines{"RSET\r\nMAIL FROM:<me@x>\r\nRCPT TO:<a@x>\r\n", ""}));
  EXPECT_EQ(GetFailure(session.result().status).step, Step::kMail);
  EXPECT_EQ(GetFailure(session.result().status).reply.code, 530);
  EXPECT_EQ(session.result().recipients[0].code, 0);  // nothing was said about it
  EXPECT_EQ(session.state(), State::kIdle);
}

TEST(Send, ManyRecipientsGoInGroups) {
  std::vector<std::string> recipients;
  for (size_t i = 0; i < 2 * kPipelinedRecipients + 1; ++i) recipients.push_back(absl::StrCat("r", i, "@x"));
  Session session = Greeted({"PIPELINING"});
  session.Send(EnvelopeTo(recipients), kMessage);
  std::string told = session.TakeOutput();
  std::vector<size_t> groups;
  while (told != "DATA\r\n") {
    const size_t asked = static_cast<size_t>(std::count(told.begin(), told.end(), '\n'));
    ASSERT_LE(asked, kPipelinedRecipients + 1);
    groups.push_back(asked);
    std::string answers;
    for (size_t i = 0; i < asked; ++i) answers += "250 ok\r\n";
    session.Receive(answers);
    ASSERT_EQ(session.state(), State::kWaiting);
    told = session.TakeOutput();
  }
  EXPECT_EQ(groups, (std::vector<size_t>{kPipelinedRecipients + 1, kPipelinedRecipients, 1}));
  for (const Reply& reply : session.result().recipients) EXPECT_EQ(reply.code, 250);
  // A refused MAIL asks for no further group.
  Session refused = Greeted({"PIPELINING"});
  refused.Send(EnvelopeTo(recipients), kMessage);
  refused.TakeOutput();
  for (size_t i = 0; i < kPipelinedRecipients + 1; ++i) refused.Receive("550 5.7.1 no\r\n");
  EXPECT_EQ(refused.state(), State::kIdle);
  EXPECT_EQ(GetFailure(refused.result().status).step, Step::kMail);
}

TEST(Send, EveryRecipientRefused) {
  for (const char* last : {"550 5.1.1 no\r\n", "450 4.2.1 no\r\n"}) {
    Session session = Greeted({"PIPELINING"});
    session.Send(EnvelopeTo({"a@x", "b@x"}), kMessage);
    session.TakeOutput();
    session.Receive(absl::StrCat("250 ok\r\n550 5.1.1 no\r\n", last));
    EXPECT_EQ(session.state(), State::kIdle);
    EXPECT_EQ(session.TakeOutput(), "");
    EXPECT_EQ(session.result().outcome, Outcome::kNotAccepted);
    EXPECT_EQ(GetFailure(session.result().status).step, Step::kRcpt);
    EXPECT_EQ(GetFailure(session.result().status).temporary, last[0] == '4');
  }
  Session slow = Greeted({});
  slow.Send(EnvelopeTo({"a@x"}), kMessage);
  Talk(slow, {"250 ok\r\n", "550 no\r\n"});
  slow.Send(EnvelopeTo({"b@x"}), kMessage);
  EXPECT_EQ(Talk(slow, {"250 reset\r\n"}), (Lines{"RSET\r\n", "MAIL FROM:<me@x>\r\n"}));
}

TEST(Send, AskedForOnlyWhatIsNeededAndOffered) {
  const std::string utf8_header = "Subject: \xC3\xA4\r\n\r\n";
  const std::string utf8_body = "Subject: x\r\n\r\n\xC3\xA4\r\n";
  struct Case {
    Lines capabilities;
    std::string recipient;
    std::string message;
    std::string mail;  // empty: refused
    ErrorKind kind = ErrorKind::kNone;
  };
  const Case cases[] = {
      {{"8BITMIME", "SMTPUTF8"}, "a@x", kMessage, "MAIL FROM:<me@x>\r\n"},
      {{"8BITMIME", "SMTPUTF8"}, "a@x", utf8_body, "MAIL FROM:<me@x> BODY=8BITMIME\r\n"},
      {{"8BITMIME", "SMTPUTF8", "SIZE 100"}, "a@x", utf8_header, "MAIL FROM:<me@x> SIZE=15 BODY=8BITMIME SMTPUTF8\r\n"},
      {{"SMTPUTF8"}, "\xC3\xA4@x", kMessage, "MAIL FROM:<me@x> SMTPUTF8\r\n"},
      {{"8BITMIME"}, "\xC3\xA4@x", kMessage, "", ErrorKind::kUnsupported},
      {{"8BITMIME"}, "a@x", utf8_header, "", ErrorKind::kUnsupported},
      {{}, "a@x", utf8_body, "", ErrorKind::kUnsupported},
      {{"SIZE 18"}, "a@x", kMessage, "", ErrorKind::kTooLarge},
      {{"SIZE 19"}, "a@x", kMessage, "MAIL FROM:<me@x> SIZE=19\r\n"},
      {{"SIZE 0"}, "a@x", kMessage, "MAIL FROM:<me@x> SIZE=19\r\n"},
      {{}, "a@x", std::string(999, 'x'), "", ErrorKind::kUnfit},
      {{}, "a@x", std::string("\0", 1), "", ErrorKind::kUnfit},
  };
  for (const Case& c : cases) {
    Session session = Greeted(c.capabilities);
    session.Send(EnvelopeTo({c.recipient}), c.message);
    EXPECT_EQ(session.TakeOutput(), c.mail) << c.recipient << c.message;
    EXPECT_EQ(GetFailure(session.result().status).kind, c.kind);
    EXPECT_EQ(session.state(), c.mail.empty() ? State::kIdle : State::kWaiting);
  }
  Session nobody = Greeted({});
  nobody.Send(EnvelopeTo({}), kMessage);
  EXPECT_EQ(GetFailure(nobody.result().status).kind, ErrorKind::kUnfit);
}

TEST(Send, Chunked) {
  std::string message = "Subject: x\r\n\r\n";
  while (message.size() < kChunkBytes + kTailBytes + 1000) message += ".line\r\n";
  Session session = Greeted({"PIPELINING", "CHUNKING"});
  session.Send(EnvelopeTo({"a@x"}), message);
  session.TakeOutput();
  session.Receive("250 ok\r\n250 ok\r\n");
  std::string told;
  int chunks = 0;
  while (session.state() != State::kNeedPermit) {
    ASSERT_NE(session.state(), State::kIdle);
    const std::string piece = session.TakeOutput();
    EXPECT_LE(piece.size(), kPieceBytes + 100);
    told += piece;
    if (session.state() == State::kWaiting) {
      ++chunks;
      session.Receive("250 got it\r\n");
    }
  }
  session.Permit();
  told += session.TakeOutput();
  session.Receive("250 queued\r\n");
  EXPECT_EQ(session.result().outcome, Outcome::kAccepted);
  EXPECT_EQ(chunks, 2);
  // Undo the framing: what is left is the message, byte for byte, with no dot doubled.
  std::string got;
  std::string_view rest = told;
  while (!rest.empty()) {
    ASSERT_EQ(rest.substr(0, 5), "BDAT ");
    const size_t end = rest.find("\r\n");
    const size_t size = static_cast<size_t>(std::stoul(std::string(rest.substr(5, end - 5))));
    got += rest.substr(end + 2, size);
    rest.remove_prefix(end + 2 + size);
  }
  EXPECT_TRUE(got == message);
  // A short one is one BDAT.
  session.Send(EnvelopeTo({"a@x"}), kMessage);
  session.TakeOutput();
  session.Receive("250 ok\r\n250 ok\r\n");
  ASSERT_EQ(session.state(), State::kNeedPermit);
  session.Withhold(absl::AbortedError("fenced"));
  EXPECT_EQ(session.result().outcome, Outcome::kNotAccepted);
  EXPECT_EQ(GetFailure(session.result().status).kind, ErrorKind::kNoPermit);
  EXPECT_EQ(session.state(), State::kIdle);  // RSET is enough
  session.Send(EnvelopeTo({"a@x"}), kMessage);
  EXPECT_EQ(session.TakeOutput().substr(0, 6), "RSET\r\n");
}

TEST(Send, DataOfAnyLengthIsSentWhole) {
  for (const size_t size :
       {size_t{0}, size_t{10}, kTailBytes, kTailBytes + 2, kTailBytes + kPieceBytes + 2, 5 * kPieceBytes}) {
    std::string message;
    while (message.size() < size) message += message.size() % 3 == 0 ? "..\r\n" : "text line\n";
    Session session = Greeted({"CHUNKING"}, [] {
      SessionOptions o = Options(Encryption::kNone);
      o.use_chunking = false;
      return o;
    }());
    session.Send(EnvelopeTo({"a@x"}), message);
    Talk(session, {"250 ok\r\n", "250 ok\r\n"});
    session.Receive("354 go\r\n");
    std::string told;
    while (session.state() == State::kBody) told += session.TakeOutput();
    ASSERT_EQ(session.state(), State::kNeedPermit);
    EXPECT_TRUE(told.find("\r\n.\r\n") == std::string::npos && told.substr(0, 3) != ".\r\n");
    session.Permit();
    told += session.TakeOutput();
    ASSERT_EQ(told.substr(told.size() - 3), ".\r\n");
    std::string got;
    for (size_t at = 0; at + 3 < told.size();) {
      const size_t end = told.find("\r\n", at) + 2;
      got += told.substr(told[at] == '.' ? at + 1 : at, end - at - (told[at] == '.' ? 1 : 0));
      at = end;
    }
    std::string want;
    for (char c : message) want += c == '\n' && (want.empty() || want.back() != '\r') ? "\r\n" : std::string(1, c);
    EXPECT_TRUE(got == want) << size;
  }
}

TEST(Send, TheOutcomeIsCertainUntilThePermit) {
  // What the server does after each answer, and what that means.
  const Lines answers = {"250 ok\r\n", "250 ok\r\n", "354 go\r\n"};
  const absl::Status lost = net::MakeNetError(net::NetError::kClosed, "closed");
  for (size_t n = 0; n <= answers.size() + 1; ++n) {
    for (const char* how : {"lost", "421 4.3.2 bye\r\n", "garbage\r\n", "250 ok\r\n250 twice\r\n"}) {
      Session session = Greeted({});
      session.Send(EnvelopeTo({"a@x"}), kMessage);
      Talk(session, Lines(answers.begin(), answers.begin() + static_cast<std::ptrdiff_t>(std::min(n, answers.size()))));
      const bool permitted = n > answers.size();
      if (permitted) {
        session.Permit();
        session.TakeOutput();
      }
      std::string_view does = how;
      if (does == "lost") {
        session.Lost(lost);
      } else {
        session.Receive(does);
      }
      EXPECT_EQ(session.state(), State::kDead) << n << how;
      Outcome want = permitted ? Outcome::kUnknown : Outcome::kNotAccepted;
      if (permitted && does[0] == '4') want = Outcome::kNotAccepted;
      if (permitted && does[0] == '2') want = Outcome::kAccepted;  // what follows changes nothing
      EXPECT_EQ(session.result().outcome, want) << n << how;
      EXPECT_EQ(session.result().status.ok(), want == Outcome::kAccepted);
      if (want == Outcome::kUnknown) {
        EXPECT_EQ(GetFailure(session.result().status).step, Step::kFinal);
      }
      session.Send(EnvelopeTo({"a@x"}), kMessage);  // a dead session says so
      EXPECT_EQ(session.result().outcome, Outcome::kNotAccepted);
      EXPECT_FALSE(session.result().status.ok());
      EXPECT_EQ(session.TakeOutput(), "");
    }
  }
}

TEST(Send, FinalRepliesThatAreNone) {
  for (const char* answer : {"354 again\r\n", "hello\r\n", "250-never\r\n550 ending\r\n"}) {
    Session session = Greeted({});
    session.Send(EnvelopeTo({"a@x"}), kMessage);
    Talk(session, {"250 ok\r\n", "250 ok\r\n", "354 go\r\n"});
    session.Permit();
    session.TakeOutput();
    session.Receive(answer);
    EXPECT_EQ(session.result().outcome, Outcome::kUnknown) << answer;
    EXPECT_EQ(session.state(), State::kDead);
  }
}

TEST(Send, AServerMayRefuseBeforeTheEnd) {
  const std::string message(200'000, '\n');
  Session session = Greeted({});
  session.Send(EnvelopeTo({"a@x"}), message);
  Talk(session, {"250 ok\r\n", "250 ok\r\n"});
  session.Receive("354 go\r\n");
  session.TakeOutput();
  ASSERT_EQ(session.state(), State::kBody);
  session.Receive("552 5.3.4 too much\r\n");
  EXPECT_EQ(session.state(), State::kDead);
  EXPECT_EQ(session.result().outcome, Outcome::kNotAccepted);
  EXPECT_EQ(GetFailure(session.result().status).step, Step::kData);
  EXPECT_EQ(GetFailure(session.result().status).reply.code, 552);
}

TEST(Send, WithheldInDataEndsTheConnection) {
  Session session = Greeted({});
  session.Send(EnvelopeTo({"a@x"}), kMessage);
  Talk(session, {"250 ok\r\n", "250 ok\r\n", "354 go\r\n"});
  session.Withhold(absl::AbortedError("fenced\r\n"));
  EXPECT_EQ(session.state(), State::kDead);
  EXPECT_EQ(session.result().outcome, Outcome::kNotAccepted);
  EXPECT_EQ(GetFailure(session.result().status).kind, ErrorKind::kNoPermit);
  EXPECT_EQ(session.TakeOutput(), "");
}

TEST(Session, EveryBorderOfItsInputIsTheSame) {
  const std::string server =
      "220-hi\r\n220 there\r\n|250-x\r\n250-AUTH PLAIN\r\n250 PIPELINING\r\n|235 in\r\n|250 ok\r\n250 ok\r\n550-5.1.1 "
      "no\r\n"
      "550 5.1.1 one\r\n|354 go\r\n|250 2.0.0 done\r\n|221 bye\r\n";
  const size_t borders = server.size();
  for (size_t piece = 1; piece <= borders; ++piece) {
    Session session(Options(Encryption::kNone));
    std::string told;
    size_t at = 0;
    int operation = 0;
    while (at < server.size()) {
      told += session.TakeOutput();
      if (session.state() == State::kNeedPermit) {
        session.Permit();
        continue;
      }
      if (session.state() == State::kIdle) {
        ++operation;
        if (operation == 1) session.SignIn(kJoe);
        if (operation == 2) session.Send(EnvelopeTo({"a@x", "b@x"}), kMessage);
        if (operation == 3) session.Quit();
        continue;
      }
      const size_t end = std::min(server.find('|', at), server.size());  // a server waits there
      const size_t size = std::min(piece, end - at);
      session.Receive(std::string_view(server).substr(at, size));
      at += size;
      if (at < server.size() && server[at] == '|') ++at;
    }
    EXPECT_EQ(
        told,
        "EHLO client.test\r\nAUTH PLAIN AGpvZQBzZWNyZXQ=\r\nMAIL FROM:<me@x>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\n"
        "DATA\r\nSubject: x\r\n\r\n..hi\r\n.\r\nQUIT\r\n")
        << piece;
    EXPECT_EQ(session.result().outcome, Outcome::kAccepted);
    EXPECT_EQ(session.state(), State::kDead);
    EXPECT_TRUE(session.status().ok());
  }
}

TEST(Session, ResetAndWhatNobodyAsked) {
  Session session = Greeted({});
  session.Reset();
  EXPECT_EQ(Talk(session, {"250 ok\r\n"}), (Lines{"RSET\r\n", ""}));
  EXPECT_TRUE(session.status().ok());
  session.Receive("421 4.4.2 idle too long\r\n");
  EXPECT_EQ(session.state(), State::kDead);
  EXPECT_TRUE(GetFailure(session.status()).temporary);
  Session left = Greeted({"AUTH PLAIN"});
  left.Quit();
  Talk(left, {"221 bye\r\n"});
  EXPECT_TRUE(left.status().ok());
  left.SignIn(kJoe);
  EXPECT_FALSE(left.status().ok());
  Session other = Greeted({});
  other.Receive("250 hello?\r\n");
  EXPECT_EQ(GetFailure(other.status()).kind, ErrorKind::kProtocol);
}

}  // namespace
}  // namespace poststelle::smtp
