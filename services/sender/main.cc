// poststelle-sender: sends through outbound mailboxes; for now it tries their settings. This file lists the parts.
#include <iostream>

#include "libs/net/dialer.h"
#include "libs/rpc/server.h"
#include "services/sender/options.h"
#include "services/sender/probe_service.h"

namespace poststelle::sender {
namespace {

async::Task<absl::Status> NothingToPrepare() { co_return absl::OkStatus(); }

int Main(int argc, char** argv) {
  Options options;
  if (std::optional<int> exit_code = ParseOptions(argc, argv, options)) return *exit_code;

  rpc::ServiceFrame frame("sender", options.common);
  auto access = rpc::Access::Open(options.common.access);
  if (!access.ok()) {
    std::cerr << "--identities-file: " << access.status().message() << "\n";
    return 1;
  }
  async::Runtime runtime(2);
  const asio::any_io_executor executor = runtime.executor();
  rpc::Gate gate(executor, **access);
  std::shared_ptr<net::Resolver> names = net::MakeResolver(executor);
  std::unique_ptr<net::Dialer> to_mail_servers = net::MakeTcpDialer(names, options.egress);
  ProbeContext probe{*to_mail_servers, options.ehlo_name};
  probe.command_timeout = options.command_timeout;
  probe.connect_timeout = std::min(probe.connect_timeout, options.command_timeout);
  ProbeService probe_service(gate, probe);
  frame.Add(probe_service);

  rpc::Work work;
  work.dependency = "start";
  work.prepare = NothingToPrepare;
  work.start = [&frame] { frame.SetReady("start", true); };
  return frame.Run(gate, work);
}

}  // namespace
}  // namespace poststelle::sender

int main(int argc, char** argv) { return poststelle::sender::Main(argc, argv); }
