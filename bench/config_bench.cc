// The client side of `bench/run config`, and the server to compare with.
//
// config_bench --mode echo                            serves; prints its address; ends with standard input
// config_bench --mode load --targets A --call get|list|empty [--concurrency N] [--seconds S]
// config_bench --mode fill --targets A --mailboxes N  creates them, disabled
// config_bench --mode watch --targets A,B [--watchers N] [--changes N] [--pause-ms N]
// config_bench --mode sync --targets A [--resume TOKEN]
// config_bench --mode change --targets A --changes N  changes the first N mailboxes, each once
//
// `echo` answers GetMailbox with an empty message: callback API, no interceptors, no work. `load` keeps N calls in
// flight on a few connections; `empty` is `get` for the echo. `watch` spreads watchers over the targets, a connection
// each, and makes the changes one after the other, by turns at each target: a latency is from before the call of the
// update to the moment when one watcher has the change. `sync` watches until it is told that it has everything. Prints
// one JSON object; exits with 1 if something was lost or failed.
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "poststelle/config/v1/mailbox_service.grpc.pb.h"

namespace poststelle::config {
namespace {

using Clock = std::chrono::steady_clock;
using Service = v1::MailboxService;

struct Options {
  std::string mode;
  std::vector<std::string> targets;
  std::string call = "get";
  std::string token;  // what callers say who they are with
  std::string resume;
  int concurrency = 64;
  double seconds = 3;
  int mailboxes = 1000;
  int watchers = 100;
  int changes = 200;
  int pause_ms = 10;
};

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "config_bench: %s\n", what.c_str());
  std::_Exit(1);  // calls may be under way
}

void Check(const grpc::Status& status, const char* what) {
  if (!status.ok()) Die(absl::StrCat(what, ": ", status.error_message(), " (", status.error_code(), ")"));
}

// A connection of its own, whatever others go to the same place.
std::shared_ptr<grpc::Channel> Connect(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

void Identify(const Options& o, grpc::ClientContext& context) {
  if (!o.token.empty()) context.AddMetadata("authorization", absl::StrCat("Bearer ", o.token));
}

std::string NameOf(int number) { return absl::StrCat("mailboxes/bench-", number); }

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// In milliseconds; sorts.
double Percentile(std::vector<double>& values, double part) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(part * static_cast<double>(values.size())))] * 1e3;
}

class EchoService : public Service::CallbackService {
  grpc::ServerUnaryReactor* GetMailbox(grpc::CallbackServerContext* context, const v1::GetMailboxRequest*,
                                       v1::GetMailboxResponse*) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

int Echo() {
  EchoService service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) Die("can't serve");
  std::printf("127.0.0.1:%d\n", port);
  std::fflush(stdout);
  while (std::cin.get() != std::char_traits<char>::eof()) continue;
  server->Shutdown();
  return 0;
}

// Waits until so many parts are over.
class Countdown {
 public:
  explicit Countdown(int parts) : left_(parts) {}
  void Done() {
    const std::lock_guard lock(mutex_);
    if (--left_ == 0) changed_.notify_all();
  }
  bool Wait(std::chrono::seconds limit) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, limit, [this] { return left_ <= 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int left_;  // guarded by mutex_
};

// One of the calls that are in flight all the time.
class Caller {
 public:
  Caller(const Options& o, std::shared_ptr<grpc::Channel> channel, Clock::time_point end, int first, Countdown& over)
      : o_(o), stub_(Service::NewStub(channel)), end_(end), next_(first), over_(over) {}

  void Start() {
    context_ = std::make_unique<grpc::ClientContext>();
    Identify(o_, *context_);
    begin_ = Clock::now();
    const auto done = [this](const grpc::Status& status) { Finished(status); };
    if (o_.call == "list") {
      stub_->async()->ListMailboxes(context_.get(), &list_, &listed_, done);
    } else {
      get_.set_name(NameOf(next_ = (next_ + 1) % o_.mailboxes));
      stub_->async()->GetMailbox(context_.get(), &get_, &got_, done);
    }
  }

