//! CronJob (follows `pkg/registry/batch/cronjob`).

use apimachinery::field::{Error, ErrorList};
use apimachinery::meta::str_at;
use apimachinery::{Value, json};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::job::{self, spec_warnings};
use super::schedule::Schedule;
use super::validation::spec_of_template;
use crate::columns::{AGE, NAME, NONE, age, column, format_label_selector, items, name, since, wide};
use crate::core::pod;
use crate::defaults::{Fill, fill, object, object_or_new};
use crate::strategy::{Column, Strategy, advance_generation, keep, set_first_generation};
use crate::validation::{At, same_field};

const SPEC: &[(&str, Fill)] = &[
    ("concurrencyPolicy", Fill::Text("Allow")),
    ("suspend", Fill::Bool(false)),
    ("successfulJobsHistoryLimit", Fill::Int(3)),
    ("failedJobsHistoryLimit", Fill::Int(1)),
    ("jobTemplate", Fill::Empty),
];
const CONCURRENCY_POLICIES: [&str; 3] = ["Allow", "Forbid", "Replace"];
/// A Job's name is this one's with a time of 11 characters, and at most 63 long.
const NAME_BYTES_MAX: usize = 52;
/// The longest part of a time zone's name.
const ZONE_PART_BYTES_MAX: usize = 14;

const COLUMNS: [Column; 10] = [
    NAME,
    column("Schedule", "string", "When it makes Jobs, as cron has it."),
    column("Timezone", "string", "The time zone of the schedule."),
    column("Suspend", "boolean", "Whether it makes no further Jobs."),
    column("Active", "integer", "Jobs that run."),
    column("Last Schedule", "string", "Time since it last made a Job."),
    AGE,
    wide("Containers", "string", "Names of the template's containers."),
    wide("Images", "string", "Images of the template's containers."),
    wide("Selector", "string", "Which pods belong to its Jobs."),
];

pub struct CronJob;

