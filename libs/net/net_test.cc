// Names, connections and certificates against a real TLS server (openssl s_server) on this machine.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <optional>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/async/runtime.h"
#include "libs/base/ids.h"
#include "libs/net/certificate.h"
#include "libs/net/dialer.h"
#include "libs/net/resolver.h"
#include "libs/testing/scripted_server.h"

namespace poststelle::net {
namespace {

using async::Task;

// A socket that listens and never answers; its port is free for nobody else.
class SilentServer {
 public:
  SilentServer() : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(fd_, 8), 0);
    socklen_t size = sizeof address;
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  ~SilentServer() { Close(); }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  uint16_t port() const { return port_; }

 private:
  int fd_;
  uint16_t port_ = 0;
};

class NetTest : public ::testing::Test {
 protected:
  NetTest() : directory_(std::filesystem::temp_directory_path() / ("poststelle-net-" + RandomId())) {
    std::filesystem::create_directory(directory_);
  }
  ~NetTest() override {
    if (server_ > 0) {
      kill(server_, SIGKILL);
      waitpid(server_, nullptr, 0);
    }
    std::filesystem::remove_all(directory_);
  }

  void Shell(const std::string& command) {
    const std::string all = "cd " + directory_.string() + " && (" + command + ") >/dev/null 2>&1";
    ASSERT_EQ(std::system(all.c_str()), 0) << command;
  }

  // A private authority and a server certificate for `name`, valid for `days` (negative: expired).
  void MakeCertificate(const std::string& name, int days) {
    Shell(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 10 "
        "-subj "
        "/CN=test-ca");
    Shell("openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout s.key -out s.csr -subj /CN=server");
    std::ofstream(directory_ / "ext") << "subjectAltName=DNS:" << name << "\n";
    const std::string validity = days > 0 ? "-days " + std::to_string(days) : "-days -1";
    Shell("openssl x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile ext -out s.pem " + validity);
  }

