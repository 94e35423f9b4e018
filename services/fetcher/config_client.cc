#include "services/fetcher/config_client.h"

#include <chrono>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "libs/base/reason.h"
#include "libs/base/status_macros.h"
#include "libs/observe/log.h"
#include "libs/rpc/client.h"
#include "libs/rpc/status.h"
#include "poststelle/config/v1/credential_service.grpc.pb.h"
#include "poststelle/config/v1/mailbox_service.grpc.pb.h"

namespace poststelle::fetcher {
namespace {

constexpr auto kReconnect = std::chrono::milliseconds(300);
constexpr auto kCredentialDeadline = std::chrono::seconds(5);

class ConfigCredentials : public CredentialSource {
 public:
  ConfigCredentials(asio::any_io_executor executor, std::shared_ptr<grpc::Channel> channel)
      : executor_(std::move(executor)), stub_(config::v1::CredentialService::NewStub(channel)) {}

  async::Task<absl::StatusOr<Credentials>> Get(const config::v1::Mailbox& mailbox) override {
    {
      std::lock_guard lock(mutex_);
      auto it = known_.find(mailbox.name());
      if (it != known_.end() && it->second.first == mailbox.etag()) co_return it->second.second;
    }
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kCredentialDeadline);
    config::v1::GetCredentialsRequest request;
    request.set_name(mailbox.name());
    config::v1::GetCredentialsResponse response;
    auto start = [&](std::function<void(grpc::Status)> done) {
      stub_->async()->GetCredentials(&context, &request, &response, std::move(done));
    };
    std::function<void(std::function<void(grpc::Status)>)> starter = start;
    const grpc::Status status = co_await rpc::Await(executor_, starter);
    if (!status.ok()) {
      std::string reason = rpc::ReasonOf(status);
      if (reason != "SECRET_UNREADABLE" && reason != "NO_SECRET") reason = "CONFIG_UNAVAILABLE";
      co_return WithReason(absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message()),
                           reason);
    }
    Credentials credentials;
    credentials.login_name = response.login_name();
    credentials.password = SecretString(std::move(*response.mutable_password()));
    if (response.etag() == mailbox.etag()) {
      std::lock_guard lock(mutex_);
      known_[mailbox.name()] = {mailbox.etag(), credentials};
    }
    co_return credentials;
  }

 private:
  const asio::any_io_executor executor_;
  const std::unique_ptr<config::v1::CredentialService::Stub> stub_;
  std::mutex mutex_;
  std::map<std::string, std::pair<std::string, Credentials>> known_;  // by mailbox: etag, credentials
};

}  // namespace

ConfigWatch::ConfigWatch(std::shared_ptr<grpc::Channel> channel, MailboxCatalog& catalog,
                         std::function<void(bool)> ready)
    : channel_(std::move(channel)), catalog_(catalog), ready_(std::move(ready)), thread_([this] { Loop(); }) {}

ConfigWatch::~ConfigWatch() { Stop(); }

void ConfigWatch::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }
  stopping_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void ConfigWatch::Loop() {
  bool told = false;
  while (!stopped_) {
    const grpc::Status status = Follow();
    ready_(false);
    if (stopped_) return;
    if (status.error_code() == grpc::StatusCode::OUT_OF_RANGE) resume_token_.clear();
    if (!told) {
      observe::Log(observe::Level::kInfo, "config.watch_interrupted", {{"error", status.error_message()}});
    }
    told = true;
    Pause();
    if (catalog_.synced()) told = false;
  }
}

void ConfigWatch::Pause() {
  if (channel_->GetState(true) != GRPC_CHANNEL_READY) {
    // Waiting for readiness rather than sleeping: config that comes up is noticed at once.
    channel_->WaitForConnected(std::chrono::system_clock::now() + kReconnect);
    return;
  }
  // It is there and refused: without its database it does so at once, again and again.
  std::unique_lock lock(mutex_);
  stopping_.wait_for(lock, kReconnect, [this] { return stopped_.load(); });
}

grpc::Status ConfigWatch::Follow() {
  auto stub = config::v1::MailboxService::NewStub(channel_);
  grpc::ClientContext* context = nullptr;
  {
    std::lock_guard lock(mutex_);
    context_ = std::make_unique<grpc::ClientContext>();
    context = context_.get();
    if (stopped_) return grpc::Status::CANCELLED;
  }
  config::v1::WatchMailboxesRequest request;
  request.set_resume_token(resume_token_);
  const bool snapshot = resume_token_.empty();
  bool synced = false;
  std::set<std::string> seen;
  auto reader = stub->WatchMailboxes(context, request);
  config::v1::WatchMailboxesResponse response;
  while (reader->Read(&response)) {
    if (response.has_upserted()) {
      if (snapshot && !synced) seen.insert(MailboxIdOf(response.upserted().name()));
      catalog_.Upsert(std::move(*response.mutable_upserted()));
    } else if (!response.deleted().empty()) {
      catalog_.Delete(MailboxIdOf(response.deleted()));
    } else if (response.has_synced() && !synced) {
      synced = true;
      if (snapshot) catalog_.FinishSnapshot(seen);
      ready_(true);
    }
    if (!response.resume_token().empty()) resume_token_ = response.resume_token();
  }
  return reader->Finish();
}

std::unique_ptr<CredentialSource> MakeConfigCredentials(asio::any_io_executor executor,
                                                        std::shared_ptr<grpc::Channel> channel) {
  return std::make_unique<ConfigCredentials>(std::move(executor), std::move(channel));
}

}  // namespace poststelle::fetcher