impl Strategy for CronJob {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty), ("status", Fill::Empty)]);
        let Some(spec) = object(obj, "spec") else { return };
        fill(spec, SPEC);
        let Some(template) = object(spec, "jobTemplate") else { return };
        fill(template, &[("metadata", Fill::Empty)]);
        if let Some(job) = object_or_new(template, "spec") {
            job::default_template(job);
        }
    }

    fn canonicalize(&self, obj: &mut Value) {
        let template = object(obj, "spec").and_then(|spec| object(spec, "jobTemplate"));
        if let Some(job) = template.and_then(|template| object(template, "spec")) {
            job::canonicalize_spec(job);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        obj["status"] = json!({});
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        let changed = !same_field(obj, old, "spec");
        advance_generation(obj, old, changed);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_spec(&At::root(obj).get("spec"), None, &mut errors);
        let name = At::root(obj).at(&["metadata", "name"]);
        if name.len() > NAME_BYTES_MAX {
            errors.push(name.invalid(format!("must be no more than {NAME_BYTES_MAX} characters")));
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_spec(&At::root(obj).get("spec"), Some(&old["spec"]), &mut errors);
        errors
    }

    fn warnings(&self, obj: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        match old {
            Some(old) if old["metadata"]["generation"] == obj["metadata"]["generation"] => return warnings,
            Some(_) => {}
            None => {
                let name = str_at(obj, &["metadata", "name"]);
                warnings.extend(pod::hostname_warning(name, "Pod names and hostnames"));
            }
        }
        warnings.extend(spec_warnings(&At::root(obj).at(&["spec", "jobTemplate", "spec"])));
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &obj["spec"];
        let suspend = if spec["suspend"] == true { "True" } else { "False" };
        let last = obj.pointer("/status/lastScheduleTime").filter(|time| !time.is_null());
        let template = &spec["jobTemplate"]["spec"];
        let (containers, images) = pod::container_cells(items(template, &["template", "spec", "containers"]));
        vec![
            name(obj),
            spec["schedule"].clone(),
            spec["timeZone"].as_str().unwrap_or(NONE).into(),
            suspend.into(),
            items(obj, &["status", "active"]).len().into(),
            last.map_or(NONE.into(), |time| since(Some(time), now)).into(),
            age(obj, now),
            containers.into(),
            images.into(),
            format_label_selector(template.get("selector")).into(),
        ]
    }
}

fn validate_spec(spec: &At, old: Option<&Value>, errors: &mut ErrorList) {
    let schedule = spec.get("schedule");
    if schedule.is_empty() {
        errors.push(schedule.required(""));
    } else {
        let zone_was_inside = old.is_some_and(|old| str_at(old, &["schedule"]).contains("TZ"));
        validate_schedule(&schedule, zone_was_inside, spec.get("timeZone").is_set(), errors);
    }
    spec.get("startingDeadlineSeconds").check_nonnegative(errors);
    if old.is_none_or(|old| !same_field(spec.value, old, "timeZone")) {
        validate_zone(&spec.get("timeZone"), errors);
    }
    spec.get("concurrencyPolicy").check_enum(&CONCURRENCY_POLICIES, errors);
    let job = spec.at(&["jobTemplate", "spec"]);
    spec_of_template(&job, errors);
    if let Some(selector) = job.field("selector") {
        errors.push(selector.invalid("`selector` will be auto-generated"));
    }
    let manual = job.get("manualSelector");
    if manual.is_true() {
        errors.push(manual.not_supported_of(&["nil", "false"]));
    }
    spec.get("successfulJobsHistoryLimit").check_nonnegative(errors);
    spec.get("failedJobsHistoryLimit").check_nonnegative(errors);
}

fn validate_schedule(schedule: &At, zone_was_inside: bool, has_zone: bool, errors: &mut ErrorList) {
    if let Err(error) = schedule.text().parse::<Schedule>() {
        errors.push(schedule.invalid(error.to_string()));
    }
    if !schedule.text().contains("TZ") {
        return;
    }
    if !zone_was_inside {
        errors.push(schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead"));
    } else if has_zone {
        errors.push(schedule.invalid("cannot use both timeZone field and TZ or CRON_TZ in schedule"));
    }
}

fn validate_zone(zone: &At, errors: &mut ErrorList) {
    if !zone.is_set() {
        return;
    }
    let name = zone.text();
    let is_part = |part: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b".-_+".contains(&b);
        let looks_right = (1..=ZONE_PART_BYTES_MAX).contains(&part.len()) && part.bytes().all(known);
        looks_right && part != "." && part != ".." && !part.starts_with('-')
    };
    if name.is_empty() {
        errors.push(zone.invalid("timeZone must be nil or non-empty string"));
    } else if name.eq_ignore_ascii_case("Local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(zone.invalid(detail));
    } else if !name.split('/').all(is_part) || TimeZone::get(name).is_err() {
        errors.push(Error::invalid(&zone.path, name, format!("unknown time zone {name}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;

    fn check(changes: &[(&str, Value)], expect: &[&str]) {
        let mut obj = json!({"metadata": {"name": "c"}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}}}});
        for (field, value) in changes {
            obj["spec"][field] = value.clone();
        }
        CronJob.default(&mut obj);
        expect_errors(&CronJob.validate(&obj), expect);
    }

    #[test]
    fn schedules_and_zones_are_checked() {
        check(&[], &[]);
        check(&[("schedule", json!(""))], &["spec.schedule: Required value"]);
        check(
            &[("schedule", json!("* * * *"))],
            &["spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4"],
        );
        check(
            &[("schedule", json!("TZ=UTC * * * * *"))],
            &["spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ"],
        );
        check(&[("timeZone", json!("Europe/Berlin"))], &[]);
        check(
            &[("timeZone", json!("Mars/Base"))],
            &["spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base"],
        );
        check(
            &[("timeZone", json!("../etc"))],
            &["spec.timeZone: Invalid value: \"../etc\": unknown time zone ../etc"],
        );
        check(
            &[("timeZone", json!(""))],
            &["spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string"],
        );
        check(&[("concurrencyPolicy", json!("Maybe"))], &["spec.concurrencyPolicy: Unsupported value"]);
    }

    #[test]
    fn a_long_name_leaves_no_room_for_the_time() {
        let obj = json!({"metadata": {"name": "n".repeat(53)}});
        assert!(
            CronJob
                .validate(&obj)
                .iter()
                .any(|e| e.to_string().contains("must be no more than 52 characters"))
        );
    }

    #[test]
    fn a_row_shows_the_schedule() {
        let obj = json!({"metadata": {"name": "c"}, "spec": {"schedule": "@daily", "suspend": true}, "status": {"active": [{}]}});
        let row = CronJob.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(
            row[..6],
            [json!("c"), json!("@daily"), json!("<none>"), json!("True"), json!(1), json!("<none>")]
        );
    }
}
