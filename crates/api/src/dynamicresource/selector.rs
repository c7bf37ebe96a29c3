//! Expressions that choose devices: what they may name, and what a device is to them (follows
//! `k8s.io/dynamic-resource-allocation/cel`).

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use apimachinery::field::{Error, ErrorList};
use cel::{Bindings, Env, Key, ObjectType, Program, Struct, Text, Type, Val};

use crate::dynamicresource::validation::fits;
use crate::validation::At;
use crate::view::dynamicresource::{Device, DeviceAttribute};

/// What evaluating one for one device may cost (upstream: `CELSelectorExpressionMaxCost`).
const COST_MAX: u64 = 1_000_000;
/// Upstream: `CELSelectorExpressionMaxLength`.
const LENGTH_MAX: usize = 10 * 1024;
/// Selectors of one class or request (upstream: `DeviceSelectorsMaxSize`).
const SELECTORS_MAX: usize = 32;

const DEVICE: &str = "device";
const TYPE_NAME: &str = "kubernetes.DRADevice";

static ENV: LazyLock<Env> = LazyLock::new(|| {
    let by_name = |of: Type| Type::Map(Arc::new(Type::String), Arc::new(of));
    let fields = [
        ("driver", Type::String),
        ("allowMultipleAllocations", Type::Bool),
        ("attributes", by_name(by_name(Type::Dyn))),
        ("capacity", by_name(by_name(Type::Opaque("kubernetes.Quantity")))),
    ];
    let fields = fields.map(|(name, of)| (name.to_owned(), of));
    Env::new().with(DEVICE, Type::Object(ObjectType::new(TYPE_NAME, fields)))
});

/// An expression that says yes or no to a device.
#[derive(Debug)]
pub struct Selector(Program);

impl Selector {
    pub fn compile(expression: &str) -> Result<Self, String> {
        let program = ENV.compile(expression).map_err(|error| format!("compilation failed: {error}"))?;
        match program.of() {
            Type::Bool | Type::Dyn => Ok(Selector(program)),
            other => Err(format!("must evaluate to bool or the unknown type, not {other}")),
        }
    }

    pub fn matches(&self, driver: &str, device: &Device) -> Result<bool, String> {
        let bindings = Bindings::new().set(DEVICE, value(driver, device)?);
        match self.0.evaluate(&bindings, COST_MAX).result.map_err(|error| error.to_string())? {
            Val::Bool(answer) => Ok(answer),
            other => Err(format!("CEL result of type {} could not be converted to bool", other.type_name())),
        }
    }
}

type ByName<'v> = BTreeMap<Key<'v>, Val<'v>>;

fn value<'v>(driver: &'v str, device: &'v Device) -> Result<Val<'v>, String> {
    let mut attributes: BTreeMap<&str, ByName<'v>> = BTreeMap::new();
    for (name, attribute) in &device.attributes {
        let (domain, id) = split(driver, name);
        let value = attribute_value(attribute).map_err(|why| format!("attribute {name}: {why}"))?;
        attributes.entry(domain).or_default().insert(key(id), value);
    }
    let mut capacity: BTreeMap<&str, ByName<'v>> = BTreeMap::new();
    for (name, of) in &device.capacity {
        let (domain, id) = split(driver, name);
        capacity.entry(domain).or_default().insert(key(id), Val::Quantity(Arc::new(of.value)));
    }
    let fields = [
        ("driver", Val::Text(Text::Borrowed(driver))),
        ("allowMultipleAllocations", Val::Bool(device.allow_multiple_allocations == Some(true))),
        ("attributes", by_domain(attributes)),
        ("capacity", by_domain(capacity)),
    ];
    let fields = fields.into_iter().map(|(name, value)| (Arc::from(name), value)).collect();
    Ok(Val::Struct(Arc::new(Struct { name: TYPE_NAME.into(), fields })))
}

