#include "libs/redis/client.h"

#include <hiredis/hiredis.h>

#include <array>
#include <atomic>
#include <charconv>
#include <deque>
#include <mutex>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"

namespace poststelle::redis {
namespace {

constexpr absl::Duration kReconnect = absl::Milliseconds(200);
// Without an answer for this long while commands wait, the connection is given up.
constexpr absl::Duration kIdle = absl::Seconds(3);

std::string Format(const std::vector<std::string>& arguments) {
  std::vector<const char*> data;
  std::vector<size_t> sizes;
  for (const std::string& a : arguments) {
    data.push_back(a.data());
    sizes.push_back(a.size());
  }
  char* formatted = nullptr;
  const int size = redisFormatCommandArgv(&formatted, static_cast<int>(data.size()), data.data(), sizes.data());
  std::string out(formatted, static_cast<size_t>(size));
  redisFreeCommand(formatted);
  return out;
}

absl::Status ErrorAnswer(const redisReply& reply) {
  const std::string text(reply.str, reply.len);
  if (absl::StartsWith(text, "NOSCRIPT")) return absl::NotFoundError(text);
  for (const char* passing :
       {"LOADING", "READONLY", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "OOM", "BUSY"}) {
    if (absl::StartsWith(text, passing)) return absl::UnavailableError(absl::StrCat("Redis: ", text));
  }
  return absl::InternalError(absl::StrCat("Redis: ", text));
}

absl::StatusOr<Reply> Convert(const redisReply& reply) {
  Reply out;
  switch (reply.type) {
    case REDIS_REPLY_ERROR:
      return ErrorAnswer(reply);
    case REDIS_REPLY_INTEGER:
      out.kind = Reply::Kind::kInteger;
      out.integer = reply.integer;
      return out;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
      out.kind = Reply::Kind::kString;
      out.string.assign(reply.str, reply.len);
      return out;
    case REDIS_REPLY_ARRAY:
      out.kind = Reply::Kind::kArray;
      for (size_t i = 0; i < reply.elements; ++i) {
        auto element = Convert(*reply.element[i]);  // hiredis bounds the nesting
        if (!element.ok()) return element.status();
        out.array.push_back(*std::move(element));
      }
      return out;
    default:
      return out;
  }
}

}  // namespace

absl::StatusOr<Address> ParseUrl(const std::string& url) {
  Address out;
  auto wrong = [] { return absl::InvalidArgumentError("give it as redis://[:password@]host[:port][/database]"); };
  constexpr std::string_view kScheme = "redis://";
  if (!url.starts_with(kScheme)) return wrong();
  std::string rest = url.substr(kScheme.size());
  if (const size_t at = rest.rfind('@'); at != std::string::npos) {
    const size_t colon = rest.find(':');
    if (colon == std::string::npos || colon > at) return wrong();
    out.password = SecretString(rest.substr(colon + 1, at - colon - 1));
    rest = rest.substr(at + 1);
  }
  if (const size_t slash = rest.find('/'); slash != std::string::npos) {
    if (slash + 1 < rest.size() && !absl::SimpleAtoi(rest.substr(slash + 1), &out.database)) return wrong();
    rest.resize(slash);
  }
  if (const size_t colon = rest.rfind(':'); colon != std::string::npos) {
    int port = 0;
    if (!absl::SimpleAtoi(rest.substr(colon + 1), &port) || port < 1 || port > 65535) return wrong();
    out.port = static_cast<uint16_t>(port);
    rest.resize(colon);
  }
  if (rest.empty()) return wrong();
  out.host = rest;
  return out;
}

struct Client::Pending {
  explicit Pending(const asio::any_io_executor& executor) : ended(executor) {}
  std::string bytes;
  absl::StatusOr<Reply> reply = absl::UnavailableError("Redis did not answer");
  std::atomic<bool> done{false};
  async::Event ended;

  void Finish(absl::StatusOr<Reply> result) {
    reply = std::move(result);
    done = true;
    ended.Notify();
  }
};

struct Client::State {
  explicit State(const asio::any_io_executor& e) : executor(e), work(e) {}
  asio::any_io_executor executor;
  async::Event work;
  std::mutex mutex;
  std::deque<std::shared_ptr<Pending>> queue;    // guarded: to be written
  std::deque<std::shared_ptr<Pending>> waiting;  // guarded: written, not answered
  bool stopped = false;                          // guarded

  void FailAll(const absl::Status& status) {
    std::deque<std::shared_ptr<Pending>> all;
    {
      std::lock_guard lock(mutex);
      all.swap(waiting);
      all.insert(all.end(), queue.begin(), queue.end());
      queue.clear();
    }
    for (const auto& p : all) p->Finish(status);
  }
};

struct Client::Connection {
  Connection() : reader(redisReaderCreate(), redisReaderFree) {}
  std::unique_ptr<net::Stream> stream;
  std::unique_ptr<redisReader, decltype(&redisReaderFree)> reader;
  absl::Status broken;

