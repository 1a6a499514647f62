// The database's layout as the steps that led to it: a database of any earlier version is brought up step by step.
#pragma once

#include <span>

namespace onestep {

// Step i leads from version i to version i + 1; version 0 is an empty file. A step that was ever released is never
// changed: what is new gets a step of its own at the end.
std::span<const char* const> schema_steps();

}  // namespace onestep
