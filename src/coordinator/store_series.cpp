// The store's curves: points by series and iteration, and over them the lowest and the highest of
// stretches of 16, 256, ... iterations, so that a curve of any length opens in the same time.
#include <algorithm>
#include <set>
#include <utility>

#include "coordinator/series.h"
#include "coordinator/store_database.h"

namespace onestep {
namespace {

using Database = Store::Database;
using Touched = std::set<std::pair<std::int64_t, std::int64_t>>;  // series, place on a level

struct SeriesRow {
  std::int64_t id = 0;
  std::string key;
  std::string stage;
  std::int64_t count = 0;
};

std::int64_t series_id(Database& database, const std::string& job, const MetricPoint& point) {
  Statement& known =
      database.statement("SELECT id FROM series WHERE job = ? AND key = ? AND stage = ?");
  known << job << point.key << point.stage;
  std::int64_t id = 0;
  while (known.step()) known >> id;
  if (id != 0) return id;
  Statement& insert = database.statement("INSERT INTO series(job, key, stage) VALUES (?, ?, ?)");
  (insert << job << point.key << point.stage).run();
  return sqlite3_last_insert_rowid(database.handle);
}

// The stretches of `level` (0: the points, each its own stretch) at places first .. last.
std::vector<Stretch> read_stretches(Database& database, std::int64_t series, int level,
                                    std::int64_t first, std::int64_t last) {
  std::vector<Stretch> stretches;
  if (level == 0) {
    Statement& rows = database.statement(
        "SELECT iteration, value FROM points WHERE series = ? AND iteration BETWEEN ? AND ? "
        "ORDER BY iteration");
    rows << series << first << last;
    while (rows.step()) {
      Stretch& one = stretches.emplace_back();
      rows >> one.place >> one.low;
      one.count = 1;
      one.high = one.low;
      one.low_iteration = one.high_iteration = one.place;
    }
    return stretches;
  }
  Statement& rows = database.statement(
      "SELECT place, count, low, low_iteration, high, high_iteration FROM stretches "
      "WHERE series = ? AND level = ? AND place BETWEEN ? AND ? ORDER BY place");
  rows << series << level << first << last;
  while (rows.step()) {
    Stretch& one = stretches.emplace_back();
    rows >> one.place >> one.count >> one.low >> one.low_iteration >> one.high >>
        one.high_iteration;
  }
  return stretches;
}

// Each from the 16 below it: right whether a point below was added or replaced.
void update_stretches(Database& database, Touched touched) {
  for (int level = 1; level <= kStretchLevels; ++level) {
    Touched above;
    for (const auto& [series, place] : touched) {
      const std::int64_t first = place << kStretchShift;
      const std::vector<Stretch> below = read_stretches(
          database, series, level - 1, first, first + (1 << kStretchShift) - 1);
      const Stretch whole = merged(below, 1).at(0);
      Statement& insert = database.statement(
          "INSERT OR REPLACE INTO stretches VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
      (insert << series << level << place << whole.count << whole.low << whole.low_iteration
              << whole.high << whole.high_iteration)
          .run();
      above.emplace(series, place >> kStretchShift);
    }
    touched = std::move(above);
  }
}

constexpr std::int64_t kAnyPlace = std::int64_t{1} << 59;

std::vector<SeriesRow> series_of(Database& database, const std::string& job,
                                 const std::vector<std::string>& keys) {
  std::vector<SeriesRow> found;
  Statement& rows =
      database.statement("SELECT id, key, stage FROM series WHERE job = ? ORDER BY id");
  rows << job;
  while (rows.step()) {
    SeriesRow& row = found.emplace_back();
    rows >> row.id >> row.key >> row.stage;
  }
  if (!keys.empty()) {
    std::erase_if(found, [&](const SeriesRow& row) {
      return std::find(keys.begin(), keys.end(), row.key) == keys.end();
    });
  }
  for (SeriesRow& row : found) {
    for (const Stretch& one : read_stretches(database, row.id, kStretchLevels, 0, kAnyPlace)) {
      row.count += one.count;
    }
  }
  return found;
}

MetricPoint read_point(Statement& row, const SeriesRow& series) {
  MetricPoint point;
  point.key = series.key;
  point.stage = series.stage;
  row >> point.iteration >> point.images >> point.attempt >> point.rank >> point.value;
  return point;
}

std::vector<MetricPoint> all_points(Database& database, const SeriesRow& series) {
  Statement& rows = database.statement(
      "SELECT iteration, images, attempt, rank, value FROM points WHERE series = ? "
      "ORDER BY iteration");
  rows << series.id;
  std::vector<MetricPoint> points;
  while (rows.step()) points.push_back(read_point(rows, series));
  return points;
}

// At most 2 * num_groups points: the lowest and the highest of each group of stretches, taken from
// the coarsest level that has enough of them.
std::vector<MetricPoint> extreme_points(Database& database, const SeriesRow& series,
                                        std::int64_t num_groups) {
  std::vector<Stretch> stretches;
  for (int level = kStretchLevels; level >= 0; --level) {
    stretches = read_stretches(database, series.id, level, 0, kAnyPlace);
    if (static_cast<std::int64_t>(stretches.size()) >= num_groups) break;
  }
  std::set<std::int64_t> iterations;
  for (const Stretch& group : merged(stretches, num_groups)) {
    iterations.insert(group.low_iteration);
    iterations.insert(group.high_iteration);
  }
  std::vector<MetricPoint> points;
  for (const std::int64_t iteration : iterations) {
    Statement& row = database.statement(
        "SELECT iteration, images, attempt, rank, value FROM points WHERE series = ? AND "
        "iteration = ?");
    row << series.id << iteration;
    while (row.step()) points.push_back(read_point(row, series));
  }
  return points;
}

}  // namespace

void Store::insert_metrics(const std::string& job, const std::vector<MetricPoint>& points) {
  Touched touched;
  const MetricPoint* last = nullptr;
  std::int64_t series = 0;
  for (const MetricPoint& point : points) {
    if (last == nullptr || last->key != point.key || last->stage != point.stage) {
      series = series_id(*database_, job, point);
    }
    last = &point;
    Statement& insert =
        database_->statement("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?)");
    (insert << series << point.iteration << point.images << point.attempt << point.rank
            << point.value)
        .run();
    touched.emplace(series, point.iteration >> kStretchShift);
  }
  update_stretches(*database_, std::move(touched));
}

std::vector<MetricSeries> Store::metrics(const std::string& job,
                                         const std::vector<std::string>& keys,
                                         std::int64_t max_points) {
  const std::vector<SeriesRow> rows = series_of(*database_, job, keys);
  std::vector<MetricSeries> curves;
  std::vector<std::int64_t> totals;
  for (const SeriesRow& row : rows) {
    const auto known = std::find_if(curves.begin(), curves.end(), [&](const MetricSeries& curve) {
      return curve.key == row.key;
    });
    const auto at = static_cast<std::size_t>(known - curves.begin());
    if (known == curves.end()) {
      curves.push_back({row.key, {}});
      totals.push_back(0);
    }
    totals[at] += row.count;
  }
  for (const SeriesRow& row : rows) {
    std::size_t at = 0;
    while (curves[at].key != row.key) ++at;
    const bool whole = max_points <= 0 || totals[at] <= max_points;
    // Stages share the points by their lengths; a short one keeps its lowest and highest.
    const std::int64_t share = whole ? 0 : std::max<std::int64_t>(1, max_points * row.count / totals[at] / 2);
    std::vector<MetricPoint> points =
        whole ? all_points(*database_, row) : extreme_points(*database_, row, share);
    std::move(points.begin(), points.end(), std::back_inserter(curves[at].points));
  }
  for (MetricSeries& curve : curves) curve.points = thinned(std::move(curve.points), max_points);
  return curves;
}

}  // namespace onestep
