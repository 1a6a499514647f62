#include "coordinator/store_schema.h"

#include <array>

namespace onestep {
namespace {

constexpr const char* kFirst = R"sql(
CREATE TABLE pipelines(
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  created REAL NOT NULL) STRICT;
CREATE TABLE jobs(
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  kind TEXT NOT NULL,
  pipeline TEXT NOT NULL REFERENCES pipelines(id),
  parent TEXT REFERENCES jobs(id),
  parent_iteration INTEGER NOT NULL,
  ranks INTEGER NOT NULL,
  spec TEXT NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  failures INTEGER NOT NULL,
  not_before REAL NOT NULL,
  cancel_requested INTEGER NOT NULL,
  stop_requested REAL NOT NULL,
  created REAL NOT NULL,
  started REAL NOT NULL,
  ended REAL NOT NULL,
  digest TEXT NOT NULL,
  outcome TEXT,
  progress TEXT) STRICT;
CREATE INDEX jobs_by_state ON jobs(state);
CREATE INDEX jobs_by_name ON jobs(name);
CREATE INDEX jobs_by_pipeline ON jobs(pipeline);
CREATE INDEX jobs_by_parent ON jobs(parent);
CREATE TABLE dependencies(
  job TEXT NOT NULL REFERENCES jobs(id),
  position INTEGER NOT NULL,
  needs TEXT NOT NULL REFERENCES jobs(id),
  PRIMARY KEY(job, position)) STRICT, WITHOUT ROWID;
CREATE TABLE attempts(
  job TEXT NOT NULL REFERENCES jobs(id),
  number INTEGER NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  pid INTEGER NOT NULL,
  start_time INTEGER NOT NULL,
  started REAL NOT NULL,
  ended REAL NOT NULL,
  progress_mark INTEGER NOT NULL,
  outcome TEXT,
  PRIMARY KEY(job, number)) STRICT, WITHOUT ROWID;
CREATE TABLE checkpoints(
  job TEXT NOT NULL REFERENCES jobs(id),
  folder TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  iteration INTEGER NOT NULL,
  images INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  digest TEXT NOT NULL,
  committed REAL NOT NULL,
  frechet REAL,
  best INTEGER NOT NULL,
  PRIMARY KEY(job, folder)) STRICT, WITHOUT ROWID;
CREATE TABLE metrics(
  number INTEGER PRIMARY KEY,
  job TEXT NOT NULL REFERENCES jobs(id),
  key TEXT NOT NULL,
  stage TEXT NOT NULL,
  iteration INTEGER NOT NULL,
  images INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  rank INTEGER NOT NULL,
  value REAL NOT NULL,
  UNIQUE(job, key, stage, iteration)) STRICT;
CREATE TABLE messages(
  job TEXT NOT NULL REFERENCES jobs(id),
  attempt INTEGER NOT NULL,
  rank INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  PRIMARY KEY(job, attempt, rank, sequence)) STRICT, WITHOUT ROWID;
CREATE TABLE leases(
  job TEXT NOT NULL REFERENCES jobs(id),
  shard INTEGER NOT NULL,
  first INTEGER NOT NULL,
  count INTEGER NOT NULL,
  rank INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  state TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  PRIMARY KEY(job, shard)) STRICT, WITHOUT ROWID;
CREATE TABLE counters(
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO counters VALUES ('pipelines', 0), ('jobs', 0);
)sql";

// Curves by series, points in the order of their iterations, with the lowest and the highest of each
// stretch of 16, 256, ... iterations; events in the order in which they happened.
constexpr const char* kEventsAndSeries = R"sql(
CREATE TABLE events(
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  job TEXT NOT NULL REFERENCES jobs(id),
  type TEXT NOT NULL,
  time REAL NOT NULL,
  body TEXT NOT NULL) STRICT;
CREATE INDEX events_by_job ON events(job, number);
CREATE TABLE series(
  id INTEGER PRIMARY KEY,
  job TEXT NOT NULL REFERENCES jobs(id),
  key TEXT NOT NULL,
  stage TEXT NOT NULL,
  UNIQUE(job, key, stage)) STRICT;
CREATE TABLE points(
  series INTEGER NOT NULL,
  iteration INTEGER NOT NULL,
  images INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  rank INTEGER NOT NULL,
  value REAL NOT NULL,
  PRIMARY KEY(series, iteration)) STRICT, WITHOUT ROWID;
CREATE TABLE stretches(
  series INTEGER NOT NULL,
  level INTEGER NOT NULL,
  place INTEGER NOT NULL,
  count INTEGER NOT NULL,
  low REAL NOT NULL,
  low_iteration INTEGER NOT NULL,
  high REAL NOT NULL,
  high_iteration INTEGER NOT NULL,
  PRIMARY KEY(series, level, place)) STRICT, WITHOUT ROWID;
INSERT INTO series(job, key, stage)
  SELECT job, key, stage FROM metrics GROUP BY job, key, stage ORDER BY MIN(number);
INSERT INTO points
  SELECT series.id, iteration, images, attempt, rank, value FROM metrics JOIN series USING(job, key, stage);
DROP TABLE metrics;
WITH levels(level) AS (VALUES (1), (2), (3), (4), (5), (6)),
  lows AS (SELECT series, level, iteration >> (4 * level) AS place, COUNT(*) AS count,
             MIN(value) AS low, iteration AS low_iteration FROM points, levels GROUP BY 1, 2, 3),
  highs AS (SELECT series, level, iteration >> (4 * level) AS place,
             MAX(value) AS high, iteration AS high_iteration FROM points, levels GROUP BY 1, 2, 3)
INSERT INTO stretches
  SELECT series, level, place, count, low, low_iteration, high, high_iteration
  FROM lows JOIN highs USING(series, level, place);
)sql";

// Alarms, what they are judged by, and which figure makes a checkpoint the best.
constexpr const char* kAlarms = R"sql(
CREATE TABLE alarms(
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  job TEXT NOT NULL REFERENCES jobs(id),
  code TEXT NOT NULL,
  rank INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  stage TEXT NOT NULL,
  iteration INTEGER NOT NULL,
  images INTEGER NOT NULL,
  since_iteration INTEGER NOT NULL,
  since_images INTEGER NOT NULL,
  value REAL,
  bound REAL NOT NULL,
  reason TEXT NOT NULL,
  hint TEXT NOT NULL,
  action TEXT NOT NULL,
  raised REAL NOT NULL,
  ended REAL NOT NULL) STRICT;
CREATE INDEX alarms_by_job ON alarms(job, number);
CREATE INDEX alarms_that_hold ON alarms(code) WHERE ended = 0;
CREATE TABLE health(
  job TEXT PRIMARY KEY REFERENCES jobs(id),
  state TEXT NOT NULL) STRICT, WITHOUT ROWID;
ALTER TABLE checkpoints ADD COLUMN score REAL;
UPDATE checkpoints SET score = frechet;
)sql";

