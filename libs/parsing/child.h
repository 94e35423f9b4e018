// The child's side of the pipe: sandbox, hello, then one answer for each mail.
#pragma once

#include <functional>
#include <string>

namespace poststelle::parsing {

// The main function of a child process. argv: the bytes of memory it may use, and the seconds that one mail may take
// (both may be missing). Mails come in on standard input, answers go to standard output, until the input ends. Returns
// the exit code.
int ServeAsChild(int argc, char** argv, const std::function<std::string(const std::string&)>& answer);

}  // namespace poststelle::parsing
