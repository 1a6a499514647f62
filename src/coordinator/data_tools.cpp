#include "coordinator/data_tools.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <chrono>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/secret.h"
#include "common/time_text.h"
#include "coordinator/access_tokens.h"
#include "coordinator/backup.h"
#include "coordinator/data_lock.h"
#include "coordinator/job_view.h"
#include "coordinator/store.h"

namespace onestep {
namespace {

using Json = nlohmann::ordered_json;

double unix_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// The database of a data folder, also while a coordinator runs on it. A layout older than this program's is brought up
// only where no coordinator runs: one that runs is then of an older version.
Store open_store(const std::string& data, bool make = false) {
  const std::string path = data + "/coordinator.sqlite";
  if (make) {
    create_folders_durably(data);
  } else if (!file_exists(path)) {
    throw Error(ErrorCode::kNotFound, data + ": expected the data folder of a coordinator, found no database in it; name it with --data DIR");
  }
  std::optional<DataLock> lock;
  try {
    lock.emplace(data);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kConflict) throw;
  }
  if (!lock && Store::schema_version(path) != Store::kSchemaVersion) {
    throw Error(ErrorCode::kConflict, data + ": the coordinator that runs on it is of another version; expected schema " +
                                          std::to_string(Store::kSchemaVersion) + ", found " +
                                          std::to_string(Store::schema_version(path)) + "; restart it with this version first");
  }
  return Store(path);
}

struct ToolOptions {
  std::string data = "onestep-data";
  std::string role, label, expires = "90d", out, id;
  bool json = false;
};

int add_token(const ToolOptions& options) {
  const std::optional<Role> role = role_from_string(options.role);
  if (!role) {
    throw Error(ErrorCode::kUsage, "--role: expected read, submit or admin, found \"" + options.role + "\"");
  }
  const std::optional<double> lifetime = options.expires == "never" ? 0 : seconds_from_text(options.expires);
  if (!lifetime) {
    throw Error(ErrorCode::kUsage, "--expires: expected a time such as 90d, 12h or 30m, or never, found \"" + options.expires + "\"");
  }
  const double now = unix_now();
  const NewToken token = make_token(*role, options.label, now, *lifetime > 0 ? now + *lifetime : 0);
  Store store = open_store(options.data, /*make=*/true);  // the first token comes before the first coordinator
  // What can't be handed over must not open anything.
  if (!options.out.empty()) write_secret_file(options.out, token.text + "\n");
  {
    Store::Transaction transaction = store.begin();
    store.insert_token(token.record);
    transaction.commit();
  }
  if (options.json) {
    Json line = token_view(token.record, now);
    if (options.out.empty()) line["token"] = token.text;
    std::cout << line.dump() << "\n";
  } else {
    std::cerr << "token " << token.record.id << " of role " << token.record.role << ", expires "
              << (token.record.expires > 0 ? utc_text(token.record.expires) : "never")
              << (options.out.empty() ? "; it is shown this once:" : "; written to " + options.out) << "\n";
    if (options.out.empty()) std::cout << token.text << "\n";
  }
  return 0;
}

int list_tokens(const ToolOptions& options) {
  Store store = open_store(options.data);
  const double now = unix_now();
  Json items = Json::array();
  for (const TokenRecord& token : store.tokens()) {
    items.push_back(token_view(token, now));
    if (options.json) continue;
    std::cout << token.id << "  " << token.role << std::string(8 - token.role.size(), ' ') << token_state(token, now) << "  created "
              << utc_text(token.created) << "  expires " << (token.expires > 0 ? utc_text(token.expires) : "never")
              << (token.label.empty() ? "" : "  " + token.label) << "\n";
  }
  if (options.json) {
    std::cout << Json{{"items", items}}.dump() << "\n";
  } else if (items.empty()) {
    std::cout << "no tokens\n";
  }
  return 0;
}

int revoke_token(const ToolOptions& options) {
  Store store = open_store(options.data);
  Store::Transaction transaction = store.begin();
  if (!store.token(options.id)) {
    throw Error(ErrorCode::kNotFound, "token \"" + options.id + "\": expected an id that 'onestep token list' shows, found none such");
  }
  const bool changed = store.revoke_token(options.id, unix_now());
  transaction.commit();
  if (options.json) {
    std::cout << Json{{"id", options.id}, {"state", "revoked"}}.dump() << "\n";
  } else {
    std::cout << "token " << options.id << (changed ? " revoked" : " was revoked before") << "\n";
  }
  return 0;
}

int make_backup(const ToolOptions& options) {
  const BackupSummary made = back_up(options.data, std::filesystem::absolute(options.out).lexically_normal().string());
  if (options.json) {
    std::cout << Json{{"folder", made.folder}, {"jobs", made.num_jobs}, {"files", made.num_files}, {"sha256", made.digest}}.dump() << "\n";
  } else {
    std::cout << "backed up " << made.num_jobs << " jobs and " << made.num_files << " files to " << made.folder << "\n";
  }
  return 0;
}

}  // namespace

bool is_data_tool(int argc, char** argv) {
  return argc > 1 && (std::string(argv[1]) == "token" || std::string(argv[1]) == "backup");
}

int run_data_tool(int argc, char** argv) {
  ToolOptions options;
  CLI::App app("Looks after a data folder, also while a coordinator runs on it.", "onestep");
  app.require_subcommand(1);
  const auto common = [&](CLI::App* tool) {
    tool->add_option("--data", options.data, "folder of the coordinator (default ./onestep-data)");
    tool->add_flag("--json", options.json, "print JSON");
    return tool;
  };
  CLI::App* token = app.add_subcommand("token", "tokens that REST lets in");
  token->require_subcommand(1);
  CLI::App* add = common(token->add_subcommand("add", "make one; it is printed once and never stored"));
  add->add_option("--role", options.role, "read, submit (read, submit and steer jobs) or admin")->required();
  add->add_option("--label", options.label, "for people: whose it is");
  add->add_option("--expires", options.expires, "90d, 12h, 30m, or never (default 90d)");
  add->add_option("--out", options.out, "write it to this file, mode 0600, and print nothing");
  CLI::App* list = common(token->add_subcommand("list", "list them"));
  CLI::App* revoke = common(token->add_subcommand("revoke", "one opens nothing any more, at once"));
  revoke->add_option("id", options.id, "its id, as list shows it")->required();
  CLI::App* backup = common(app.add_subcommand("backup", "copy the database and what checkpoints are known by"));
  backup->add_option("--out", options.out, "new folder for the copy")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::cerr << "onestep: " << error.what() << "\n";
    return exit_status(ErrorCode::kUsage);
  }
  options.data = std::filesystem::absolute(options.data).lexically_normal().string();
  if (backup->parsed()) return make_backup(options);
  if (add->parsed()) return add_token(options);
  if (list->parsed()) return list_tokens(options);
  return revoke_token(options);
}

}  // namespace onestep
