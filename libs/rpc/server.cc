#include "libs/rpc/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.pb.h"
#include "libs/observe/log.h"

namespace poststelle::rpc {
namespace {

constexpr auto kShutdownGrace = std::chrono::seconds(5);

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

int WaitForSignal() {
  const sigset_t set = StopSignals();
  int signal = 0;
  sigwait(&set, &signal);
  return signal;
}

void ExitAtNextSignal() {
  WaitForSignal();
  _exit(130);
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

ServiceFrame::ServiceFrame(std::string name, CommonOptions options)
    : name_(std::move(name)), options_(std::move(options)) {
  const sigset_t set = StopSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  // Secrets are in memory: no core files, no attaching by others of the same user.
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_DUMPABLE, 0);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::health::v1::HealthCheckRequest::descriptor();  // keeps the health descriptors linked, for reflection
}

ServiceFrame::~ServiceFrame() = default;

void ServiceFrame::SetReady(const std::string& dependency, bool ready) {
  {
    std::lock_guard lock(mutex_);
    auto [it, fresh] = dependencies_.try_emplace(dependency, ready);
    if (!fresh && it->second == ready) return;
    it->second = ready;
  }
  observe::Log(observe::Level::kInfo, "service.dependency", {{"dependency", dependency}, {"ready", ready}});
  UpdateHealth();
}

void ServiceFrame::UpdateHealth() {
  std::lock_guard lock(mutex_);
  if (server_ == nullptr || draining_) return;
  bool ready = true;
  for (const auto& [dependency, is_ready] : dependencies_) ready = ready && is_ready;
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  health->SetServingStatus("", ready);
  health->SetServingStatus("liveness", true);
}

absl::Status ServiceFrame::AwaitAvailable(const std::string& dependency, const std::function<absl::Status()>& attempt) {
  constexpr timespec kFirstPause{0, 100'000'000};
  constexpr time_t kLongestPause = 5;
  timespec pause = kFirstPause;
  while (true) {
    absl::Status status = attempt();
    if (!absl::IsUnavailable(status)) return status;
    observe::Log(observe::Level::kWarning, "service.dependency_away",
                 {{"dependency", dependency}, {"error", std::string(status.message())}});
    // The signals are blocked since the frame was built; one that came during the attempt is pending.
    const sigset_t set = StopSignals();
    if (sigtimedwait(&set, nullptr, &pause) >= 0) return absl::CancelledError("told to end before it could serve");
    pause.tv_sec = std::min(pause.tv_sec * 2 + 1, kLongestPause);
  }
}

absl::Status ServiceFrame::Start() {
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

int ServiceFrame::RunUntilSignal(const std::function<void()>& stop_work) {
  const int signal = WaitForSignal();
  observe::Log(observe::Level::kInfo, "service.draining", {{"service", name_}, {"signal", signal}});
  std::thread(ExitAtNextSignal).detach();
  draining_ = true;
  server_->GetHealthCheckService()->SetServingStatus(false);
  stop_work();
  server_->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
  server_->Wait();
  observe::Log(observe::Level::kInfo, "service.ended", {{"service", name_}});
  return 0;
}

}  // namespace poststelle::rpc
