// The frame of a service: gRPC server with health, reflection, metrics, a start that may wait, and an orderly end.
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
#include "libs/async/runtime.h"
#include "libs/observe/metrics.h"
#include "libs/rpc/drain.h"
#include "libs/rpc/gate.h"
#include "libs/rpc/options.h"
#include "libs/rpc/reflection.h"

namespace poststelle::rpc {

// What a service does between the moment when it can be reached and its end.
struct Work {
  // What `prepare` waits for and mends: a dependency, and the option that says where it is ("database").
  std::string dependency;
  // Makes true what calls and work rest on. Called again while it answers kUnavailable; any other error ends the
  // service.
  std::function<async::Task<absl::Status>()> prepare;
  // Once, when that is done and calls are let in. Does not block; the dependency is told to be ready here or later.
  std::function<void()> start;
  // In this order, once the service ends: take no more work, finish what is in hand.
  std::vector<DrainStep> stop;
};

// Built first in main, before any thread: it blocks SIGTERM and SIGINT, which then only end the service in order.
class ServiceFrame {
 public:
  ServiceFrame(std::string name, CommonOptions options);
  ~ServiceFrame();

  observe::Metrics& metrics() { return metrics_; }
  // Before Start. The service lives as long as the frame.
  void Add(grpc::Service& service) { services_.push_back(&service); }
  // A dependency that readiness waits for; not ready until SetReady(name, true). Shown by health and by the metric
  // poststelle_dependency_ready; `why` goes to the log. Thread-safe.
  void Depend(const std::string& dependency) { SetReady(dependency, false); }
  void SetReady(const std::string& dependency, bool ready, const absl::Status& why = absl::OkStatus());
  // Long streams look at it at least twice a second and end with UNAVAILABLE.
  const std::atomic<bool>& draining() const { return draining_; }

  // Serves, and says where: a line "listening ADDRESS" on standard output, and the port file. Alive at once; prepares,
  // opens `gate`, starts the work, and is ready as soon as its dependencies are. Blocks until SIGTERM or SIGINT, then
  // drains: not ready (but alive, to the end), --drain-delay, streams ended, work stopped, server down. What has not
  // come to rest within --drain-timeout is left: exit code 1. A second signal exits at once with 130. Returns the exit
  // code, after which what the caller built comes to its end under the same watch; exits by itself where nothing was
  // begun that needs an end.
  int Run(Gate& gate, const Work& work);

 private:
  struct Life;
  struct Dependency {
    bool ready = false;
    prometheus::Gauge* gauge = nullptr;
  };
  absl::Status Start(const Gate& gate);
  void UpdateHealth();
  // Blocks until there is an answer, or a signal.
  void Prepare(Gate& gate, const Work& work);
  [[noreturn]] void EndUnprepared(int exit_code);
  int Drain(const Work& work);

  std::unique_ptr<DrainWatch> drain_;  // destroyed last
  const std::shared_ptr<Life> life_;   // shared with the thread that waits for signals
  const std::string name_;
  const CommonOptions options_;
  observe::Metrics metrics_;
  std::vector<grpc::Service*> services_;
  std::unique_ptr<Reflection> reflection_;
  std::unique_ptr<grpc::Server> server_;
  std::atomic<bool> draining_{false};
  std::mutex mutex_;
  std::map<std::string, Dependency> dependencies_;  // guarded by mutex_
  bool leaving_ = false;                            // guarded by mutex_: never ready again
};

}  // namespace poststelle::rpc