// Who may ask what of REST, and what the ranks of an attempt prove themselves with: digests alone.
constexpr const char* kTokens = R"sql(
CREATE TABLE tokens(
  id TEXT PRIMARY KEY,
  role TEXT NOT NULL,
  label TEXT NOT NULL,
  hash TEXT NOT NULL,
  created REAL NOT NULL,
  expires REAL NOT NULL,
  revoked REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE attempt_tokens(
  job TEXT NOT NULL REFERENCES jobs(id),
  attempt INTEGER NOT NULL,
  hash TEXT NOT NULL,
  PRIMARY KEY(job, attempt)) STRICT, WITHOUT ROWID;
)sql";

// What submissions with an Idempotency-Key were answered.
constexpr const char* kSubmissions = R"sql(
CREATE TABLE submissions(
  key TEXT PRIMARY KEY,
  fingerprint TEXT NOT NULL,
  pipeline TEXT NOT NULL REFERENCES pipelines(id),
  answer TEXT NOT NULL,
  created REAL NOT NULL) STRICT, WITHOUT ROWID;
)sql";

// What launched an attempt, and what that knows it by beyond a process of this host.
constexpr const char* kLaunchers = R"sql(
ALTER TABLE attempts ADD COLUMN launcher TEXT NOT NULL DEFAULT 'local';
ALTER TABLE attempts ADD COLUMN place TEXT NOT NULL DEFAULT '';
)sql";

constexpr std::array kSteps = {kFirst, kEventsAndSeries, kAlarms, kTokens, kSubmissions, kLaunchers};

}  // namespace

std::span<const char* const> schema_steps() { return kSteps; }

}  // namespace onestep
