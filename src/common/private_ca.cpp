#include "common/private_ca.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <memory>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/secret.h"

namespace onestep {
namespace {

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* value) const {
    Free(value);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Freed<X509_free>>;
using Memory = std::unique_ptr<BIO, Freed<BIO_free_all>>;
using Names = std::unique_ptr<GENERAL_NAMES, Freed<GENERAL_NAMES_free>>;

constexpr int kAuthorityDays = 3650;

[[noreturn]] void fail(ErrorCode code, const std::string& what) {
  std::array<char, 256> text{};
  ERR_error_string_n(ERR_get_error(), text.data(), text.size());
  throw Error(code, what + "; OpenSSL says: " + text.data());
}

void check(bool done, const std::string& what) {
  if (!done) fail(ErrorCode::kInternal, what);
}

bool is_address(const std::string& name) {
  std::array<unsigned char, 16> bytes{};
  return ::inet_pton(AF_INET, name.c_str(), bytes.data()) == 1 || ::inet_pton(AF_INET6, name.c_str(), bytes.data()) == 1;
}

void require_name(const std::string& name) {
  const auto allowed = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '.'; };
  const bool host = !name.empty() && name.size() <= 253 && std::all_of(name.begin(), name.end(), allowed);
  if (!host && !is_address(name)) {
    throw Error(ErrorCode::kUsage, "--name: expected a host name or a numeric address, found \"" + name + "\"");
  }
}

std::string memory_text(BIO* memory) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(memory, &data);
  return {data, static_cast<std::size_t>(size)};
}

std::string pem(X509* certificate) {
  const Memory memory(BIO_new(BIO_s_mem()));
  check(PEM_write_bio_X509(memory.get(), certificate) == 1, "writing a certificate");
  return memory_text(memory.get());
}

std::string pem(EVP_PKEY* key) {
  const Memory memory(BIO_new(BIO_s_mem()));
  check(PEM_write_bio_PKCS8PrivateKey(memory.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1, "writing a key");
  return memory_text(memory.get());
}

Certificate read_certificate(const std::string& path) {
  const std::string text = read_file(path);
  const Memory memory(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  Certificate certificate(PEM_read_bio_X509(memory.get(), nullptr, nullptr, nullptr));
  if (!certificate) fail(ErrorCode::kCorrupt, path + ": expected a certificate in PEM");
  return certificate;
}

Key read_key(const std::string& path) {
  const std::string text = read_file(path);
  const Memory memory(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  Key key(PEM_read_bio_PrivateKey(memory.get(), nullptr, nullptr, nullptr));
  if (!key) fail(ErrorCode::kCorrupt, path + ": expected a private key in PEM");
  return key;
}

// Version, serial number, validity, subject and key: what every certificate has.
Certificate begin_certificate(EVP_PKEY* key, const std::string& common_name, int days) {
  Certificate certificate(X509_new());
  std::array<unsigned char, 16> serial{};
  check(RAND_bytes(serial.data(), serial.size()) == 1, "a serial number");
  serial[0] &= 0x7f;
  const std::unique_ptr<BIGNUM, Freed<BN_free>> number(BN_bin2bn(serial.data(), serial.size(), nullptr));
  X509_NAME* subject = X509_get_subject_name(certificate.get());
  const auto* text = reinterpret_cast<const unsigned char*>(common_name.c_str());
  check(X509_set_version(certificate.get(), X509_VERSION_3) == 1 &&
            BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate.get())) != nullptr &&
            X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -300) != nullptr &&
            X509_time_adj_ex(X509_getm_notAfter(certificate.get()), days, 0, nullptr) != nullptr &&
            X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, text, -1, -1, 0) == 1 &&
            X509_set_pubkey(certificate.get(), key) == 1,
        "filling a certificate");
  return certificate;
}

void extend(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const std::unique_ptr<X509_EXTENSION, Freed<X509_EXTENSION_free>> extension(
      X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str()));
  check(extension && X509_add_ext(certificate, extension.get(), -1) == 1, "an extension of a certificate: " + value);
}

