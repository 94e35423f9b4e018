// The server's own ceiling: an IMAP client over TLS that sends everything in one packet, throws the bytes away and
// keeps nothing. What any real client can do is measured against it.
//
// imap_ceiling --port N --ca FILE --password TEXT --accounts FILE [--sessions N] [--mode fetch|poll] [--polls N]
//              [--no-resume]
// fetch: downloads every message of every account once. poll: asks every account, round and round, whether there is
// anything new, --polls times. Prints one JSON line. One thread a session, blocking I/O.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

struct Options {
  uint16_t port = 0;
  std::string ca;
  std::string password;
  std::vector<std::string> accounts;
  size_t sessions = 1;
  bool poll = false;
  bool resume = true;
  size_t polls = 0;
};

struct Totals {
  std::atomic<size_t> next{0};  // of the account, or the poll, that nobody has taken yet
  std::atomic<uint64_t> mails{0};
  std::atomic<uint64_t> bytes{0};
  std::atomic<uint64_t> polls{0};
  std::atomic<uint64_t> resumed{0};
};

[[noreturn]] void Die(const std::string& what) {
  std::cerr << "imap_ceiling: " << what << "\n";
  std::_Exit(1);
}

// Follows the answers just far enough to tell bodies from lines.
class Reader {
 public:
  void Feed(std::string_view bytes) {
    while (!bytes.empty()) {
      if (literal_left_ > 0) {
        const size_t part = std::min<uint64_t>(literal_left_, bytes.size());
        literal_left_ -= part;
        bytes.remove_prefix(part);
        continue;
      }
      const size_t end = bytes.find('\n');
      line_.append(bytes.substr(0, end == std::string_view::npos ? bytes.size() : end + 1));
      bytes.remove_prefix(end == std::string_view::npos ? bytes.size() : end + 1);
      if (line_.ends_with('\n')) EndOfLine();
    }
  }
  uint64_t mails = 0;
  uint64_t bytes = 0;
  bool refused = false;
  bool done = false;  // the command tagged "z" was answered
  std::string last;

 private:
  void EndOfLine() {
    if (line_.ends_with("}\r\n")) {
      const size_t open = line_.rfind('{') + 1;
      std::from_chars(line_.data() + open, line_.data() + line_.size(), literal_left_);
      if (line_.find(" FETCH ") != std::string::npos) ++mails;
      bytes += literal_left_;
    } else if (line_.size() > 4 && line_[0] != '*' && line_[1] == ' ') {
      if (line_.compare(2, 2, "OK") != 0) refused = true;
      if (line_[0] == 'z') done = true;
      last = line_;
    }
    line_.clear();
  }
  std::string line_;
  uint64_t literal_left_ = 0;
};