/// Domain and name; what has no domain of its own is in the driver's.
fn split<'v>(driver: &'v str, name: &'v str) -> (&'v str, &'v str) {
    name.split_once('/').unwrap_or((driver, name))
}

fn by_domain<'v>(domains: BTreeMap<&'v str, ByName<'v>>) -> Val<'v> {
    let entries = domains.into_iter().map(|(domain, entries)| (key(domain), Val::Map(Arc::new(entries))));
    Val::Maps(Arc::new(entries.collect()))
}

fn key(name: &str) -> Key<'_> {
    Key::Text(Text::Borrowed(name))
}

fn attribute_value(attribute: &DeviceAttribute) -> Result<Val<'_>, String> {
    Ok(match attribute {
        DeviceAttribute::Int(value) => Val::Int(*value),
        DeviceAttribute::Bool(value) => Val::Bool(*value),
        DeviceAttribute::String(text) => Val::Text(Text::Borrowed(text)),
        DeviceAttribute::Version(text) => {
            Val::semver(text).ok_or_else(|| format!("parse semantic version: {text:?} is none"))?
        }
    })
}

/// Checks the list `selectors` of a class or a request.
pub fn validate(selectors: &At, errors: &mut ErrorList) {
    if !fits(selectors, SELECTORS_MAX, errors) {
        return;
    }
    for selector in selectors.items() {
        let Some(cel) = selector.field("cel") else {
            errors.push(selector.get("cel").required(""));
            continue;
        };
        let expression = cel.get("expression");
        if expression.text().len() > LENGTH_MAX {
            errors.push(Error::too_long(&expression.path, LENGTH_MAX));
        } else if let Err(why) = Selector::compile(expression.text()) {
            errors.push(expression.invalid(&why));
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn check(expression: &str, expect: Result<bool, &str>) {
        let device: Device = apimachinery::from_value(json!({"name": "x",
            "attributes": {"size": {"int": 3}, "other.org/model": {"string": "A"}, "ready": {"bool": true},
                "firmware": {"version": "1.2.3"}},
            "capacity": {"memory": {"value": "4Gi"}}}))
        .unwrap();
        let found = Selector::compile(expression).and_then(|selector| selector.matches("d.org", &device));
        match (&found, expect) {
            (Err(found), Err(expect)) => assert!(found.contains(expect), "{expression}: {found}"),
            _ => assert_eq!(found.as_ref().ok(), expect.ok().as_ref(), "{expression}: {found:?}"),
        }
    }

    #[test]
    fn a_device_is_chosen_by_driver_attributes_and_capacity() {
        check("device.driver == 'd.org'", Ok(true));
        check("device.attributes['d.org'].size > 3", Ok(false));
        check("device.attributes['d.org'].ready", Ok(true));
        check("device.attributes['other.org'].model.startsWith('A')", Ok(true));
        check("device.capacity['d.org'].memory.compareTo(quantity('2Gi')) > 0", Ok(true));
        check("device.attributes['d.org'].firmware.isGreaterThan(semver('1.2.0'))", Ok(true));
        check("cel.bind(own, device.attributes['d.org'], own.ready && own.size == 3)", Ok(true));
        check("device.allowMultipleAllocations", Ok(false));
    }

    #[test]
    fn a_domain_that_no_device_names_has_no_attributes() {
        check("'size' in device.attributes['nobody.org']", Ok(false));
        check("'nobody.org' in device.attributes", Ok(false));
        check("'d.org' in device.attributes", Ok(true));
        check("device.attributes['nobody.org'].size > 1", Err("no such key: size"));
    }

    #[test]
    fn an_expression_must_compile_and_answer_yes_or_no() {
        check("device.nothing", Err("compilation failed"));
        check("device.driver", Err("must evaluate to bool or the unknown type, not string"));
        check(
            "device.attributes['d.org'].size",
            Err("CEL result of type int could not be converted to bool"),
        );
    }
}
