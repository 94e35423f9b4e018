#include "libs/redis/connection.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/status_macros.h"

namespace poststelle::redis {

async::Task<absl::StatusOr<std::unique_ptr<Connection>>> Connection::Open(net::Dialer& dialer, const Address& address,
                                                                          Endpoint endpoint, absl::Time deadline) {
  PS_CO_ASSIGN_OR_RETURN(std::unique_ptr<net::Stream> stream,
                         co_await dialer.Dial(endpoint.host, endpoint.port, deadline - absl::Now()));
  if (address.tls) {
    net::TlsOptions options;
    options.server_name = endpoint.host;
    PS_CO_RETURN_IF_ERROR(co_await stream->StartTls(options, deadline - absl::Now()));
  }
  std::unique_ptr<Connection> connection(new Connection(std::move(stream)));
  PS_CO_RETURN_IF_ERROR(co_await connection->Greet(address, deadline));
  co_return connection;
}

async::Task<absl::Status> Connection::Greet(const Address& address, absl::Time deadline) {
  if (!address.password.empty()) {
    std::vector<std::string> auth{"AUTH"};
    if (!address.user.empty()) auth.push_back(address.user);
    auth.emplace_back(address.password.Reveal());
    PS_CO_ASSIGN_OR_RETURN(Answer answer, co_await Call(std::move(auth), deadline));
    if (!answer.error.empty()) {
      // Only the code: an unknown command is answered with its arguments, which here are the password.
      const std::string code = ErrorCode(answer.error);
      if (code == "LOADING" || code == "BUSY") co_return ToResult(std::move(answer)).status();
      co_return absl::FailedPreconditionError(
          absl::StrCat("Redis refused the user or password (", code.substr(0, 16), ")"));
    }
  }
  if (address.database != 0) {
    std::vector<std::string> select{"SELECT", std::to_string(address.database)};
    PS_CO_ASSIGN_OR_RETURN(Answer answer, co_await Call(std::move(select), deadline));
    const std::string code = ErrorCode(answer.error);
    if (code == "ERR") {
      co_return absl::FailedPreconditionError(absl::StrCat("database ", address.database, ": ", answer.error));
    }
    if (!code.empty()) co_return ToResult(std::move(answer)).status();
  }
  std::vector<std::string> ping{"PING"};
  PS_CO_ASSIGN_OR_RETURN(Answer answer, co_await Call(std::move(ping), deadline));
  const std::string code = ErrorCode(answer.error);
  if (code == "NOAUTH") co_return absl::FailedPreconditionError("Redis wants a password (NOAUTH)");
  // Any other error shows that it answers: an ACL may forbid PING, and MISCONF still lets reads through.
  if (code == "LOADING" || code == "BUSY" || code == "MASTERDOWN") co_return ToResult(std::move(answer)).status();
  co_return absl::OkStatus();
}

async::Task<absl::StatusOr<Answer>> Connection::Call(std::vector<std::string> arguments, absl::Time deadline) {
  const std::string bytes = Format(arguments);
  PS_CO_RETURN_IF_ERROR(co_await stream_->Write(bytes, deadline - absl::Now()));
  std::array<char, 4096> buffer;
  while (true) {
    PS_CO_ASSIGN_OR_RETURN(std::optional<Answer> answer, reader_.Next());
    if (answer) co_return *std::move(answer);
    // Said here, because a server that trickles gives every read something in time.
    if (absl::Now() >= deadline) co_return absl::UnavailableError("Redis did not answer in time");
    PS_CO_ASSIGN_OR_RETURN(size_t got,
                           co_await stream_->ReadSome(buffer.data(), buffer.size(), deadline - absl::Now()));
    reader_.Feed(std::string_view(buffer.data(), got));
  }
}

}  // namespace poststelle::redis
