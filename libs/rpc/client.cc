#include "libs/rpc/client.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "libs/base/sv.h"
#include "libs/observe/log.h"
#include "libs/secrets/vault.h"

namespace poststelle::rpc {
namespace {

using grpc::experimental::InterceptionHookPoints;

// Adds "authorization: Bearer …" to one call.
class TokenInterceptor : public grpc::experimental::Interceptor {
 public:
  // `told`: the log has it already that the file can't be read.
  TokenInterceptor(const std::string& file, std::atomic<bool>& told) : file_(file), told_(told) {}
  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      if (absl::StatusOr<SecretString> token = secrets::LoadToken(file_); token.ok()) {
        told_ = false;
        methods->GetSendInitialMetadata()->emplace("authorization", absl::StrCat("Bearer ", Av(token->Reveal())));
      } else if (!told_.exchange(true)) {
        observe::Log(observe::Level::kWarning, "token.unreadable", {{"error", std::string(token.status().message())}});
      }
    }
    methods->Proceed();
  }

 private:
  const std::string& file_;
  std::atomic<bool>& told_;
};

// Lives as long as its channel.
class TokenInterceptors : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit TokenInterceptors(std::string file) : file_(std::move(file)) {}
  grpc::experimental::Interceptor* CreateClientInterceptor(grpc::experimental::ClientRpcInfo*) override {
    return new TokenInterceptor(file_, told_);  // gRPC deletes it with the call
  }

 private:
  const std::string file_;
  std::atomic<bool> told_{false};
};

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

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, const std::string& token_file) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // Bounds how long one attempt to connect may take, too: a busy server needs more than a moment for its first answer.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  if (!token_file.empty()) interceptors.push_back(std::make_unique<TokenInterceptors>(token_file));
  return grpc::experimental::CreateCustomChannelWithInterceptors(address, grpc::InsecureChannelCredentials(), arguments,
                                                                 std::move(interceptors));
}

bool StaysOnThisMachine(const std::string& address) {
  for (const char* start : {"127.", "localhost:", "[::1]:", "unix:"}) {
    if (absl::StartsWith(address, start)) return true;
  }
  return false;
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