  std::vector<double> latencies;  // in seconds; to be read when all is over

 private:
  void Finished(const grpc::Status& status) {
    Check(status, o_.call.c_str());
    const Clock::time_point now = Clock::now();
    latencies.push_back(Seconds(now - begin_));
    if (now < end_) {
      Start();
    } else {
      over_.Done();
    }
  }

  const Options& o_;
  const std::unique_ptr<Service::Stub> stub_;
  const Clock::time_point end_;
  int next_;
  Countdown& over_;
  Clock::time_point begin_;
  std::unique_ptr<grpc::ClientContext> context_;
  v1::GetMailboxRequest get_;
  v1::GetMailboxResponse got_;
  v1::ListMailboxesRequest list_;
  v1::ListMailboxesResponse listed_;
};

int Load(const Options& o) {
  constexpr int kConnections = 4;
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (int i = 0; i < kConnections; ++i) channels.push_back(Connect(o.targets.at(0)));
  for (const auto& channel : channels) {
    if (!channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(30))) Die("can't connect");
  }
  Countdown over(o.concurrency);
  const Clock::time_point begin = Clock::now();
  const Clock::time_point end = begin + std::chrono::milliseconds(static_cast<int64_t>(o.seconds * 1000));
  std::vector<std::unique_ptr<Caller>> callers;
  for (int i = 0; i < o.concurrency; ++i) {
    callers.push_back(std::make_unique<Caller>(o, channels[static_cast<size_t>(i) % channels.size()], end,
                                               i * o.mailboxes / o.concurrency, over));
  }
  for (const auto& caller : callers) caller->Start();
  if (!over.Wait(std::chrono::seconds(120))) Die("calls hang");
  const double seconds = Seconds(Clock::now() - begin);
  std::vector<double> all;
  for (const auto& caller : callers) all.insert(all.end(), caller->latencies.begin(), caller->latencies.end());
  std::printf("{\"calls\": %zu, \"per_s\": %.1f, \"p50_ms\": %.3f, \"p99_ms\": %.3f}\n", all.size(),
              static_cast<double>(all.size()) / seconds, Percentile(all, 0.5), Percentile(all, 0.99));
  return 0;
}

v1::Mailbox MailboxOf(int number) {
  v1::Mailbox mailbox;
  mailbox.set_name(NameOf(number));
  mailbox.set_display_name(absl::StrCat("Support ", number));
  mailbox.set_direction(v1::Mailbox::DIRECTION_INBOUND);
  mailbox.set_address(absl::StrCat("support", number, "@example.org"));
  mailbox.mutable_connection()->set_protocol(v1::Connection::PROTOCOL_IMAP);
  mailbox.mutable_connection()->set_host("imap.example.org");
  mailbox.mutable_password_authentication()->set_password("a password of usual length");
  (*mailbox.mutable_labels())["team"] = absl::StrCat("team ", number % 20);
  return mailbox;
}