  // Starts `openssl s_server`, which echoes lines in reverse (-rev).
  uint16_t StartServer() {
    SilentServer free_port;
    const uint16_t port = free_port.port();
    free_port.Close();
    server_ = fork();
    if (server_ == 0) {
      if (chdir(directory_.c_str()) != 0) _exit(1);
      if (freopen("/dev/null", "w", stdout) == nullptr || freopen("/dev/null", "w", stderr) == nullptr) _exit(1);
      execlp("openssl", "openssl", "s_server", "-accept", ("127.0.0.1:" + std::to_string(port)).c_str(), "-cert",
             "s.pem", "-key", "s.key", "-rev", nullptr);
      _exit(1);
    }
    for (int i = 0; i < 200; ++i) {
      if (Try(port, "", false).ok()) return port;
      usleep(20'000);
    }
    ADD_FAILURE() << "openssl s_server did not start";
    return port;
  }

  std::string Ca() const {
    std::stringstream text;
    text << std::ifstream(directory_ / "ca.pem").rdbuf();
    return text.str();
  }

  Task<void> Connect(uint16_t port, TlsOptions options, bool tls, std::optional<absl::Status>& out) {
    auto stream = co_await dialer_->Dial("localhost", port, absl::Seconds(5));
    if (!stream.ok()) {
      out = stream.status();
      co_return;
    }
    if (!tls) {
      out = absl::OkStatus();
      co_return;
    }
    absl::Status started = co_await (*stream)->StartTls(options, absl::Milliseconds(1500));
    if (!started.ok()) {
      out = started;
      co_return;
    }
    absl::Status written = co_await (*stream)->Write("abc\n", absl::Seconds(5));
    std::string line;
    char buffer[64];
    while (written.ok() && line.find('\n') == std::string::npos) {
      auto got = co_await (*stream)->ReadSome(buffer, sizeof buffer, absl::Seconds(5));
      if (!got.ok()) {
        written = got.status();
        break;
      }
      line.append(buffer, *got);
    }
    if (written.ok() && line != "cba\n") written = absl::InternalError("unexpected answer " + line);
    out = written;
  }

  absl::Status Try(uint16_t port, const std::string& name, bool tls, bool trust = true) {
    TlsOptions options;
    options.server_name = name;
    if (trust && tls) options.ca_certificates_pem = Ca();
    std::optional<absl::Status> out;
    async::RunBlocking(runtime_.executor(), Connect(port, options, tls, out));
    return *out;
  }

  std::filesystem::path directory_;
  pid_t server_ = -1;
  async::Runtime runtime_{2};
  std::unique_ptr<Dialer> dialer_ = MakeTcpDialer(MakeResolver(runtime_.executor()), EgressPolicy::Unrestricted());
};

TEST_F(NetTest, ATrustedServerIsSpokenToAndItsSessionResumed) {
  MakeCertificate("mail.test", 5);
  const uint16_t port = StartServer();
  for (int i = 0; i < 3; ++i) {
    const absl::Status status = Try(port, "mail.test", true);
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST_F(NetTest, AnotherNameIsRefused) {
  MakeCertificate("mail.test", 5);
  const absl::Status status = Try(StartServer(), "other.test", true);
  EXPECT_EQ(GetNetError(status), NetError::kCertificateName) << status;
  EXPECT_NE(std::string(status.message()).find("other.test"), std::string::npos);
}

TEST_F(NetTest, WithoutANameNoCertificateIsTaken) {
  MakeCertificate("mail.test", 5);
  EXPECT_EQ(GetNetError(Try(StartServer(), "", true)), NetError::kTls);
}

TEST_F(NetTest, AnUnknownIssuerIsRefused) {
  MakeCertificate("mail.test", 5);
  EXPECT_EQ(GetNetError(Try(StartServer(), "mail.test", true, false)), NetError::kCertificateIssuer);
}

TEST_F(NetTest, AnExpiredCertificateIsRefused) {
  MakeCertificate("mail.test", -1);
  const absl::Status status = Try(StartServer(), "mail.test", true);
  EXPECT_EQ(GetNetError(status), NetError::kCertificateExpired) << status;
}

TEST_F(NetTest, WhatTheRefusedCertificateSaysGoesWithTheError) {
  MakeCertificate("mail.test", -1);
  const std::optional<Certificate> certificate = GetCertificate(Try(StartServer(), "mail.test", true));
  ASSERT_TRUE(certificate);
  EXPECT_EQ(certificate->subject, "server");
  EXPECT_EQ(certificate->issuer, "test-ca");
  EXPECT_EQ(certificate->dns_names, std::vector<std::string>{"mail.test"});
  EXPECT_LT(certificate->not_after, absl::ToUnixSeconds(absl::Now()));
  EXPECT_EQ(certificate->key_sha256.size(), 64u);
}

TEST_F(NetTest, APinnedKeyIsAllThatIsLookedAt) {
  MakeCertificate("mail.test", -1);
  const uint16_t port = StartServer();
  TlsOptions options;
  options.server_name = "other.test";
  options.pinned_key_sha256 = std::string(64, '0');
  std::optional<absl::Status> out;
  async::RunBlocking(runtime_.executor(), Connect(port, options, true, out));
  EXPECT_EQ(GetNetError(*out), NetError::kCertificateKey) << *out;
  const std::optional<Certificate> shown = GetCertificate(*out);
  ASSERT_TRUE(shown);
  // What openssl says the pin is.
  Shell("openssl x509 -in s.pem -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum > pin");
  std::string pin;
  std::ifstream(directory_ / "pin") >> pin;
  EXPECT_EQ(shown->key_sha256, pin);
  options.pinned_key_sha256 = pin;
  for (int i = 0; i < 2; ++i) {  // the second resumes the session
    async::RunBlocking(runtime_.executor(), Connect(port, options, true, out));
    EXPECT_TRUE(out->ok()) << *out;
  }
}

TEST_F(NetTest, AServerThatSaysNothingInTheHandshakeTimesOut) {
  MakeCertificate("mail.test", 5);
  SilentServer silent;
  EXPECT_EQ(GetNetError(Try(silent.port(), "mail.test", true)), NetError::kTimeout);
}

TEST_F(NetTest, ARefusedPortNamesHostAndPort) {
  SilentServer taken;
  taken.Close();
  const absl::Status status = Try(taken.port(), "", false);
  EXPECT_EQ(GetNetError(status), NetError::kConnect);
  EXPECT_NE(std::string(status.message()).find("localhost port " + std::to_string(taken.port())), std::string::npos)
      << status;
}

Task<void> DialName(Dialer& dialer, std::string host, std::optional<absl::Status>& out) {
  auto stream = co_await dialer.Dial(host, 143, absl::Seconds(8));
  out = stream.status();
}

TEST_F(NetTest, NamesResolveWithMoreThanAThousandDescriptorsOpen) {
  constexpr rlim_t kOpen = 1100;
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit wanted{std::max<rlim_t>(before.rlim_cur, kOpen + 100), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &wanted), 0);
  std::vector<int> open;
  for (rlim_t i = 0; i < kOpen; ++i) open.push_back(dup(STDERR_FILENO));
  EXPECT_GE(open.back(), static_cast<int>(kOpen));
  {
    const std::unique_ptr<Resolver> resolver = MakeResolver(runtime_.executor());
    std::optional<absl::Status> out;
    auto look = [](Resolver& r, std::optional<absl::Status>& result) -> Task<void> {
      result = (co_await r.Resolve("localhost", absl::Seconds(30))).status();
    };
    async::RunBlocking(runtime_.executor(), look(*resolver, out));
    EXPECT_TRUE(out->ok()) << *out;
  }
  for (int fd : open) close(fd);
  setrlimit(RLIMIT_NOFILE, &before);
}

TEST_F(NetTest, AnUnknownNameSaysSoWithinTheDeadline) {
  std::optional<absl::Status> out;
  async::RunBlocking(runtime_.executor(), DialName(*dialer_, "no-such-host.invalid", out));
  EXPECT_TRUE(GetNetError(*out) == NetError::kResolve) << *out;
}

Task<void> Hang(Dialer& dialer, uint16_t port, std::optional<absl::Status>& out) {
  auto stream = co_await dialer.Dial("127.0.0.1", port, absl::Seconds(5));
  char buffer[8];
  auto got = co_await (*stream)->ReadSome(buffer, sizeof buffer, absl::Minutes(10));
  out = got.status();
}

// Wakes the stream before a read and during one; then bytes come, all of them.
Task<void> WakeReads(Dialer& dialer, uint16_t port, async::TaskScope& scope, std::optional<std::string>& out) {
  auto stream = co_await dialer.Dial("127.0.0.1", port, absl::Seconds(5));
  struct Later {
    static Task<void> Wake(Stream& stream) {
      absl::Status slept = co_await async::Sleep(absl::Milliseconds(20));
      if (slept.ok()) stream.Wake();
    }
  };
  char buffer[64];
  (*stream)->Wake();
  auto before = co_await (*stream)->ReadSome(buffer, sizeof buffer, absl::Minutes(1));
  scope.Spawn(Later::Wake(**stream));
  auto during = co_await (*stream)->ReadSome(buffer, sizeof buffer, absl::Minutes(1));
  absl::Status written = co_await (*stream)->Write("GET / HTTP/1.0\r\n\r\n", absl::Seconds(5));
  auto bytes = co_await (*stream)->ReadSome(buffer, sizeof buffer, absl::Minutes(1));
  out = before.value_or(99) == 0 && during.value_or(99) == 0 && written.ok() && bytes.ok()
            ? std::string(buffer, *bytes)
            : absl::StrCat(before.status().ToString(), during.status().ToString(), bytes.status().ToString());
}

TEST_F(NetTest, AWokenReadEndsWithNothingAndTheNextOneGoesOn) {
  poststelle::testing::ScriptedServer server([](poststelle::testing::ScriptedServer::Connection& c) {
    c.WaitForBytes();
    c.Write("hello");
    c.WaitForEnd();
  });
  std::optional<std::string> out;
  async::TaskScope scope(runtime_.executor());
  scope.Spawn(WakeReads(*dialer_, server.port(), scope, out));
  scope.JoinBlocking();
  EXPECT_EQ(*out, "hello");
}

// Takes more than is sent for certain before each read.
Task<void> ReadExpecting(Dialer& dialer, uint16_t port, size_t sent, std::optional<absl::Status>& out) {
  auto stream = co_await dialer.Dial("127.0.0.1", port, absl::Seconds(5));
  std::string buffer(64 << 10, '\0');
  while (sent > 0) {
    (*stream)->Expect(sent + (1 << 20));
    auto got = co_await (*stream)->ReadSome(buffer.data(), buffer.size(), absl::Minutes(1));
    out = got.status();
    if (!got.ok() || *got == 0 || *got > sent) co_return;
    sent -= *got;
  }
  // Nothing is expected any more: one byte is enough, and there is a deadline again.
  absl::Status written = co_await (*stream)->Write("x", absl::Seconds(5));
  auto last = co_await (*stream)->ReadSome(buffer.data(), buffer.size(), absl::Minutes(1));
  if (!written.ok() || last.value_or(0) != 1) co_return;
  (*stream)->Expect(1 << 20);
  out = (co_await (*stream)->ReadSome(buffer.data(), buffer.size(), absl::Milliseconds(300))).status();
}

// What does not come although it was expected neither hides what is there nor outlasts the deadline.
TEST_F(NetTest, WhatIsExpectedIsGatheredAndNotInsistedOn) {
  constexpr size_t kSent = 300'001;
  poststelle::testing::ScriptedServer server([](poststelle::testing::ScriptedServer::Connection& c) {
    c.Write(std::string(kSent, 'a'));
    c.WaitForBytes();
    c.Write("b");
    c.WaitForEnd();
  });
  std::optional<absl::Status> out;
  async::RunBlocking(runtime_.executor(), ReadExpecting(*dialer_, server.port(), kSent, out));
  EXPECT_EQ(GetNetError(*out), NetError::kTimeout) << *out;
}

// Dials, hands the stream over, and keeps its own strand busy until `go_on`.
Task<void> DialAndStay(Dialer& dialer, uint16_t port, std::promise<std::unique_ptr<Stream>>& out,
                       std::shared_future<void> go_on) {
  auto stream = co_await dialer.Dial("127.0.0.1", port, absl::Seconds(30));
  out.set_value(*std::move(stream));
  go_on.wait();
}

Task<void> ReadAfterWake(Stream& stream, bool wake, absl::Duration timeout, std::promise<absl::StatusOr<size_t>>& out) {
  char buffer[8];
  if (wake) stream.Wake();
  absl::StatusOr<size_t> got = co_await stream.ReadSome(buffer, sizeof buffer, timeout);
  out.set_value(std::move(got));
}

// What ends a wait belongs to the task that waits: the one that dialled may be at something else, or on another thread
// just between the look at the socket and the wait.
TEST_F(NetTest, AnotherTaskThanTheOneThatDialledIsWokenAndTimedOut) {
  SilentServer silent;
  std::promise<std::unique_ptr<Stream>> dialled;
  std::promise<void> go_on;
  async::TaskScope scope(runtime_.executor());
  scope.Spawn(DialAndStay(*dialer_, silent.port(), dialled, go_on.get_future().share()));
  const std::unique_ptr<Stream> stream = dialled.get_future().get();

  for (const bool wake : {true, false}) {
    std::promise<absl::StatusOr<size_t>> read;
    std::future<absl::StatusOr<size_t>> done = read.get_future();
    scope.Spawn(ReadAfterWake(*stream, wake, wake ? absl::Minutes(10) : absl::Milliseconds(50), read));
    const bool in_time = done.wait_for(std::chrono::seconds(30)) == std::future_status::ready;
    EXPECT_TRUE(in_time) << wake;
    if (!in_time) {
      go_on.set_value();
      scope.JoinBlocking();
      return;
    }
    const absl::StatusOr<size_t> got = done.get();
    if (wake) {
      EXPECT_EQ(got.value_or(99), 0u) << got.status();
    } else {
      EXPECT_EQ(GetNetError(got.status()), NetError::kTimeout) << got.status();
    }
  }
  go_on.set_value();
  scope.JoinBlocking();
}

constexpr int kReads = 20'000;

TEST_F(NetTest, NoWakeIsLostBetweenTwoTasks) {
  SilentServer silent;
  std::promise<std::unique_ptr<Stream>> dialled;
  std::promise<void> go_on;
  go_on.set_value();
  {
    async::TaskScope dialling(runtime_.executor());
    dialling.Spawn(DialAndStay(*dialer_, silent.port(), dialled, go_on.get_future().share()));
    dialling.JoinBlocking();
  }
  const std::unique_ptr<Stream> stream = dialled.get_future().get();
  // Each wake meets a read that is about to begin, or to wait, or waits.
  struct Reader {
    static Task<void> Run(Stream& stream, std::atomic<int>& reads, std::optional<absl::Status>& out) {
      char buffer[8];
      absl::StatusOr<size_t> got = 0;
      while (got.value_or(99) == 0 && reads < kReads) {
        ++reads;
        reads.notify_one();
        got = co_await stream.ReadSome(buffer, sizeof buffer, absl::Seconds(60));
      }
      out = got.status();
      reads = kReads + 1;
      reads.notify_one();
    }
  };
  std::atomic<int> reads{0};
  std::optional<absl::Status> out;
  async::TaskScope scope(runtime_.executor());
  scope.Spawn(Reader::Run(*stream, reads, out));
  for (int seen = 0; seen <= kReads;) {
    reads.wait(seen);
    seen = reads;
    stream->Wake();
  }
  scope.JoinBlocking();
  EXPECT_TRUE(out->ok()) << *out;
}

// Cancelled while it waits for something that can't be cancelled; then it would read for long.
Task<void> ReadAfterCancellation(Dialer& dialer, uint16_t port, asio::any_io_executor executor, async::TaskScope& scope,
                                 std::optional<absl::Status>& out) {
  auto stream = co_await dialer.Dial("127.0.0.1", port, absl::Seconds(30));
  scope.Cancel();
  struct Nothing {
    static Task<void> Do() { co_return; }
  };
  co_await async::RunOn(executor, Nothing::Do());
  char buffer[8];
  out = (co_await (*stream)->ReadSome(buffer, sizeof buffer, absl::Seconds(30))).status();
}

TEST_F(NetTest, ACancellationBeforeTheReadEndsItToo) {
  SilentServer silent;
  std::optional<absl::Status> out;
  async::TaskScope scope(runtime_.executor());
  scope.Spawn(ReadAfterCancellation(*dialer_, silent.port(), runtime_.executor(), scope, out));
  scope.JoinBlocking();
  EXPECT_EQ(GetNetError(*out), NetError::kCancelled) << *out;
}

TEST_F(NetTest, CancellingEndsAReadAtOnce) {
  SilentServer silent;
  std::optional<absl::Status> out;
  async::TaskScope scope(runtime_.executor());
  scope.Spawn(Hang(*dialer_, silent.port(), out));
  usleep(100'000);
  scope.Cancel();
  scope.JoinBlocking();
  EXPECT_EQ(GetNetError(*out), NetError::kCancelled);
}

}  // namespace
}  // namespace poststelle::net