void sign(X509* certificate, X509* issuer, EVP_PKEY* key) {
  check(X509_set_issuer_name(certificate, X509_get_subject_name(issuer)) == 1 &&
            X509_sign(certificate, key, EVP_sha256()) > 0,
        "signing a certificate");
}

struct Authority {
  Key key;
  Certificate certificate;
};

Authority make_authority() {
  Authority authority{Key(EVP_EC_gen("P-256")), nullptr};
  check(authority.key != nullptr, "making a key");
  authority.certificate = begin_certificate(authority.key.get(), "Onestep private CA " + random_hex(4), kAuthorityDays);
  X509* certificate = authority.certificate.get();
  extend(certificate, certificate, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  extend(certificate, certificate, NID_key_usage, "critical,keyCertSign,cRLSign");
  extend(certificate, certificate, NID_subject_key_identifier, "hash");
  sign(certificate, certificate, authority.key.get());
  return authority;
}

std::string alternative_names(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    text += (text.empty() ? "" : ",") + std::string(is_address(name) ? "IP:" : "DNS:") + name;
  }
  return text;
}

}  // namespace

void write_private_ca(const PrivateCaOptions& options) {
  for (const std::string& name : options.names) require_name(name);
  if (options.names.empty()) throw Error(ErrorCode::kUsage, "--name: expected at least one name of the server, found none");
  create_folders_durably(options.folder);
  const std::string ca_file = options.folder + "/ca.crt", ca_key_file = options.folder + "/ca.key";
  if (file_exists(ca_file) != file_exists(ca_key_file)) {
    throw Error(ErrorCode::kConflict, options.folder + ": expected ca.crt and ca.key or neither, found " +
                                          (file_exists(ca_file) ? "ca.crt alone" : "ca.key alone"));
  }
  Authority authority;
  if (file_exists(ca_file)) {
    authority = {read_key(ca_key_file), read_certificate(ca_file)};
  } else {
    authority = make_authority();
    write_secret_file(ca_key_file, pem(authority.key.get()));
    write_file_durably(ca_file, pem(authority.certificate.get()));
  }
  const Key key(EVP_EC_gen("P-256"));
  check(key != nullptr, "making a key");
  const Certificate certificate = begin_certificate(key.get(), options.names.front().substr(0, 64), options.days);
  X509* issuer = authority.certificate.get();
  extend(certificate.get(), issuer, NID_basic_constraints, "critical,CA:FALSE");
  extend(certificate.get(), issuer, NID_key_usage, "critical,digitalSignature");
  extend(certificate.get(), issuer, NID_ext_key_usage, "serverAuth");
  extend(certificate.get(), issuer, NID_subject_key_identifier, "hash");
  extend(certificate.get(), issuer, NID_authority_key_identifier, "keyid");
  extend(certificate.get(), issuer, NID_subject_alt_name, alternative_names(options.names));
  sign(certificate.get(), issuer, authority.key.get());
  write_secret_file(options.folder + "/server.key", pem(key.get()));
  write_file_durably(options.folder + "/server.crt", pem(certificate.get()));
}

std::vector<std::string> certificate_names(const std::string& path) {
  const Certificate certificate = read_certificate(path);
  const Names names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate.get(), NID_subject_alt_name, nullptr, nullptr)));
  std::vector<std::string> found;
  for (int i = 0; i < (names ? sk_GENERAL_NAME_num(names.get()) : 0); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type == GEN_DNS) {
      const auto* data = reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName));
      std::string text(data, static_cast<std::size_t>(ASN1_STRING_length(name->d.dNSName)));
      std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
      found.push_back(text);
    } else if (name->type == GEN_IPADD) {
      std::array<char, INET6_ADDRSTRLEN> text{};
      const int family = ASN1_STRING_length(name->d.iPAddress) == 4 ? AF_INET : AF_INET6;
      if (::inet_ntop(family, ASN1_STRING_get0_data(name->d.iPAddress), text.data(), text.size()) != nullptr) {
        found.emplace_back(text.data());
      }
    }
  }
  return found;
}

}  // namespace onestep