int Fill(const Options& o) {
  constexpr int kThreads = 32;
  const Clock::time_point begin = Clock::now();
  const auto stub = Service::NewStub(Connect(o.targets.at(0)));
  std::atomic<int> next{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int number = next++; number < o.mailboxes; number = next++) {
        v1::CreateMailboxRequest request;
        *request.mutable_mailbox() = MailboxOf(number);
        request.set_mailbox_id(absl::StrCat("bench-", number));
        grpc::ClientContext context;
        Identify(o, context);
        v1::CreateMailboxResponse response;
        Check(stub->CreateMailbox(&context, request, &response), "create");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("{\"mailboxes\": %d, \"seconds\": %.2f}\n", o.mailboxes, Seconds(Clock::now() - begin));
  return 0;
}

// Gives a mailbox a label with that value.
void Change(const Options& o, Service::Stub& stub, int mailbox, const std::string& value) {
  v1::UpdateMailboxRequest request;
  request.mutable_mailbox()->set_name(NameOf(mailbox));
  (*request.mutable_mailbox()->mutable_labels())["change"] = value;
  request.mutable_update_mask()->add_paths("labels");
  grpc::ClientContext context;
  Identify(o, context);
  v1::UpdateMailboxResponse response;
  Check(stub.UpdateMailbox(&context, request, &response), "update");
}

// What the changes of this run are told by.
class ChangeLog {
 public:
  explicit ChangeLog(int changes) : begun_(static_cast<size_t>(changes)) {
    const auto now = Clock::now().time_since_epoch();
    run_ = absl::StrCat("run", std::chrono::duration_cast<std::chrono::microseconds>(now).count(), ".");
  }
  std::string Begin(int change) {
    begun_[static_cast<size_t>(change)].store(Clock::now().time_since_epoch().count());
    return absl::StrCat(run_, change);
  }
  // Seconds since then; negative if it is none of this run.
  double Age(const v1::Mailbox& mailbox) const {
    const auto label = mailbox.labels().find("change");
    if (label == mailbox.labels().end() || label->second.compare(0, run_.size(), run_) != 0) return -1;
    const auto change = static_cast<size_t>(std::atol(label->second.c_str() + run_.size()));
    const Clock::duration begun(begun_.at(change).load());
    return Seconds(Clock::now().time_since_epoch() - begun);
  }

 private:
  std::string run_;
  std::vector<std::atomic<Clock::rep>> begun_;
};

// Follows the changes on a connection of its own.
class Watcher : public grpc::ClientReadReactor<v1::WatchMailboxesResponse> {
 public:
  Watcher(const Options& o, const std::string& target, const std::string& resume, const ChangeLog* log)
      : changes_(o.changes), log_(log), stub_(Service::NewStub(Connect(target))) {
    request_.set_resume_token(resume);
    Identify(o, context_);
    stub_->async()->WatchMailboxes(&context_, &request_, this);
    StartRead(&step_);
    StartCall();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (step_.has_synced()) {
      token = step_.resume_token();
      if (!caught_up_) synced.Done();
      caught_up_ = true;
    } else {
      bytes += step_.ByteSizeLong();
      ++steps;
      const double age = log_ == nullptr ? -1 : log_->Age(step_.upserted());
      if (age >= 0) {
        latencies.push_back(age);
        if (static_cast<int>(latencies.size()) == changes_) complete.Done();
      }
    }
    StartRead(&step_);
  }
  void OnDone(const grpc::Status& status) override {
    if (!leaving_) Check(status, "watch");
    over_.Done();
  }
  void Leave() {
    leaving_ = true;
    context_.TryCancel();
    over_.Wait(std::chrono::seconds(30));
  }

  Countdown synced{1}, complete{1};
  // To be read when one of these is over.
  std::vector<double> latencies;
  int steps = 0;
  size_t bytes = 0;
  std::string token;

 private:
  const int changes_;
  const ChangeLog* const log_;
  const std::unique_ptr<Service::Stub> stub_;
  grpc::ClientContext context_;
  v1::WatchMailboxesRequest request_;
  v1::WatchMailboxesResponse step_;
  bool caught_up_ = false;
  std::atomic<bool> leaving_{false};
  Countdown over_{1};
};

int Watch(const Options& o) {
  constexpr std::chrono::seconds kLimit(120);
  ChangeLog log(o.changes);
  std::vector<std::unique_ptr<Watcher>> watchers;
  // All but the first come back with its token: how long the first sync of so many takes is not the question here.
  std::string token = o.resume;
  for (int i = 0; i < o.watchers; ++i) {
    watchers.push_back(std::make_unique<Watcher>(o, o.targets[static_cast<size_t>(i) % o.targets.size()], token, &log));
    if (!watchers.back()->synced.Wait(kLimit)) Die("a watcher does not come to see everything");
    if (i == 0) token = watchers[0]->token;
  }
  std::vector<std::unique_ptr<Service::Stub>> writers;
  for (const std::string& target : o.targets) writers.push_back(Service::NewStub(Connect(target)));
  std::vector<double> updates;
  for (int change = 0; change < o.changes; ++change) {
    const Clock::time_point begin = Clock::now();
    Change(o, *writers[static_cast<size_t>(change) % writers.size()], change % o.mailboxes, log.Begin(change));
    updates.push_back(Seconds(Clock::now() - begin));
    std::this_thread::sleep_for(std::chrono::milliseconds(o.pause_ms));
  }
  std::vector<double> all;
  for (const auto& watcher : watchers) {
    if (!watcher->complete.Wait(kLimit)) Die("a watcher misses a change");
    watcher->Leave();
    all.insert(all.end(), watcher->latencies.begin(), watcher->latencies.end());
  }
  std::printf(
      "{\"watchers\": %d, \"changes\": %d, \"seen\": %zu, \"p50_ms\": %.2f, \"p99_ms\": %.2f, \"max_ms\": %.2f, "
      "\"update_p50_ms\": %.2f, \"update_p99_ms\": %.2f}\n",
      o.watchers, o.changes, all.size(), Percentile(all, 0.5), Percentile(all, 0.99), Percentile(all, 1),
      Percentile(updates, 0.5), Percentile(updates, 0.99));
  return 0;
}

int Sync(const Options& o) {
  const Clock::time_point begin = Clock::now();
  Watcher watcher(o, o.targets.at(0), o.resume, nullptr);
  if (!watcher.synced.Wait(std::chrono::seconds(120))) Die("it does not come to see everything");
  const double seconds = Seconds(Clock::now() - begin);
  watcher.Leave();
  std::printf("{\"steps\": %d, \"bytes\": %zu, \"seconds\": %.4f, \"token\": \"%s\"}\n", watcher.steps, watcher.bytes,
              seconds, watcher.token.c_str());
  return 0;
}

int ChangeSome(const Options& o) {
  const auto stub = Service::NewStub(Connect(o.targets.at(0)));
  ChangeLog log(o.changes);
  for (int change = 0; change < o.changes; ++change) Change(o, *stub, change % o.mailboxes, log.Begin(change));
  std::printf("{\"changes\": %d}\n", o.changes);
  return 0;
}

std::string ReadToken(const std::string& path) {
  std::ifstream in(path);
  std::string token;
  if (!(in >> token)) Die(absl::StrCat("can't read ", path));
  return token;
}

Options Parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const std::string value = argv[i + 1];
    if (name == "--mode") {
      o.mode = value;
    } else if (name == "--targets") {
      o.targets = absl::StrSplit(value, ',');
    } else if (name == "--call") {
      o.call = value;
    } else if (name == "--token-file") {
      o.token = ReadToken(value);
    } else if (name == "--resume") {
      o.resume = value;
    } else if (name == "--concurrency") {
      o.concurrency = std::atoi(argv[i + 1]);
    } else if (name == "--seconds") {
      o.seconds = std::atof(argv[i + 1]);
    } else if (name == "--mailboxes") {
      o.mailboxes = std::atoi(argv[i + 1]);
    } else if (name == "--watchers") {
      o.watchers = std::atoi(argv[i + 1]);
    } else if (name == "--changes") {
      o.changes = std::atoi(argv[i + 1]);
    } else if (name == "--pause-ms") {
      o.pause_ms = std::atoi(argv[i + 1]);
    } else {
      Die(absl::StrCat("unknown option ", argv[i]));
    }
  }
  if (o.mode != "echo" && o.targets.empty()) Die("--targets is missing");
  return o;
}

int Main(int argc, char** argv) {
  const Options o = Parse(argc, argv);
  if (o.mode == "echo") return Echo();
  if (o.mode == "load") return Load(o);
  if (o.mode == "fill") return Fill(o);
  if (o.mode == "watch") return Watch(o);
  if (o.mode == "sync") return Sync(o);
  if (o.mode == "change") return ChangeSome(o);
  Die("--mode is echo, load, fill, watch, sync or change");
}

}  // namespace
}  // namespace poststelle::config

int main(int argc, char** argv) { return poststelle::config::Main(argc, argv); }
