// poststelle-parser: decodes mails that come in on standard input and writes the results to standard output. Everything
// that could be abused by a hostile mail is given up first (sandbox.h).
#include <unistd.h>

#include "libs/mail/mime.h"
#include "libs/parsing/child.h"

int main(int argc, char** argv) {
  // _exit: nothing is to be tidied up, and what runs at an orderly exit may need what the sandbox forbids.
  _exit(poststelle::parsing::ServeAsChild(
      argc, argv, [](std::string_view raw) { return poststelle::mail::ParseMail(raw).SerializeAsString(); }));
}
