// The frame of a service: gRPC server with health, reflection, metrics, and an orderly end.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "libs/observe/metrics.h"
#include "libs/rpc/options.h"

namespace poststelle::rpc {

// Built first in main, before any thread: it blocks SIGTERM and SIGINT, which then only end the service in order.
class ServiceFrame {
 public:
  ServiceFrame(std::string name, CommonOptions options);
  ~ServiceFrame();

  observe::Metrics& metrics() { return metrics_; }
  // Before Start. The service lives as long as the frame.
  void Add(grpc::Service& service) { services_.push_back(&service); }
  // A dependency that readiness waits for; not ready until SetReady(name, true). Thread-safe.
  void Depend(const std::string& dependency) { SetReady(dependency, false); }
  void SetReady(const std::string& dependency, bool ready);
  // Long streams look at it at least twice a second and end with UNAVAILABLE.
  const std::atomic<bool>& draining() const { return draining_; }

  // Before Start: calls `attempt` until its answer is not kUnavailable, with a growing pause, and says in the log what
  // `dependency` is missing. Blocks; kCancelled once SIGTERM or SIGINT came.
  absl::Status AwaitAvailable(const std::string& dependency, const std::function<absl::Status()>& attempt);

  // Serves, and says where: a line "listening ADDRESS" on standard output, and the port file.
  absl::Status Start();
  // Blocks until SIGTERM or SIGINT, then drains: not ready, `stop_work` (take no more work, finish what is in hand),
  // streams ended, server down. A second signal exits at once with 130. Returns the exit code.
  int RunUntilSignal(const std::function<void()>& stop_work);

 private:
  void UpdateHealth();

  const std::string name_;
  const CommonOptions options_;
  observe::Metrics metrics_;
  std::vector<grpc::Service*> services_;
  std::unique_ptr<grpc::Server> server_;
  std::atomic<bool> draining_{false};
  std::mutex mutex_;
  std::map<std::string, bool> dependencies_;
};

}  // namespace poststelle::rpc
