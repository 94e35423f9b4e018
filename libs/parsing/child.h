// The child's side: sandbox, hello, then one answer for each mail.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace poststelle::parsing {

// The main function of a child process. argv: the bytes of memory it may use, and the seconds that one mail may take
// (both may be missing). Mails come in on standard input or, those that fit, in the shared memory at kSharedDescriptor
// where there is one; answers go to standard output, until the input ends. Returns the exit code.
int ServeAsChild(int argc, char** argv, const std::function<std::string(std::string_view)>& answer);

}  // namespace poststelle::parsing
