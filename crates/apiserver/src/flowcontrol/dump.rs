//! The state of flow control as text, at `/debug/api_priority_and_fairness`. Follows `apf_controller_debug.go`.
//! Requests that run are not kept, so that running one costs nothing; `dump_requests` shows those that wait.

use apimachinery::time::format_micro_time;

use super::queues::Queue;
use super::seats::Level;
use super::{FlowControl, Waiter};

/// Columns of one line.
type Row = Vec<String>;

const LEVELS: [&str; 10] = [
    "PriorityLevelName",
    "ActiveQueues",
    "IsIdle",
    "IsQuiescing",
    "WaitingRequests",
    "ExecutingRequests",
    "DispatchedRequests",
    "RejectedRequests",
    "TimedoutRequests",
    "CancelledRequests",
];
const QUEUES: [&str; 9] = [
    "PriorityLevelName",
    "Index",
    "PendingRequests",
    "ExecutingRequests",
    "SeatsInUse",
    "NextDispatchR",
    "InitialSeatsSum",
    "MaxSeatsSum",
    "TotalWorkSum",
];
const REQUESTS: [&str; 10] = [
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
    "StartTime",
];
const DETAILS: [&str; 8] =
    ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];

impl FlowControl {
    /// The text of one of the paths; none for others.
    pub fn dump(&self, what: &str, with_details: bool) -> Option<String> {
        let seats = self.0.seats.lock();
        let mut levels: Vec<&Level<Waiter>> = seats.levels().collect();
        levels.sort_by(|a, b| a.name.cmp(&b.name));
        let rows: Vec<Row> = match what {
            "dump_priority_levels" => {
                let head = row(LEVELS);
                std::iter::once(head).chain(levels.iter().map(|level| self.level(level))).collect()
            }
            "dump_queues" => {
                std::iter::once(row(QUEUES)).chain(levels.iter().flat_map(|level| queues(level))).collect()
            }
            "dump_requests" => {
                let mut head = row(REQUESTS);
                head.extend(row(DETAILS).into_iter().filter(|_| with_details));
                let requests = levels.iter().flat_map(|level| requests(level, with_details));
                std::iter::once(head).chain(requests).collect()
            }
            _ => return None,
        };
        drop(seats);
        Some(table(&rows))
    }

    fn level(&self, level: &Level<Waiter>) -> Row {
        let totals = self.0.metrics.totals(&level.name);
        let all = level.queues.as_ref().map(|queues| queues.all()).unwrap_or_default();
        let active = all.iter().filter(|queue| !queue.waiting.is_empty()).count();
        let waiting: usize = all.iter().map(|queue| queue.waiting.len()).sum();
        vec![
            level.name.to_string(),
            active.to_string(),
            level.is_idle().to_string(),
            level.quiescing.to_string(),
            waiting.to_string(),
            level.running.to_string(),
            totals.dispatched.to_string(),
            totals.rejected.to_string(),
            totals.timed_out.to_string(),
            totals.cancelled.to_string(),
        ]
    }
}

fn row<const N: usize>(columns: [&str; N]) -> Row {
    columns.map(str::to_owned).to_vec()
}

fn of_level(level: &Level<Waiter>) -> impl Iterator<Item = (usize, &Queue<Waiter>)> {
    level.queues.as_ref().map(|queues| queues.all()).unwrap_or_default().iter().enumerate()
}

fn queues(level: &Level<Waiter>) -> Vec<Row> {
    let row = |(index, queue): (usize, &Queue<Waiter>)| {
        vec![
            level.name.to_string(),
            index.to_string(),
            queue.waiting.len().to_string(),
            queue.running.to_string(),
            queue.seats_running.to_string(),
            format!("{:.8}ss", queue.next_dispatch),
            queue.seats_waiting.to_string(),
            queue.seats_waiting.to_string(),
            format!("{:.8}ss", queue.work_waiting()),
        ]
    };
    of_level(level).map(row).collect()
}

fn requests(level: &Level<Waiter>, with_details: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for (index, queue) in of_level(level) {
        for (place, request) in queue.waiting.iter().enumerate() {
            let Waiter { rule, digest, .. } = &request.waiter;
            let (info, user) = (&digest.info, &digest.user);
            let mut columns = vec![
                level.name.to_string(),
                rule.schema.name.clone(),
                index.to_string(),
                place.to_string(),
                rule.schema.distinguished(info, user).to_owned(),
                format_micro_time(request.since),
                request.width.to_string(),
                "0".to_owned(),
                "0s".to_owned(),
                "0001-01-01T00:00:00Z".to_owned(),
            ];
            if with_details {
                let version = [info.group.as_str(), info.version.as_str()];
                let version: Vec<&str> = version.into_iter().filter(|part| !part.is_empty()).collect();
                let details = [&user.name, info.verb, &info.path, &info.namespace, &info.name];
                columns.extend(details.map(str::to_owned));
                columns.extend([version.join("/"), info.resource.clone(), info.subresource.clone()]);
            }
            rows.push(columns);
        }
    }
    rows
}

/// Columns below each other, as Go's tabwriter sets them.
fn table(rows: &[Row]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count() + 2).max().unwrap_or(0).max(8);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, text) in row.iter().enumerate() {
            if column + 1 == columns {
                out.push_str(text);
            } else {
                out.push_str(&format!("{:width$}", format!("{text},"), width = widths[column]));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apimachinery::json;
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn each_level_has_its_line() {
        let control = FlowControl::new(10, Arc::new(Timestamp::now));
        let exempt =
            json!({"metadata": {"name": "exempt", "uid": "1"}, "spec": {"type": "Exempt", "exempt": {}}});
        control.configure(&[exempt], &[]);
        let text = control.dump("dump_priority_levels", false).expect("is a dump");
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][..3], ["PriorityLevelName,", "ActiveQueues,", "IsIdle,"]);
        assert_eq!(lines[1], ["exempt,", "0,", "true,", "false,", "0,", "0,", "0,", "0,", "0,", "0"]);
        assert!(control.dump("dump_requests", true).is_some_and(|text| text.contains("UserName")));
        assert!(control.dump("dump_nothing", false).is_none());
    }
}
