// The fetcher's side of the config service: follows its mailboxes, asks for their passwords.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "services/fetcher/mailbox_catalog.h"

namespace poststelle::fetcher {

// Follows WatchMailboxes into a catalog, on a thread of its own (one blocking stream a process). Reconnects by itself
// and goes on from the last token; when that is too old, it takes the snapshot anew.
class ConfigWatch {
 public:
  // `ready(true)` while the watch stands and the snapshot is complete.
  ConfigWatch(std::shared_ptr<grpc::Channel> channel, MailboxCatalog& catalog, std::function<void(bool)> ready);
  ~ConfigWatch();
  void Stop();

 private:
  void Loop();
  void Pause();
  // One stream; returns its end.
  grpc::Status Follow();

  std::shared_ptr<grpc::Channel> channel_;
  MailboxCatalog& catalog_;
  const std::function<void(bool)> ready_;
  std::string resume_token_;
  std::mutex mutex_;
  std::condition_variable stopping_;
  std::unique_ptr<grpc::ClientContext> context_;  // guarded by mutex_
  std::atomic<bool> stopped_{false};
  std::thread thread_;  // last: the rest exists before it runs
};

// Passwords over CredentialService, kept until the mailbox changes. Thread-safe.
std::unique_ptr<CredentialSource> MakeConfigCredentials(asio::any_io_executor executor,
                                                        std::shared_ptr<grpc::Channel> channel);

}  // namespace poststelle::fetcher
