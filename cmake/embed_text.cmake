# Makes C++ of a text file, so that a program carries it: cmake -DIN=… -DOUT=… -DNAME=ns::kName -P embed_text.cmake
file(READ "${IN}" text)
if(text MATCHES "\\)embedded\"")
  message(FATAL_ERROR "${IN} holds the end of the literal it becomes")
endif()
string(REGEX REPLACE "::[^:]*$" "" space "${NAME}")
string(REGEX REPLACE "^.*::" "" variable "${NAME}")
file(WRITE "${OUT}" "#include <string_view>\n\nnamespace ${space} {\nextern const std::string_view ${variable};\nconst std::string_view ${variable} = R\"embedded(${text})embedded\";\n}  // namespace ${space}\n")
