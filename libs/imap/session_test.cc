#include "libs/imap/session.h"

#include <gtest/gtest.h>

#include "libs/imap/error.h"
#include "libs/imap/known_servers.h"

namespace poststelle::imap {
namespace {

SessionOptions Options(Encryption encryption) {
  SessionOptions options;
  options.encryption = encryption;
  options.login = "joe";
  options.password = SecretString("secret");
  return options;
}

TEST(Session, SignsInWithAnInitialResponse) {
  Session session(Options(Encryption::kTls));
  session.TlsStarted();
  ASSERT_TRUE(session.Receive("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hi\r\n").ok());
  EXPECT_EQ(session.TakeOutput(), "h1 AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=\r\n");
  ASSERT_TRUE(session.Receive("h1 OK done\r\n").ok());
  EXPECT_EQ(session.phase(), Session::Phase::kReady);
}

TEST(Session, WaitsForTheChallengeWithoutSaslIr) {
  Session session(Options(Encryption::kTls));
  session.TlsStarted();
  ASSERT_TRUE(session.Receive("* OK hi\r\n").ok());
  EXPECT_EQ(session.TakeOutput(), "h1 CAPABILITY\r\n");
  ASSERT_TRUE(session.Receive("* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nh1 OK\r\n").ok());
  EXPECT_EQ(session.TakeOutput(), "h2 AUTHENTICATE PLAIN\r\n");
  ASSERT_TRUE(session.Receive("+ \r\n").ok());
  EXPECT_EQ(session.TakeOutput(), "AGpvZQBzZWNyZXQ=\r\n");
}

TEST(Session, FallsBackToLoginAndThenToAuthenticateLogin) {
  Session plain(Options(Encryption::kTls));
  plain.TlsStarted();
  ASSERT_TRUE(plain.Receive("* OK [CAPABILITY IMAP4rev1] hi\r\n").ok());
  EXPECT_EQ(plain.TakeOutput(), "h1 LOGIN \"joe\" \"secret\"\r\n");
  Session login(Options(Encryption::kTls));
  login.TlsStarted();
  ASSERT_TRUE(login.Receive("* OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=LOGIN] hi\r\n").ok());
  EXPECT_EQ(login.TakeOutput(), "h1 AUTHENTICATE LOGIN\r\n");
  ASSERT_TRUE(login.Receive("+ VXNlcm5hbWU6\r\n").ok());
  EXPECT_EQ(login.TakeOutput(), "am9l\r\n");
  ASSERT_TRUE(login.Receive("+ UGFzc3dvcmQ6\r\n").ok());
  EXPECT_EQ(login.TakeOutput(), "c2VjcmV0\r\n");
}

SessionOptions Remembering(Encryption encryption, std::set<std::string> capabilities) {
  SessionOptions options = Options(encryption);
  options.remembered = std::move(capabilities);
  options.behind_sign_in = {"EXAMINE INBOX"};
  return options;
}

TEST(Session, AKnownServerIsSpokenToBeforeItsGreeting) {
  Session session(Remembering(Encryption::kTls, {"AUTH=PLAIN", "SASL-IR"}));
  EXPECT_EQ(session.TakeOutput(), "");  // not before TLS
  session.TlsStarted();
  EXPECT_EQ(session.TakeOutput(), "h1 AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=\r\nc2 EXAMINE INBOX\r\n");
  EXPECT_TRUE(session.early());
  std::vector<std::string> told;
  session.on_untagged = [&told](Response& r) {
    told.push_back(r.name);
    return absl::OkStatus();
  };
  ASSERT_TRUE(session
                  .Receive("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\nh1 OK [CAPABILITY IDLE] in\r\n* 3 EXISTS\r\n"
                           "c2 OK opened\r\n")
                  .ok());
  EXPECT_EQ(told, std::vector<std::string>{"EXISTS"});
  absl::Status result;
  EXPECT_TRUE(session.Done(session.behind_tags().front(), result));
  EXPECT_TRUE(result.ok());
  // What counts next time is what it said before the sign-in of this time.
  EXPECT_EQ(session.sign_in_capabilities(), (std::set<std::string>{"IMAP4REV1", "AUTH=PLAIN"}));
}

TEST(Session, WhatIsNotOneLineWaitsForTheGreeting) {
  for (const std::set<std::string>& capabilities :
       {std::set<std::string>{"AUTH=PLAIN"}, std::set<std::string>{"LOGINDISABLED", "AUTH=LOGIN"}}) {
    Session session(Remembering(Encryption::kTls, capabilities));
    session.TlsStarted();
    EXPECT_EQ(session.TakeOutput(), "");
    EXPECT_FALSE(session.early());
    ASSERT_TRUE(session.Receive("* OK hi\r\n").ok());
    EXPECT_EQ(session.TakeOutput(), "h1 CAPABILITY\r\n");
  }
}

TEST(Session, NothingThatIsRememberedIsUsedWithoutImplicitTls) {
  Session clear(Remembering(Encryption::kNone, {"AUTH=PLAIN", "SASL-IR"}));
  EXPECT_EQ(clear.TakeOutput(), "");
  ASSERT_TRUE(clear.Receive("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] hi\r\n").ok());
  EXPECT_TRUE(clear.sign_in_capabilities().empty());  // and nothing told in clear text is remembered
  Session upgrade(Remembering(Encryption::kStartTls, {"AUTH=PLAIN", "SASL-IR"}));
  ASSERT_TRUE(upgrade.Receive("* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n").ok());
  EXPECT_EQ(upgrade.TakeOutput(), "h1 STARTTLS\r\n");  // nothing behind it
  ASSERT_TRUE(upgrade.Receive("h1 OK begin\r\n").ok());
  upgrade.TlsStarted();
  EXPECT_EQ(upgrade.TakeOutput(), "h2 CAPABILITY\r\n");
  EXPECT_FALSE(upgrade.early());
}

TEST(Session, ALateGreetingIsStillLookedAt) {
  for (const char* greeting : {"* BYE full\r\n", "* PREAUTH hi\r\n", "h1 OK in\r\n", "* HELLO\r\n"}) {
    Session session(Remembering(Encryption::kTls, {"AUTH=PLAIN", "SASL-IR"}));
    session.TlsStarted();
    EXPECT_FALSE(session.Receive(greeting).ok()) << greeting;
  }
}

TEST(KnownServers, AServerThatCantBearItIsGivenUp) {
  KnownServers servers;
  const std::set<std::string> capabilities{"AUTH=PLAIN"};
  for (int i = 0; i < 3; ++i) {
    servers.Remember("a:993", capabilities);
    EXPECT_EQ(servers.Find("a:993"), capabilities);
    servers.Failed("a:993");
    EXPECT_TRUE(servers.Find("a:993").empty());
  }
  servers.Remember("a:993", capabilities);
  EXPECT_TRUE(servers.Find("a:993").empty());
  EXPECT_TRUE(servers.Find("b:993").empty());
}

TEST(Session, StartTlsForgetsWhatWasToldBefore) {
  Session session(Options(Encryption::kStartTls));
  ASSERT_TRUE(session.Receive("* OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN SASL-IR] hi\r\n").ok());
  EXPECT_EQ(session.TakeOutput(), "h1 STARTTLS\r\n");
  ASSERT_TRUE(session.Receive("h1 OK begin\r\n").ok());
  EXPECT_EQ(session.phase(), Session::Phase::kNeedTls);
  EXPECT_EQ(session.TakeOutput(), "");
  session.TlsStarted();
  EXPECT_EQ(session.TakeOutput(), "h2 CAPABILITY\r\n");
}

TEST(Session, ThereIsNoFallBackToClearText) {
  Session session(Options(Encryption::kStartTls));
  const absl::Status status = session.Receive("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] hi\r\n");
  EXPECT_EQ(GetErrorKind(status), ErrorKind::kNoStartTls);
  EXPECT_EQ(session.TakeOutput().find("AGpvZQ"), std::string::npos);
}

TEST(Session, DataBehindStartTlsIsAnInjection) {
  Session session(Options(Encryption::kStartTls));
  ASSERT_TRUE(session.Receive("* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n").ok());
  EXPECT_EQ(GetErrorKind(session.Receive("h1 OK begin\r\n* CAPABILITY AUTH=PLAIN\r\n")), ErrorKind::kProtocol);
}

TEST(Session, AnAnswerToStartTlsBeforeItWasSentIsAnInjection) {
  for (const char* early : {"* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\nh1 OK begin\r\n",
                            "* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\nh1 OK begin\r\n* OK [CAPABILITY AUTH=LOGIN ",
                            "* OK hi\r\n* CAPABILITY STARTTLS\r\nh1 OK\r\nh2 OK begin\r\n* X {100}\r\n"}) {
    Session session(Options(Encryption::kStartTls));
    EXPECT_EQ(GetErrorKind(session.Receive(early)), ErrorKind::kProtocol) << early;
    EXPECT_NE(session.phase(), Session::Phase::kNeedTls);
  }
}

TEST(Session, NotOneByteBehindStartTlsIsKeptForTheTimeAfterIt) {
  Session session(Options(Encryption::kStartTls));
  ASSERT_TRUE(session.Receive("* OK hi\r\n").ok());
  session.TakeOutput();
  ASSERT_TRUE(session.Receive("* CAPABILITY STARTTLS\r\nh1 OK\r\n").ok());
  session.TakeOutput();
  EXPECT_EQ(GetErrorKind(session.Receive("h2 OK begin\r\n* CAP")), ErrorKind::kProtocol);
}

TEST(Session, PreauthAndByeAreRefused) {
  Session preauth(Options(Encryption::kStartTls));
  EXPECT_EQ(GetErrorKind(preauth.Receive("* PREAUTH welcome\r\n")), ErrorKind::kProtocol);
  Session bye(Options(Encryption::kTls));
  const absl::Status status = bye.Receive("* BYE too many connections\r\n");
  EXPECT_EQ(GetErrorKind(status), ErrorKind::kServerBye);
  EXPECT_NE(std::string(status.message()).find("too many connections"), std::string::npos);
}

TEST(Session, ARejectedPasswordIsToldFromATroubledServer) {
  for (const auto& [answer, kind] : std::vector<std::pair<std::string, ErrorKind>>{
           {"h1 NO [AUTHENTICATIONFAILED] wrong\r\n", ErrorKind::kAuthRejected},
           {"h1 NO nope\r\n", ErrorKind::kAuthRejected},
           {"h1 NO [UNAVAILABLE] later\r\n", ErrorKind::kServerRefused},
           {"h1 BAD what\r\n", ErrorKind::kServerRefused}}) {
    Session session(Options(Encryption::kTls));
    session.TlsStarted();
    ASSERT_TRUE(session.Receive("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hi\r\n").ok());
    const absl::Status status = session.Receive(answer);
    EXPECT_EQ(GetErrorKind(status), kind) << answer;
    EXPECT_EQ(std::string(status.message()).find("secret"), std::string::npos);
  }
}

TEST(Session, AServerThatRepeatsOurSignInDoesNotGetThePasswordIntoAnError) {
  for (const char* answer : {"h1 NO AGpvZQBzZWNyZXQ= is wrong\r\n", "h1 NO joe with secret is wrong\r\n",
                             "h1 BAD Error in command AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=\r\n", "h1 NO (c2VjcmV0)\r\n",
                             "* BYE s\\\"ecret, \"s\\\"ecret\"\r\n"}) {
    SessionOptions options = Options(Encryption::kTls);
    const bool quoted = std::string_view(answer).find("BYE") != std::string_view::npos;
    options.password = SecretString(quoted ? "s\"ecret" : "secret");
    Session session(options);
    session.TlsStarted();
    ASSERT_TRUE(session.Receive("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hi\r\n").ok());
    const absl::Status refused = session.Receive(answer);
    ASSERT_FALSE(refused.ok());
    const std::string message(refused.message());
    EXPECT_NE(message.find("***"), std::string::npos) << message;
    for (const char* form : {"ecret", "AGpvZQBzZWNyZXQ=", "c2VjcmV0"}) {
      EXPECT_EQ(message.find(form), std::string::npos) << message;
    }
  }
}

TEST(Session, PipelinedCommandsAreAnsweredByTheirTags) {
  Session session(Options(Encryption::kTls));
  session.TlsStarted();
  ASSERT_TRUE(session.Receive("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hi\r\nh1 OK in\r\n").ok());
  session.TakeOutput();
  const std::string a = session.Send("NOOP");
  const std::string b = session.Send("NOOP");
  ASSERT_TRUE(session.Receive(b + " NO [LIMIT] no\r\n" + a + " OK\r\n").ok());
  absl::Status result;
  EXPECT_TRUE(session.Done(a, result));
  EXPECT_TRUE(result.ok());
  EXPECT_TRUE(session.Done(b, result));
  EXPECT_EQ(GetErrorKind(result), ErrorKind::kServerRefused);
  EXPECT_FALSE(session.Receive("zz OK\r\n").ok());
}

TEST(Session, TheHandshakeCutAnywhereNeverCrashes) {
  const std::string transcript = "* OK hi\r\n* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\nh1 OK\r\nh2 OK in\r\n";
  for (size_t i = 0; i <= transcript.size(); ++i) {
    Session session(Options(Encryption::kTls));
    session.TlsStarted();
    for (size_t j = 0; j < i; ++j) ASSERT_TRUE(session.Receive(transcript.substr(j, 1)).ok());
    EXPECT_EQ(session.phase() == Session::Phase::kReady, i == transcript.size());
  }
}

}  // namespace
}  // namespace poststelle::imap