  // The next answer out of what was read, if it is complete.
  absl::StatusOr<std::optional<absl::StatusOr<Reply>>> Next() {
    void* raw = nullptr;
    if (redisReaderGetReply(reader.get(), &raw) != REDIS_OK) {
      return absl::UnavailableError(absl::StrCat("Redis sent garbage: ", reader->errstr));
    }
    if (raw == nullptr) return std::nullopt;
    auto* reply = static_cast<redisReply*>(raw);
    std::optional<absl::StatusOr<Reply>> out(Convert(*reply));
    freeReplyObject(reply);
    return out;
  }
};

Client::Client(asio::any_io_executor executor, net::Dialer& dialer, Address address)
    : state_(std::make_shared<State>(executor)), dialer_(dialer), address_(std::move(address)), scope_(executor) {
  scope_.Spawn(Serve());
}

Client::~Client() { Stop(); }

void Client::Stop() {
  {
    std::lock_guard lock(state_->mutex);
    if (state_->stopped) return;
    state_->stopped = true;
  }
  state_->work.Notify();
  scope_.Cancel();
  scope_.JoinBlocking();
  state_->FailAll(absl::CancelledError("the Redis client was stopped"));
}

async::Task<absl::StatusOr<Reply>> Client::Command(std::vector<std::string> arguments) {
  auto pending = std::make_shared<Pending>(state_->executor);
  pending->bytes = Format(arguments);
  {
    std::lock_guard lock(state_->mutex);
    if (state_->stopped) co_return absl::CancelledError("the Redis client was stopped");
    if (state_->queue.size() + state_->waiting.size() >= kMaxPending) {
      co_return absl::ResourceExhaustedError("too many commands wait for Redis");
    }
    state_->queue.push_back(pending);
  }
  state_->work.Notify();
  const absl::Time deadline = absl::Now() + kTimeout;
  while (!pending->done) {
    const absl::Status waited = co_await pending->ended.Wait(deadline - absl::Now());
    if (pending->done) break;
    if (absl::IsCancelled(waited)) co_return waited;
    if (absl::IsDeadlineExceeded(waited)) co_return absl::UnavailableError("Redis did not answer in time");
  }
  co_return std::move(pending->reply);
}

async::Task<absl::StatusOr<Reply>> Client::Eval(const std::string& script, std::vector<std::string> keys,
                                                std::vector<std::string> arguments) {
  std::vector<std::string> command{"EVALSHA", hashes_.Of(script), std::to_string(keys.size())};
  command.insert(command.end(), keys.begin(), keys.end());
  command.insert(command.end(), arguments.begin(), arguments.end());
  absl::StatusOr<Reply> reply = co_await Command(command);
  if (!absl::IsNotFound(reply.status())) co_return reply;
  command[0] = "EVAL";
  command[1] = script;
  co_return co_await Command(std::move(command));
}

async::Task<absl::Status> Client::Open(Connection& connection) {
  PS_CO_ASSIGN_OR_RETURN(connection.stream, co_await dialer_.Dial(address_.host, address_.port, absl::Seconds(3)));
  std::vector<std::vector<std::string>> greeting;
  if (!address_.password.empty()) {
    std::vector<std::string> auth{"AUTH", std::string(address_.password.Reveal())};
    greeting.push_back(std::move(auth));
  }
  std::vector<std::string> select{"SELECT", std::to_string(address_.database)};
  greeting.push_back(std::move(select));
  for (const auto& command : greeting) {
    const std::string bytes = Format(command);
    PS_CO_RETURN_IF_ERROR(co_await connection.stream->Write(bytes, kIdle));
    std::array<char, 512> buffer{};
    while (true) {
      PS_CO_ASSIGN_OR_RETURN(auto next, connection.Next());
      if (next) {
        PS_CO_RETURN_IF_ERROR(next->status());
        break;
      }
      PS_CO_ASSIGN_OR_RETURN(size_t got, co_await connection.stream->ReadSome(buffer.data(), buffer.size(), kIdle));
      redisReaderFeed(connection.reader.get(), buffer.data(), got);
    }
  }
  co_return absl::OkStatus();
}

// Writes what is queued, reads what answers it, in turns: one coroutine, no half-duplex races.
async::Task<absl::Status> Client::Exchange(Connection& connection) {
  std::vector<char> buffer(64 << 10);
  while (true) {
    std::string out;
    bool waiting = false;
    {
      std::lock_guard lock(state_->mutex);
      if (state_->stopped) co_return absl::CancelledError("stopped");
      while (!state_->queue.empty()) {
        out += state_->queue.front()->bytes;
        state_->waiting.push_back(std::move(state_->queue.front()));
        state_->queue.pop_front();
      }
      waiting = !state_->waiting.empty();
    }
    if (!out.empty()) PS_CO_RETURN_IF_ERROR(co_await connection.stream->Write(out, kIdle));
    if (!waiting) {
      const absl::Status woken = co_await state_->work.Wait(absl::Minutes(1));
      if (absl::IsCancelled(woken)) co_return woken;
      continue;
    }
    PS_CO_ASSIGN_OR_RETURN(size_t got, co_await connection.stream->ReadSome(buffer.data(), buffer.size(), kIdle));
    redisReaderFeed(connection.reader.get(), buffer.data(), got);
    while (true) {
      PS_CO_ASSIGN_OR_RETURN(auto next, connection.Next());
      if (!next) break;
      std::shared_ptr<Pending> first;
      {
        std::lock_guard lock(state_->mutex);
        if (state_->waiting.empty()) co_return absl::UnavailableError("Redis answered what was not asked");
        first = std::move(state_->waiting.front());
        state_->waiting.pop_front();
      }
      first->Finish(*std::move(next));
    }
  }
}

async::Task<void> Client::Serve() {
  while (true) {
    {
      std::lock_guard lock(state_->mutex);
      if (state_->stopped) co_return;
    }
    Connection connection;
    absl::Status status = co_await Open(connection);
    if (status.ok()) status = co_await Exchange(connection);
    if (absl::IsCancelled(status)) co_return;
    state_->FailAll(absl::UnavailableError(
        absl::StrCat("Redis at ", address_.host, ":", address_.port, ": ", std::string(status.message()))));
    const absl::Status slept = co_await async::Sleep(kReconnect);
    if (!slept.ok()) co_return;
  }
}

}  // namespace poststelle::redis
