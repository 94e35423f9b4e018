#include "libs/rpc/server.h"

#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.pb.h"
#include "libs/base/process.h"
#include "libs/observe/log.h"
#include "libs/rpc/malformed.h"

namespace poststelle::rpc {
namespace {

constexpr auto kShutdownGrace = std::chrono::seconds(5);
constexpr absl::Duration kFirstPause = absl::Milliseconds(100);
constexpr absl::Duration kLongestPause = absl::Seconds(2);

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

// Renamed into place, so that whoever waits for the file never reads half of it.
bool WritePortFile(const std::string& path, const std::string& address) {
  const std::string temporary = path + ".tmp";
  {
    std::ofstream out(temporary);
    out << address << "\n";
    if (!out.flush()) return false;
  }
  return std::rename(temporary.c_str(), path.c_str()) == 0;
}

}  // namespace

// What Run waits for.
struct ServiceFrame::Life {
  std::mutex mutex;
  std::condition_variable changed;
  int signal = 0;                        // guarded by mutex
  std::optional<absl::Status> prepared;  // guarded by mutex

  // On a thread of its own, to the end of the process.
  static void AwaitSignals(std::shared_ptr<Life> life) {
    const sigset_t set = StopSignals();
    int signal = 0;
    sigwait(&set, &signal);
    {
      const std::lock_guard lock(life->mutex);
      life->signal = signal;
    }
    life->changed.notify_all();
    sigwait(&set, &signal);
    _exit(130);
  }

  static async::Task<void> Prepare(std::function<async::Task<absl::Status>()> attempt, std::string dependency,
                                   std::shared_ptr<Life> life) {
    absl::Status status = co_await attempt();
    for (absl::Duration pause = kFirstPause; absl::IsUnavailable(status); pause = std::min(pause * 2, kLongestPause)) {
      observe::Log(observe::Level::kWarning, "service.dependency_away",
                   {{"dependency", dependency}, {"error", std::string(status.message())}});
      (void)co_await async::Sleep(pause);
      status = co_await attempt();
    }
    {
      const std::lock_guard lock(life->mutex);
      life->prepared = status;
    }
    life->changed.notify_all();
  }
};

ServiceFrame::ServiceFrame(std::string name, CommonOptions options)
    : life_(std::make_shared<Life>()), name_(std::move(name)), options_(std::move(options)) {
  const sigset_t set = StopSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  if (!options_.allow_core_dumps) ForbidDumps();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::health::v1::HealthCheckRequest::descriptor();  // keeps the health descriptors linked, for reflection
}

ServiceFrame::~ServiceFrame() = default;

void ServiceFrame::SetReady(const std::string& dependency, bool ready, const absl::Status& why) {
  {
    std::lock_guard lock(mutex_);
    auto [it, fresh] = dependencies_.try_emplace(dependency);
    if (!fresh && it->second.ready == ready) return;
    it->second.ready = ready;
    if (fresh) {
      it->second.gauge = &metrics_.Gauge("poststelle_dependency_ready",
                                         "1 while this dependency is there; all of them: the service is ready",
                                         {{"dependency", dependency}});
    }
    it->second.gauge->Set(ready ? 1 : 0);
  }
  nlohmann::json fields{{"dependency", dependency}, {"ready", ready}};
  if (!why.ok()) fields["error"] = std::string(why.message());
  observe::Log(why.ok() ? observe::Level::kInfo : observe::Level::kWarning, "service.dependency", fields);
  UpdateHealth();
}

void ServiceFrame::UpdateHealth() {
  std::lock_guard lock(mutex_);
  if (server_ == nullptr) return;
  bool ready = !leaving_;
  for (const auto& [name, dependency] : dependencies_) ready = ready && dependency.ready;
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  health->SetServingStatus("", ready);
  health->SetServingStatus("liveness", true);
}

absl::Status ServiceFrame::Start(const Gate& gate) {
  absl::StatusOr<std::string> metrics = metrics_.Expose(options_.metrics_address);
  if (!metrics.ok()) return metrics.status();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options_.listen, grpc::InsecureServerCredentials(), &port);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 15'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // A client whose machine died says nothing: its streams end within these two times.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 4'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a port that is taken is an error, not shared
  for (grpc::Service* service : services_) builder.RegisterService(service);
  reflection_ = std::make_unique<Reflection>(gate);
  reflection_->AddTo(builder);
  AnswerMalformed(builder);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat("--listen: can't serve on ", options_.listen));
  }
  {
    std::lock_guard lock(mutex_);
    server_ = std::move(server);
  }
  UpdateHealth();
  const std::string address = absl::StrCat(options_.listen.substr(0, options_.listen.rfind(':')), ":", port);
  if (!options_.port_file.empty() && !WritePortFile(options_.port_file, absl::StrCat(address, "\n", *metrics))) {
    return absl::FailedPreconditionError(absl::StrCat("--port-file: can't write ", options_.port_file));
  }
  std::printf("listening %s\n", address.c_str());
  std::fflush(stdout);
  observe::Log(observe::Level::kInfo, "service.started",
               {{"service", name_}, {"address", address}, {"metrics", *metrics}});
  return absl::OkStatus();
}

void ServiceFrame::Prepare(Gate& gate, const Work& work) {
  async::Spawn(gate.executor(), Life::Prepare(work.prepare, work.dependency, life_));
  std::unique_lock lock(life_->mutex);
  life_->changed.wait(lock, [this] { return life_->signal != 0 || life_->prepared.has_value(); });
}

// Calls were refused and nothing is in hand but the preparation, whose transaction the database rolls back: waiting for
// it, or for parts that never worked, would only take time.
void ServiceFrame::EndUnprepared(int exit_code) {
  server_->Shutdown(std::chrono::system_clock::now());
  observe::Log(observe::Level::kInfo, "service.ended", {{"service", name_}});
  _exit(exit_code);
}

int ServiceFrame::Run(Gate& gate, const Work& work) {
  Depend(work.dependency);
  if (absl::Status started = Start(gate); !started.ok()) {
    std::cerr << started.message() << std::endl;
    return 1;
  }
  std::thread(Life::AwaitSignals, life_).detach();
  Prepare(gate, work);
  std::unique_lock lock(life_->mutex);
  if (life_->signal != 0) EndUnprepared(0);
  if (!life_->prepared->ok()) {
    std::cerr << "--" << work.dependency << ": " << life_->prepared->message() << std::endl;
    EndUnprepared(1);
  }
  lock.unlock();
  gate.Open();
  work.start();
  lock.lock();
  life_->changed.wait(lock, [this] { return life_->signal != 0; });
  lock.unlock();
  return Drain(work);
}

int ServiceFrame::Drain(const Work& work) {
  observe::Log(observe::Level::kInfo, "service.draining", {{"service", name_}, {"signal", life_->signal}});
  {
    std::lock_guard lock(mutex_);
    leaving_ = true;
  }
  UpdateHealth();
  std::this_thread::sleep_for(absl::ToChronoMilliseconds(options_.drain_delay));
  draining_ = true;
  std::vector<std::string> parts;
  for (const DrainStep& step : work.stop) parts.push_back(step.name);
  parts.insert(parts.end(), {"calls", "release of all parts"});
  drain_ = std::make_unique<DrainWatch>(options_.drain_timeout, parts);
  for (const DrainStep& step : work.stop) {
    step.run();
    drain_->Done();
  }
  server_->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
  server_->Wait();
  reflection_->Join();
  drain_->Done();
  observe::Log(observe::Level::kInfo, "service.ended", {{"service", name_}});
  return 0;
}

}  // namespace poststelle::rpc
