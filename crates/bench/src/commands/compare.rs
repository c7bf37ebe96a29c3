//! `compare`: the benchmarks of the API server against two servers in turn, and how many times better ours is.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use super::Command;
use crate::Cluster;
use crate::report::{Report, Row, Versus};

#[derive(Debug, clap::Args)]
pub struct Compare {
    /// The kubeconfig of upstream's server; ours is named by --kubeconfig and --server-pid
    #[arg(long)]
    upstream: PathBuf,
    /// Process IDs of upstream's API server and its etcd
    #[arg(long = "upstream-pid", required = true, value_name = "PID")]
    upstream_pids: Vec<u32>,
    /// How often both are measured, in turn; the mean counts
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Only benchmarks whose title holds this
    #[arg(long)]
    only: Option<String>,
}

/// Which way a figure is better.
#[derive(Clone, Copy)]
enum Better {
    Less,
    More,
}
use Better::{Less, More};

/// One figure of a benchmark: its row, which way it is better, and how many times better it should be.
type Figure = (&'static str, Better, Option<f64>);

struct Case {
    title: &'static str,
    command: &'static str,
    figures: &'static [Figure],
}

const LIST: &[Figure] = &[
    ("server CPU per list in JSON", Less, Some(10.0)),
    ("list in JSON, median", Less, None),
    ("server CPU per list in protobuf", Less, Some(10.0)),
    ("list in protobuf, median", Less, None),
    ("server CPU per list as Table", Less, Some(10.0)),
    ("list as Table, median", Less, None),
    ("server CPU per list by label", Less, Some(10.0)),
    ("list by label, median", Less, None),
    ("server CPU per list in pages", Less, Some(10.0)),
    ("list in pages, median", Less, None),
];
/// With as many changes as the server takes.
const DELIVERY: &[Figure] =
    &[("server CPU per delivery", Less, Some(8.0)), ("deliveries per second", More, None)];
/// With as many changes as both servers keep up with: whoever takes more changes has more to tell of.
const LAG: &[Figure] =
    &[("create to arrival, median", Less, None), ("create to arrival, p99", Less, Some(5.0))];

/// In the order in which they run: those that leave the server large come last.
const CASES: &[Case] = &[
    Case {
        title: "memory",
        command: "memory",
        figures: &[
            ("PSS at rest", Less, Some(10.0)),
            ("PSS per watch", Less, Some(5.0)),
            ("PSS per stored pod", Less, Some(4.0)),
        ],
    },
    Case {
        title: "1,000 watches, 100 on a connection",
        command: "memory --watchers 1000 --share 100 --pods 0",
        figures: &[("PSS per watch", Less, None)],
    },
    Case {
        title: "durable pod create, 32 connections",
        command: "create-pods",
        figures: &[
            ("server CPU per create", Less, Some(10.0)),
            ("creates per second", More, Some(4.0)),
            ("create, p99", Less, None),
        ],
    },
    Case {
        title: "single objects, 32 connections",
        command: "operations",
        figures: &[
            ("server CPU per get", Less, Some(10.0)),
            ("server CPU per status patch", Less, Some(10.0)),
            ("server CPU per lease renewal", Less, Some(10.0)),
            ("server CPU per delete", Less, Some(10.0)),
        ],
    },
    Case { title: "LIST of 3,000 pods", command: "list-pods", figures: LIST },
    Case { title: "watch, 100 watchers", command: "watch-fanout --events 200", figures: DELIVERY },
    Case {
        title: "watch, 1,000 watchers",
        command: "watch-fanout --watchers 1000 --events 50",
        figures: DELIVERY,
    },
    Case {
        title: "watch, 100 watchers, 20 changes a second",
        command: "watch-fanout --events 200 --per-second 20",
        figures: LAG,
    },
    Case {
        title: "watch, 1,000 watchers, 5 changes a second",
        command: "watch-fanout --watchers 1000 --events 50 --per-second 5",
        figures: LAG,
    },
    Case {
        title: "watch, 100 watchers and 20 that read nothing, 20 changes a second",
        command: "watch-fanout --events 200 --per-second 20 --stalled 20",
        figures: LAG,
    },
    Case {
        title: "watch, 100 watchers beside 20 stalled",
        command: "watch-fanout --events 200 --stalled 20",
        figures: DELIVERY,
    },
    Case {
        title: "watch, 10 connections of 100 watchers",
        command: "watch-fanout --watchers 1000 --share 100 --events 50",
        figures: DELIVERY,
    },
    Case {
        title: "watch, 10 connections of 100 watchers, 5 changes a second",
        command: "watch-fanout --watchers 1000 --share 100 --events 50 --per-second 5",
        figures: LAG,
    },
    Case { title: "LIST of 100,000 pods", command: "list-pods --objects 100000 --rounds 3", figures: LIST },
    Case {
        title: "1,000 custom kinds",
        command: "custom-kinds",
        figures: &[
            ("PSS per definition", Less, None),
            ("all served after", Less, None),
            ("discovery of all", Less, None),
            ("server CPU per definition", Less, None),
        ],
    },
];

/// A benchmark's command line without the program's name.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

impl Compare {
    pub async fn run(self, ours: &Cluster) -> Result<Report> {
        let upstream = Cluster {
            kubeconfig: self.upstream.clone(),
            context: None,
            server_pids: self.upstream_pids.iter().copied().collect(),
        };
        let chosen = |case: &&Case| self.only.as_ref().is_none_or(|only| case.title.contains(only));
        let mut report = Report::new("compare").row("rounds", self.rounds as f64, "");
        let mut failed = Vec::new();
        for case in CASES.iter().filter(chosen) {
            eprintln!("{}: {}", case.title, case.command);
            match case.compare(ours, &upstream, self.rounds).await {
                Ok(rows) => {
                    // All of them take half an hour, and may be cut short.
                    eprintln!("{}", Report { benchmark: case.command, rows: rows.clone() });
                    report.rows.extend(rows);
                }
                Err(error) => failed.push(format!("{}: {error:#}", case.title)),
            }
        }
        // What was measured is worth its time, whatever else went wrong.
        failed.iter().for_each(|failure| eprintln!("error: {failure}"));
        ensure!(report.rows.len() > 1, "nothing was measured");
        Ok(report)
    }
}

impl Case {
    async fn compare(&self, ours: &Cluster, upstream: &Cluster, rounds: usize) -> Result<Vec<Row>> {
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            mine.push(self.run(ours).await.context("against our server")?);
            theirs.push(self.run(upstream).await.context("against upstream's server")?);
        }
        self.figures.iter().map(|figure| self.compared(figure, &mine, &theirs)).collect()
    }

    async fn run(&self, cluster: &Cluster) -> Result<Report> {
        let line = Line::try_parse_from(self.command.split(' '))?;
        line.command.run(cluster).await
    }

    fn compared(&self, figure: &Figure, ours: &[Report], theirs: &[Report]) -> Result<Row> {
        let &(name, better, reach) = figure;
        let (ours, unit) = mean(ours, name)?;
        let (theirs, _) = mean(theirs, name)?;
        let ratio = match better {
            Less => theirs / ours,
            More => ours / theirs,
        };
        let versus = Some(Versus { value: theirs, ratio, reach });
        Ok(Row { name: format!("{}: {name}", self.title), value: ours, unit, versus })
    }
}

/// The mean of a figure over all rounds, and its unit.
fn mean(reports: &[Report], name: &str) -> Result<(f64, &'static str)> {
    let rows = reports.iter().map(|report| report.rows.iter().find(|row| row.name == name));
    let rows: Vec<_> = rows.collect::<Option<_>>().with_context(|| format!("{name} was not measured"))?;
    let unit = rows.first().context("no round was run")?.unit;
    Ok((rows.iter().map(|row| row.value).sum::<f64>() / rows.len() as f64, unit))
}
