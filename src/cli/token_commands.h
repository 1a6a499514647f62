// Tokens of a coordinator elsewhere: made, listed and revoked over REST by one of role admin.
#pragma once

#include "cli/client.h"
#include "cli/local_service.h"

namespace onestep {

// All print what the same command prints beside the data folder. Errors: those of Client; kUsage for an unknown length of time.
void add_token(const Client& client, const DataToolOptions& options, bool as_json);
void list_tokens(const Client& client, bool as_json);
void revoke_token(const Client& client, const DataToolOptions& options, bool as_json);

}  // namespace onestep
