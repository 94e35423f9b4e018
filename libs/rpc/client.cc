#include "libs/rpc/client.h"

#include "absl/strings/str_cat.h"
#include "libs/base/sv.h"

namespace poststelle::rpc {
namespace {

struct Pending {
  explicit Pending(const asio::any_io_executor& executor) : ended(executor) {}
  async::Event ended;
  std::atomic<bool> done{false};
  grpc::Status status;
};

async::Task<void> WaitFor(std::shared_ptr<Pending> pending) {
  while (!pending->done) (co_await pending->ended.Wait(absl::Seconds(1))).IgnoreError();
}

}  // namespace

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // Bounds how long one attempt to connect may take, too: a busy server needs more than a moment for its first answer.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

void Authorize(grpc::ClientContext& context, const SecretString& token) {
  context.AddMetadata("authorization", absl::StrCat("Bearer ", Av(token.Reveal())));
}

async::Task<grpc::Status> Await(asio::any_io_executor executor,
                                std::function<void(std::function<void(grpc::Status)>)> start) {
  auto pending = std::make_shared<Pending>(executor);
  start([pending](grpc::Status status) {
    pending->status = std::move(status);
    pending->done = true;
    pending->ended.Notify();
  });
  co_await async::RunOn(executor, WaitFor(pending));
  co_return pending->status;
}

}  // namespace poststelle::rpc
