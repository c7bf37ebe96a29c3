//! Shares of a device that several claims may have: how much a request takes, and whether that is left (follows
//! upstream's `CmpRequestOverCapacity` and `GetConsumedCapacityFromRequest`).

use std::collections::BTreeMap;

use api::view::dynamicresource::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, Device, DeviceCapacity, ExactDeviceRequest,
};
use apimachinery::quantity::{Format, Quantity};

/// What the request takes of each of the device's capacities; nothing when the device cannot serve it at all.
pub fn taken(request: &ExactDeviceRequest, device: &Device) -> Option<BTreeMap<String, Quantity>> {
    let asked = |name: &str| request.capacity.as_ref()?.requests.get(name);
    let mut names = request.capacity.iter().flat_map(|capacity| capacity.requests.keys());
    if !names.all(|name| device.capacity.contains_key(name)) {
        return None;
    }
    let each = device.capacity.iter().map(|(name, capacity)| {
        let amount = rounded(asked(name), capacity);
        let is_valid = capacity.request_policy.as_ref().is_none_or(|policy| allows(policy, amount));
        (is_valid && amount <= capacity.value).then(|| (name.clone(), amount))
    });
    each.collect()
}

/// Whether `taken` is left when others have `others` of the same device.
pub fn is_left<'a>(
    taken: &BTreeMap<String, Quantity>,
    others: impl Fn(&str) -> Quantity,
    device: &'a Device,
) -> bool {
    let left = |(name, capacity): (&'a String, &'a DeviceCapacity)| {
        let mut sum = others(name);
        if let Some(amount) = taken.get(name) {
            sum.add(amount);
        }
        sum <= capacity.value
    };
    device.capacity.iter().all(left)
}

/// Who asks for nothing gets what the policy says, or all; otherwise the next amount that may be had.
fn rounded(asked: Option<&Quantity>, capacity: &DeviceCapacity) -> Quantity {
    let policy = capacity.request_policy.as_ref();
    let Some(asked) = asked else {
        return policy.and_then(|policy| policy.default).unwrap_or(capacity.value);
    };
    let Some(policy) = policy else { return *asked };
    match &policy.valid_range {
        Some(CapacityRequestPolicyRange { min: Some(min), step, .. }) => {
            up_to_step(asked, min, step.as_ref())
        }
        _ => policy.valid_values.iter().find(|valid| *asked <= **valid).copied().unwrap_or(*asked),
    }
}

fn up_to_step(asked: &Quantity, min: &Quantity, step: Option<&Quantity>) -> Quantity {
    if asked < min {
        return *min;
    }
    let Some(step) = step.map(Quantity::value).filter(|step| *step > 0) else { return *asked };
    let steps = asked.value().saturating_sub(min.value()).unsigned_abs().div_ceil(step.unsigned_abs());
    let above = i64::try_from(steps).unwrap_or(i64::MAX).saturating_mul(step);
    Quantity::new(min.value().saturating_add(above), Format::BinarySi)
}

fn allows(policy: &CapacityRequestPolicy, amount: Quantity) -> bool {
    if policy.default == Some(amount) {
        return true;
    }
    match &policy.valid_range {
        Some(range) => {
            let min = range.min.unwrap_or_default().value();
            let step = range.step.as_ref().map(Quantity::value).filter(|step| *step > 0);
            range.max.is_none_or(|max| amount <= max)
                && step.is_none_or(|step| amount.value().saturating_sub(min) % step == 0)
        }
        None => policy.valid_values.is_empty() || policy.valid_values.contains(&amount),
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;

    fn check(policy: Value, asked: Option<&str>, expect: Option<&str>) {
        let device = json!({"capacity": {"memory": {"value": "10Gi", "requestPolicy": policy}}});
        let device: Device = apimachinery::from_value(device).unwrap();
        let capacity = asked.map(|amount| json!({"requests": {"memory": amount}}));
        let request: ExactDeviceRequest = apimachinery::from_value(json!({"capacity": capacity})).unwrap();
        let amount = taken(&request, &device).map(|taken| taken["memory"]);
        assert_eq!(amount, expect.map(|text| text.parse().unwrap()), "{policy} {asked:?}");
    }

    #[test]
    fn a_request_takes_the_next_amount_that_may_be_had() {
        check(Value::Null, None, Some("10Gi"));
        check(Value::Null, Some("3Gi"), Some("3Gi"));
        check(Value::Null, Some("11Gi"), None);
        check(json!({"default": "1Gi"}), None, Some("1Gi"));
        check(json!({"default": "1Gi", "validValues": ["1Gi", "4Gi"]}), Some("2Gi"), Some("4Gi"));
        check(json!({"default": "1Gi", "validValues": ["1Gi", "4Gi"]}), Some("5Gi"), None);
        let range = json!({"default": "1Gi", "validRange": {"min": "1Gi", "max": "6Gi", "step": "2Gi"}});
        check(range.clone(), Some("512Mi"), Some("1Gi"));
        check(range.clone(), Some("2Gi"), Some("3Gi"));
        check(range, Some("6Gi"), None);
    }

    #[test]
    fn a_capacity_that_the_device_has_not_cannot_be_asked_for() {
        let request = json!({"capacity": {"requests": {"bandwidth": "1"}}});
        let request: ExactDeviceRequest = apimachinery::from_value(request).unwrap();
        assert_eq!(taken(&request, &Device::default()), None);
    }
}
