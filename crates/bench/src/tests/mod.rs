//! The benchmarks against a small API server: that they measure what they say, and leave nothing behind.
//! How long anything takes is no test.

mod server;

use clap::Parser;

use crate::arrival::tests::stamped;
use crate::report::Report;
use crate::{Arguments, Cluster};
use server::Server;

async fn run(server: &Server, arguments: &str) -> anyhow::Result<Report> {
    let arguments = Arguments::try_parse_from(["bench"].into_iter().chain(arguments.split(' '))).unwrap();
    let server_pids = [std::process::id()].into();
    arguments.command.run(&Cluster { kubeconfig: server.kubeconfig(), context: None, server_pids }).await
}

fn value(report: &Report, name: &str) -> f64 {
    report.rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no {name} in {report}")).value
}

/// Runs a benchmark and checks what it created, what it reports and that nothing is left.
async fn check(arguments: &str, created: usize, rows: &[(&str, f64)]) {
    let server = Server::start().await;
    let report = run(&server, arguments).await.unwrap();
    for (name, expect) in rows {
        assert_eq!(value(&report, name), *expect, "{name}");
    }
    assert_eq!(server.created(), created);
    assert_eq!(server.left(), Vec::<String>::new());
}

#[tokio::test]
async fn create_pods_creates_as_many_as_it_says() {
    check("create-pods --count 50 --concurrency 8", 250, &[("pods", 50.0), ("concurrency", 8.0)]).await;
}

#[tokio::test]
async fn list_pods_lists_what_it_made_in_every_form() {
    check("list-pods --objects 20 --rounds 3 --page 7", 20, &[("pods", 20.0), ("lists in each form", 3.0)])
        .await;
}

#[tokio::test]
async fn operations_sends_each_sort_as_often_as_it_says() {
    check("operations --count 20 --concurrency 4", 20, &[("requests of each sort", 20.0)]).await;
}

#[tokio::test]
async fn churn_updates_objects_and_measures_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("log"), vec![0; 2_000_000]).unwrap();
    let arguments = format!("churn --objects 5 --updates 50 --data-dir {}", folder.path().display());
    check(&arguments, 0, &[("updates", 50.0), ("on disk after", 2.0)]).await;
}

#[tokio::test]
async fn memory_is_that_of_the_processes_named() {
    check("memory --watchers 3 --pods 10 --settle-seconds 0", 10, &[]).await;
}

#[tokio::test]
async fn custom_kinds_are_removed_again() {
    check("custom-kinds --count 4 --settle-seconds 0", 0, &[("definitions", 4.0)]).await;
}

#[tokio::test]
async fn two_servers_are_compared_figure_by_figure() {
    let _stamping = stamped().await;
    let (ours, upstream) = (Server::start().await, Server::start().await);
    let arguments = format!(
        "compare --upstream {} --upstream-pid {} --rounds 2 --only stalled",
        upstream.kubeconfig().display(),
        std::process::id()
    );
    let report = run(&ours, &arguments).await.unwrap();
    let row = report.rows.iter().find(|row| row.name.ends_with("server CPU per delivery")).unwrap();
    assert!(row.versus.is_some(), "{report}");
    assert_eq!((ours.created(), upstream.created()), (400, 400));
}

#[tokio::test]
async fn watch_fanout_waits_until_every_watcher_has_seen_every_pod() {
    let _stamping = stamped().await;
    check("watch-fanout --watchers 5 --events 4", 4, &[("watchers", 5.0), ("events", 4.0)]).await;
    check("watch-fanout --watchers 2 --events 4 --per-second 500", 4, &[("watchers", 2.0)]).await;
}

#[tokio::test]
async fn watches_share_connections_and_get_what_is_theirs() {
    let _stamping = stamped().await;
    let server = Server::start().await;
    run(&server, "watch-fanout --watchers 5 --share 2 --events 4").await.unwrap();
    assert_eq!((server.created(), server.shared()), (4, 3));
    run(&server, "memory --watchers 4 --share 2 --pods 0 --settle-seconds 0").await.unwrap();
    assert_eq!(server.shared(), 3 + 1 + 2);
}

#[tokio::test]
async fn pod_latency_warms_up_and_takes_one_pod_after_the_other() {
    check("pod-latency --count 3 --image good", 4, &[("pods", 3.0)]).await;
}

#[tokio::test]
async fn pod_burst_waits_for_all_pods() {
    check("pod-burst --count 5 --image good -- sleep inf", 5, &[("pods", 5.0)]).await;
}

#[tokio::test]
async fn a_benchmark_that_fails_says_why_and_leaves_nothing() {
    let server = Server::start().await;
    let error = run(&server, "pod-burst --count 3 --image bad").await.unwrap_err();
    assert!(error.to_string().contains("ErrImagePull"), "{error}");
    assert_eq!(server.left(), Vec::<String>::new());
}

#[tokio::test]
async fn the_load_generator_never_counts_itself() {
    let server = Server::start().await;
    let report = run(&server, &format!("idle --seconds 0 --pid {}", std::process::id())).await;
    assert_eq!(report.unwrap_err().to_string(), "no process is selected; name some with --pid or --name");
}

#[test]
fn the_command_line_is_sound() {
    use clap::CommandFactory;
    Arguments::command().debug_assert();
}
