//! ComponentStatus: how a part of the control plane is, found out when asked and never stored (follows
//! `printComponentStatus`).

use apimachinery::meta::str_at;
use apimachinery::{Value, json};
use jiff::Timestamp;

use crate::columns::{NAME, column, items, name};
use crate::strategy::{Column, Strategy};

const HEALTHY: &str = "Healthy";

const COLUMNS: [Column; 4] = [
    NAME,
    column("Status", "string", "Whether the component is healthy."),
    column("Message", "string", "What it says of itself."),
    column("Error", "string", "Why it cannot be asked."),
];

pub struct ComponentStatus;

impl Strategy for ComponentStatus {
    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, _now: Timestamp) -> Vec<Value> {
        let healthy = items(obj, &["conditions"]).iter().find(|c| str_at(c, &["type"]) == HEALTHY);
        let said = |field: &str| healthy.map_or("", |condition| str_at(condition, &[field]));
        let status = match said("status") {
            "True" => HEALTHY,
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        vec![name(obj), status.into(), said("message").into(), said("error").into()]
    }
}

/// The status of a component, which says `ok` or why not.
pub fn of(component: &str, health: Result<(), String>) -> Value {
    let (status, message) = match health {
        Ok(()) => ("True", "ok".to_owned()),
        Err(why) => ("False", why),
    };
    json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": component},
           "conditions": [{"type": HEALTHY, "status": status, "message": message}]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_shown_with_what_it_says() {
        let row = |status: &Value| ComponentStatus.row(status, Timestamp::UNIX_EPOCH);
        assert_eq!(
            row(&of("scheduler", Ok(()))),
            [json!("scheduler"), json!("Healthy"), json!("ok"), json!("")]
        );
        let refused = of("scheduler", Err("connection refused".to_owned()));
        assert_eq!(row(&refused)[1..3], [json!("Unhealthy"), json!("connection refused")]);
        assert_eq!(row(&json!({"metadata": {"name": "x"}}))[1], "Unknown");
    }
}
