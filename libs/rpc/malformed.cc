#include "libs/rpc/malformed.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "libs/base/sv.h"
#include "libs/rpc/status.h"

namespace poststelle::rpc {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::InterceptorBatchMethods;
using grpc::experimental::ServerRpcInfo;

std::string MethodName(const std::string& path) { return std::string(absl::StripPrefix(path, "/")); }

grpc::Status UnknownMethod(const std::string& path) {
  const std::string method = MethodName(path);
  return Error(grpc::StatusCode::UNIMPLEMENTED, "METHOD_UNKNOWN",
               method + " is not served here; reflection lists what is", {{"method", method}});
}

// Of one call.
class Answers : public grpc::experimental::Interceptor {
 public:
  explicit Answers(const ServerRpcInfo& call)
      : method_(call.method()),
        // Of a client stream a missing message is its end, too.
        one_request_(call.type() == ServerRpcInfo::Type::UNARY ||
                     call.type() == ServerRpcInfo::Type::SERVER_STREAMING) {}

  void Intercept(InterceptorBatchMethods* methods) override {
    if (one_request_ && methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_MESSAGE)) {
      malformed_ = methods->GetRecvMessage() == nullptr;
    }
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const grpc::Status status = methods->GetSendStatus();
      const bool bare = status.error_code() == grpc::StatusCode::UNIMPLEMENTED && status.error_details().empty();
      if (bare) methods->ModifySendStatus(malformed_ ? MalformedRequest(method_) : UnknownMethod(method_));
    }
    methods->Proceed();
  }

 private:
  const char* const method_;  // lives as long as the call
  const bool one_request_;
  bool malformed_ = false;
};

class Factory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  grpc::experimental::Interceptor* CreateServerInterceptor(ServerRpcInfo* call) override { return new Answers(*call); }
};

}  // namespace

grpc::Status MalformedRequest(const std::string& method) {
  const std::string name = MethodName(method);
  return Error(grpc::StatusCode::INVALID_ARGUMENT, "MALFORMED_REQUEST",
               absl::StrCat("the request can't be parsed", name.empty() ? "" : " as the one of ", name,
                            ": it is cut off, is another message, or a text in it is no UTF-8"),
               {{"method", name}});
}

void AnswerMalformed(grpc::ServerBuilder& builder) {
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> creators;
  creators.push_back(std::make_unique<Factory>());
  builder.experimental().SetInterceptorCreators(std::move(creators));
}

}  // namespace poststelle::rpc