// One session after the other, each on a connection of its own.
class Client {
 public:
  Client(const Options& options, Totals& totals) : options_(options), totals_(totals), context_(MakeContext(options)) {
    SSL_CTX_set_session_cache_mode(context_.get(), SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_set_app_data(context_.get(), this);
    SSL_CTX_sess_set_new_cb(context_.get(), [](SSL* ssl, SSL_SESSION* session) {
      static_cast<Client*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)))->session_.reset(session);
      return 1;
    });
  }

  void Run(const std::string& account) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(options_.port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) Die("no connection");
    std::unique_ptr<SSL, decltype(&SSL_free)> ssl(SSL_new(context_.get()), SSL_free);
    SSL_set_fd(ssl.get(), fd);
    SSL_set1_host(ssl.get(), "localhost");
    SSL_set_tlsext_host_name(ssl.get(), "localhost");
    if (options_.resume && session_) SSL_set_session(ssl.get(), session_.get());
    if (SSL_connect(ssl.get()) != 1) Die("no TLS");
    if (SSL_session_reused(ssl.get())) ++totals_.resumed;
    // All in one packet. LOGOUT only where nothing large is under way: behind a FETCH some servers cut the end of it.
    std::string all = "a LOGIN \"" + account + "\" \"" + options_.password + "\"\r\nb EXAMINE INBOX\r\n";
    all += options_.poll ? "c UID SEARCH UID 1000000:*\r\nz LOGOUT\r\n" : "z UID FETCH 1:* (UID BODY.PEEK[])\r\n";
    if (SSL_write(ssl.get(), all.data(), static_cast<int>(all.size())) <= 0) Die("the server closed the connection");
    Reader reader;
    std::vector<char> buffer(64 << 10);
    while (!reader.done) {
      const int got = SSL_read(ssl.get(), buffer.data(), static_cast<int>(buffer.size()));
      if (got <= 0) Die("the server closed the connection within an answer; the last one was: " + reader.last);
      reader.Feed({buffer.data(), static_cast<size_t>(got)});
    }
    if (reader.refused) Die("refused: " + reader.last);
    if (!options_.poll) SSL_write(ssl.get(), "q LOGOUT\r\n", 10);
    SSL_shutdown(ssl.get());
    close(fd);
    totals_.mails += reader.mails;
    totals_.bytes += reader.bytes;
  }

 private:
  using Context = std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)>;
  static Context MakeContext(const Options& options) {
    Context context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
    if (SSL_CTX_load_verify_locations(context.get(), options.ca.c_str(), nullptr) != 1) Die("--ca: unreadable");
    SSL_CTX_set_read_ahead(context.get(), 1);
    SSL_CTX_set_default_read_buffer_len(context.get(), 64 << 10);
    return context;
  }

  const Options& options_;
  Totals& totals_;
  Context context_;
  std::unique_ptr<SSL_SESSION, decltype(&SSL_SESSION_free)> session_{nullptr, SSL_SESSION_free};
};

// getrusage() would tell that of the program that started us as well.
double PeakMegabytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::strtod(line.c_str() + 6, nullptr) / 1024;
  }
  return 0;
}

double Seconds(const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; }

Options Parse(int argc, char** argv) {
  std::map<std::string, std::string> given;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--no-resume") {
      given[name] = "1";
    } else if (i + 1 < argc) {
      given[name] = argv[++i];
    }
  }
  Options options;
  options.port = static_cast<uint16_t>(std::atoi(given["--port"].c_str()));
  options.ca = given["--ca"];
  options.password = given["--password"];
  if (!given["--sessions"].empty()) options.sessions = std::strtoul(given["--sessions"].c_str(), nullptr, 10);
  options.poll = given["--mode"] == "poll";
  options.resume = given["--no-resume"].empty();
  options.polls = std::strtoul(given["--polls"].c_str(), nullptr, 10);
  std::ifstream file(given["--accounts"]);
  for (std::string line; std::getline(file, line);) options.accounts.push_back(line);
  if (options.port == 0 || options.accounts.empty()) Die("--port and --accounts are needed; see the top of the source");
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  Totals totals;
  const size_t turns = options.poll ? options.polls : options.accounts.size();
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (size_t i = 0; i < options.sessions; ++i) {
    threads.emplace_back([&] {
      Client client(options, totals);
      for (size_t turn = totals.next++; turn < turns; turn = totals.next++) {
        client.Run(options.accounts[turn % options.accounts.size()]);
        ++totals.polls;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf(
      "{\"seconds\":%.3f,\"cpu\":%.3f,\"rss_mb\":%.1f,\"mails\":%llu,\"bytes\":%llu,\"polls\":%llu,\"resumed\":%llu}\n",
      took.count(), Seconds(usage.ru_utime) + Seconds(usage.ru_stime), PeakMegabytes(),
      static_cast<unsigned long long>(totals.mails), static_cast<unsigned long long>(totals.bytes),
      static_cast<unsigned long long>(totals.polls), static_cast<unsigned long long>(totals.resumed));
  return 0;
}
