//! What a claim asks for (follows `validateDeviceClaim`).

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};

use crate::dynamicresource::selector;
use crate::dynamicresource::validation::{configuration, fits, fully_qualified_name, set, toleration};
use crate::validation::{At, dns1123_label, dns1123_subdomain};

/// Requests of one claim, and alternatives of one request.
pub const REQUESTS_MAX: usize = 32;
const SUB_REQUESTS_MAX: usize = 8;
/// Upstream: `DeviceConstraintsMaxSize` and `DeviceConfigMaxSize`.
const CONSTRAINTS_MAX: usize = 32;
pub const CONFIG_MAX: usize = 32;
/// Upstream: `DeviceTolerationsMaxLength`.
const TOLERATIONS_MAX: usize = 16;
const ALLOCATION_MODES: [&str; 2] = ["All", "ExactCount"];

/// The spec of a claim, or of a template of claims.
pub fn spec(spec: &At, errors: &mut ErrorList) {
    let devices = spec.get("devices");
    let names = RequestNames::of(&devices);
    set(&devices.get("requests"), REQUESTS_MAX, name_of, request, errors);
    let constraints = devices.get("constraints");
    if fits(&constraints, CONSTRAINTS_MAX, errors) {
        constraints.items().for_each(|it| constraint(&it, &names, errors));
    }
    let configs = devices.get("config");
    if fits(&configs, CONFIG_MAX, errors) {
        for config in configs.items() {
            names.check_references(&config.get("requests"), errors);
            configuration(&config, errors);
        }
    }
}

fn name_of<'a>(request: &At<'a>) -> &'a str {
    request.get("name").text()
}

/// The requests of a claim by name, each with its alternatives.
pub struct RequestNames<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> RequestNames<'a> {
    pub fn of(devices: &At<'a>) -> Self {
        let requests = devices.get("requests");
        let alternatives =
            |request: &At<'a>| request.get("firstAvailable").items().map(|it| name_of(&it)).collect();
        RequestNames(requests.items().map(|request| (name_of(&request), alternatives(&request))).collect())
    }

    /// Whether a request has the name, or with a slash one of its alternatives.
    fn has(&self, reference: &str) -> bool {
        match reference.split_once('/') {
            None => self.0.contains_key(reference),
            Some((request, alternative)) => self.0.get(request).is_some_and(|of| of.contains(alternative)),
        }
    }

    /// Which requests a constraint or a configuration is for.
    pub fn check_references(&self, list: &At, errors: &mut ErrorList) {
        set(list, REQUESTS_MAX, |it| it.text(), |it, errors| self.check_reference(it, errors), errors);
    }

    pub fn check_reference(&self, reference: &At, errors: &mut ErrorList) {
        let segments: Vec<Value> = reference.text().split('/').map(Value::from).collect();
        if segments.len() <= 2 {
            for segment in &segments {
                dns1123_label(&At::new(segment, reference.path.clone()), errors);
            }
        }
        if !self.has(reference.text()) {
            errors.push(reference.invalid("must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"));
        }
    }
}

fn request(request: &At, errors: &mut ErrorList) {
    dns1123_label(&request.get("name"), errors);
    let (exactly, alternatives) = (request.field("exactly"), request.get("firstAvailable"));
    match (exactly, alternatives.is_empty()) {
        (Some(_), false) => errors.push(Error::invalid(
            &request.path,
            Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        )),
        (None, true) => {
            errors.push(request.required("exactly one of `exactly` or `firstAvailable` is required"));
        }
        (Some(exactly), true) => wanted(&exactly, errors),
        (None, false) => set(&alternatives, SUB_REQUESTS_MAX, name_of, alternative, errors),
    }
}

fn alternative(alternative: &At, errors: &mut ErrorList) {
    dns1123_label(&alternative.get("name"), errors);
    wanted(alternative, errors);
}

/// What kind of device is wanted, and how many.
fn wanted(request: &At, errors: &mut ErrorList) {
    let (class, mode, count) =
        (request.get("deviceClassName"), request.get("allocationMode"), request.get("count"));
    if class.is_empty() {
        errors.push(class.required(""));
    } else {
        dns1123_subdomain(&class, errors);
    }
    selector::validate(&request.get("selectors"), errors);
    match mode.text() {
        "All" if count.int() != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.push(count.invalid(detail));
        }
        "ExactCount" => count.check_positive(errors),
        "All" => {}
        _ => errors.push(mode.not_supported(&ALLOCATION_MODES)),
    }
    let tolerations = request.get("tolerations");
    if fits(&tolerations, TOLERATIONS_MAX, errors) {
        tolerations.items().for_each(|it| toleration(&it, errors));
    }
}

fn constraint(constraint: &At, names: &RequestNames, errors: &mut ErrorList) {
    names.check_references(&constraint.get("requests"), errors);
    let attribute = constraint.field("matchAttribute").or_else(|| constraint.field("distinctAttribute"));
    match attribute {
        Some(attribute) => fully_qualified_name(&attribute, errors),
        // Upstream says so, though it is none that is set.
        None => errors.push(constraint.required("exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set")),
    }
}
