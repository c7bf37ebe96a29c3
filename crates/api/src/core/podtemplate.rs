//! PodTemplate: a template kept by itself (follows `pkg/registry/core/podtemplate`).

use apimachinery::Value;
use apimachinery::field::ErrorList;
use jiff::Timestamp;

use super::pod;
use super::pod::validation::validate_template;
use crate::columns::{NAME, column, format_labels, items, name};
use crate::defaults::{Fill, fill, object};
use crate::strategy::{Column, Strategy, advance_generation, set_first_generation};
use crate::validation::{At, same_field};

const COLUMNS: [Column; 4] = [
    NAME,
    column("Containers", "string", "Names of each container in the template."),
    column("Images", "string", "Images referenced by each container in the template."),
    column("Pod Labels", "string", "The labels for the pod template."),
];

pub struct PodTemplate;

impl Strategy for PodTemplate {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("template", Fill::Empty)]);
        if let Some(template) = object(obj, "template") {
            pod::defaults::pod_template(template);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        advance_generation(obj, old, !same_field(obj, old, "template"));
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_template(&At::root(obj).get("template"), &mut errors);
        errors
    }

    fn warnings(&self, obj: &Value, _old: Option<&Value>) -> Vec<String> {
        pod::template_warnings(&At::root(obj).get("template"))
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, _now: Timestamp) -> Vec<Value> {
        let (containers, images) = pod::container_cells(items(obj, &["template", "spec", "containers"]));
        vec![
            name(obj),
            containers.into(),
            images.into(),
            format_labels(obj.pointer("/template/metadata/labels")).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn a_template_is_defaulted_and_checked_as_a_pod() {
        let mut obj = json!({"metadata": {"name": "t"}, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}});
        PodTemplate.default(&mut obj);
        assert_eq!(obj["template"]["spec"]["restartPolicy"], "Always");
        expect_errors(&PodTemplate.validate(&obj), &[]);
        obj["template"]["spec"]["containers"][0]["image"] = "".into();
        expect_errors(&PodTemplate.validate(&obj), &["template.spec.containers[0].image: Required value"]);
    }
}
