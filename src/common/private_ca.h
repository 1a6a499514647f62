// A certificate authority of one's own, and a server certificate that it vouches for.
#pragma once

#include <string>
#include <vector>

namespace onestep {

struct PrivateCaOptions {
  std::string folder;              // made if missing
  std::vector<std::string> names;  // host names and numeric addresses of the server
  int days = 825;                  // of the server's certificate; the authority's is valid for ten years
};

// Files of the folder: ca.crt (give it to clients), ca.key (mode 0600; only to make further certificates), server.crt,
// server.key (mode 0600). With ca.crt and ca.key already there, only the server's two files are made anew.
// Keys are ECDSA on P-256. Errors: kUsage for a name that is none; kConflict when one half of an authority is missing; kIo;
// kCorrupt for a file that OpenSSL can't read.
void write_private_ca(const PrivateCaOptions& options);

// The names that a certificate file (PEM) is for: DNS names in lower case and numeric addresses. Errors: kNotFound,
// kCorrupt.
std::vector<std::string> certificate_names(const std::string& path);

}  // namespace onestep
