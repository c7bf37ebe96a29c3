//! Jobs made, refused, changed and shown.

use super::*;
use crate::testing::expect_errors;

fn job(changes: &[(&str, Value)]) -> Value {
    let mut obj = json!({"metadata": {"name": "j", "uid": "u", "resourceVersion": "1"}, "spec": {
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}});
    for (field, value) in changes {
        obj["spec"][field] = value.clone();
    }
    Job.default(&mut obj);
    Job.prepare_for_create(&mut obj);
    obj
}

fn check(changes: &[(&str, Value)], expect: &[&str]) {
    expect_errors(&Job.validate(&job(changes)), expect);
}

#[test]
fn a_job_runs_once_and_selects_its_own_pods() {
    let obj = job(&[]);
    assert_eq!(
        (&obj["spec"]["completions"], &obj["spec"]["parallelism"], &obj["spec"]["backoffLimit"]),
        (&json!(1), &json!(1), &json!(6))
    );
    assert_eq!(obj["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
    assert_eq!(obj["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
    check(&[], &[]);
    assert_eq!(job(&[("parallelism", json!(3))])["spec"]["completions"], Value::Null);
}

#[test]
fn limits_per_index_need_indexes() {
    check(
        &[("backoffLimitPerIndex", json!(1))],
        &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
    );
    let indexed = ("completionMode", json!("Indexed"));
    check(
        &[indexed.clone(), ("parallelism", json!(2))],
        &["spec.completions: Required value: when completion mode is Indexed"],
    );
    check(&[indexed.clone(), ("completions", json!(2)), ("backoffLimitPerIndex", json!(1))], &[]);
    check(
        &[indexed, ("completions", json!(2)), ("maxFailedIndexes", json!(3))],
        &[
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions",
        ],
    );
}

#[test]
fn pods_of_a_job_end() {
    let template = |policy: &str| json!({"spec": {"restartPolicy": policy, "containers": [{"name": "c", "image": "i:1"}]}});
    check(
        &[("template", template("Always"))],
        &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
    );
    let policy = json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}]});
    check(
        &[("template", template("OnFailure")), ("podFailurePolicy", policy)],
        &["spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported"],
    );
}

#[test]
fn failure_rules_say_what_and_when() {
    let rule = |rule: Value| ("podFailurePolicy", json!({"rules": [rule]}));
    check(&[rule(json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}))], &[]);
    check(
        &[rule(json!({"action": "Ignore"}))],
        &[
            "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
        ],
    );
    check(
        &[rule(
            json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [0, 3, 2], "containerName": "x"}}),
        )],
        &[
            "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
            "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"x\": must be one of",
            "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
            "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [0,3,2]: must be ordered",
        ],
    );
}

#[test]
fn the_template_changes_only_before_pods_are_made() {
    let old = job(&[]);
    let mut new = old.clone();
    new["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
    expect_errors(&Job.validate_update(&new, &old), &["spec.template: Invalid value"]);
    let suspended = job(&[("suspend", json!(true))]);
    let mut new = suspended.clone();
    new["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
    expect_errors(&Job.validate_update(&new, &suspended), &[]);
    new["spec"]["template"]["spec"]["containers"][0]["image"] = "other".into();
    expect_errors(&Job.validate_update(&new, &suspended), &["spec.template: Invalid value"]);
}

#[test]
fn indexed_jobs_grow_and_shrink_with_their_parallelism() {
    let old =
        job(&[("completionMode", json!("Indexed")), ("completions", json!(2)), ("parallelism", json!(2))]);
    let mut new = old.clone();
    new["spec"]["completions"] = 3.into();
    expect_errors(
        &Job.validate_update(&new, &old),
        &["spec.completions: Invalid value: 3: can only be modified in tandem with"],
    );
    new["spec"]["parallelism"] = 3.into();
    expect_errors(&Job.validate_update(&new, &old), &[]);
}

#[test]
fn an_end_stays_an_end() {
    let condition = |kind: &str| json!({"type": kind, "status": "True"});
    let with = |status: Value| {
        let mut obj = job(&[]);
        obj["status"] = status;
        obj
    };
    let done = with(json!({"conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
        "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:05Z", "succeeded": 1}));
    let running = with(json!({"startTime": "2026-01-01T00:00:00Z", "active": 1}));
    expect_errors(&Job.validate_status_update(&done, &running), &[]);
    expect_errors(
        &Job.validate_status_update(&running, &done),
        &[
            "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
            "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
            "status.succeeded: Invalid value: 0: cannot decrease the succeeded counter",
        ],
    );
    let hasty = with(json!({"conditions": [condition("Complete")], "startTime": "2026-01-01T00:00:00Z"}));
    expect_errors(
        &Job.validate_status_update(&hasty, &running),
        &[
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            "status.completionTime: Required value: completionTime is required for Complete jobs",
        ],
    );
}

#[test]
fn a_row_shows_how_far_it_is() {
    let mut obj = job(&[("completions", json!(3))]);
    obj["status"] = json!({"succeeded": 1, "startTime": "2026-01-01T00:00:00Z"});
    let now = "2026-01-01T00:00:10Z".parse().expect("a time");
    assert_eq!(Job.row(&obj, now)[..4], [json!("j"), json!("Running"), json!("1/3"), json!("10s")]);
}
