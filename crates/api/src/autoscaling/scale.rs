//! Scale: a workload as its number of replicas (follows `printScale`).

use apimachinery::Value;
use jiff::Timestamp;

use crate::columns::{AGE, age, column, count, name};
use crate::strategy::{Column, Strategy};

const COLUMNS: [Column; 4] = [
    column("Name", "string", "The name of the workload."),
    column("Desired", "integer", "How many replicas there should be."),
    column("Available", "integer", "How many there are."),
    AGE,
];

pub struct Scale;

impl Strategy for Scale {
    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let replicas = |part: &str| count(obj, &[part, "replicas"]).into();
        vec![name(obj), replicas("spec"), replicas("status"), age(obj, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn a_scale_shows_what_is_wanted_and_what_is_there() {
        let scale = json!({"metadata": {"name": "web"}, "spec": {"replicas": 3}, "status": {"replicas": 2}});
        assert_eq!(Scale.row(&scale, Timestamp::UNIX_EPOCH)[..3], [json!("web"), json!(3), json!(2)]);
    }
}
