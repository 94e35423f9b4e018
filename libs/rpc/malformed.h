// An answer to what gRPC refuses by itself: requests that can't be parsed, methods that there are not. gRPC's callback
// server answers both with a bare UNIMPLEMENTED, in which a caller finds neither a reason nor a hint.
#pragma once

#include <grpcpp/grpcpp.h>

#include <string>

namespace poststelle::rpc {

// INVALID_ARGUMENT with reason MALFORMED_REQUEST. `method` as gRPC writes it ("/package.Service/Method"); may be empty.
grpc::Status MalformedRequest(const std::string& method);

// Before BuildAndStart, in front of every service of `builder`: a call that gRPC ends because its request can't be
// parsed ends with MalformedRequest, one of a method that is not served with UNIMPLEMENTED, METHOD_UNKNOWN. Requests of
// client streams are read by Bidi, which looks after them itself.
void AnswerMalformed(grpc::ServerBuilder& builder);

}  // namespace poststelle::rpc
