// For the tests only: a child that tries what its "mail" names, as a parser that was taken over would.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>

#include "libs/mail/parsed_mail.pb.h"
#include "libs/parsing/child.h"

namespace {

std::string Try(std::string_view what) {
  long result = 0;
  char program[] = "/bin/true";
  char* const arguments[] = {program, nullptr};
  if (what == "open") result = open("/etc/passwd", O_RDONLY);
  if (what == "fork") result = fork();
  if (what == "exec") result = execve(program, arguments, arguments + 1);
  if (what == "socket") result = socket(AF_INET, SOCK_STREAM, 0);
  if (what == "kill") result = kill(getppid(), 0);
  if (what == "run")
    result = mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
  poststelle::mail::ParsedMail mail;
  mail.set_subject("it answered " + std::to_string(result));
  if (what == "environment") mail.set_subject(environ == nullptr || *environ == nullptr ? "empty" : *environ);
  return mail.SerializeAsString();
}

}  // namespace

int main(int argc, char** argv) { _exit(poststelle::parsing::ServeAsChild(argc, argv, Try)); }
