//! What a claim asks for, with its device classes found and its selectors compiled.

use std::collections::HashMap;

use api::dynamicresource::selector::Selector;
use api::view::dynamicresource::{
    DeviceClass, DeviceSelector, DeviceTaint, ExactDeviceRequest, ResourceClaim,
};
use apimachinery::meta::NamespacedName;

use super::pools::Candidate;

pub struct Wanted<'a> {
    pub claim: &'a ResourceClaim,
    /// For each request, the alternatives that would do, the best first.
    pub requests: Vec<Vec<Request<'a>>>,
}

pub struct Request<'a> {
    /// Of the request, not of the alternative.
    pub base: &'a str,
    pub alternative: Option<&'a str>,
    pub exactly: &'a ExactDeviceRequest,
    pub class: &'a DeviceClass,
    /// Those of the class, then its own, each with what a complaint about it begins with.
    selectors: Vec<(String, Selector)>,
}

impl<'a> Wanted<'a> {
    pub fn new(
        claim: &'a ResourceClaim,
        classes: &HashMap<&'a str, &'a DeviceClass>,
    ) -> Result<Self, String> {
        let name = claim.metadata.namespaced_name();
        let requests = claim.spec.devices.requests.iter().map(|request| match &request.exactly {
            Some(exactly) => {
                Request::new(&name, &request.name, None, exactly, classes).map(|only| vec![only])
            }
            None => {
                let alternatives = request.first_available.iter();
                let alternative = alternatives
                    .map(|sub| Request::new(&name, &request.name, Some(&sub.name), &sub.exactly, classes));
                alternative.collect()
            }
        });
        Ok(Wanted { claim, requests: requests.collect::<Result<_, String>>()? })
    }
}

impl<'a> Request<'a> {
    fn new(
        claim: &NamespacedName,
        base: &'a str,
        alternative: Option<&'a str>,
        exactly: &'a ExactDeviceRequest,
        classes: &HashMap<&'a str, &'a DeviceClass>,
    ) -> Result<Self, String> {
        let class_name = exactly.device_class_name.as_str();
        let class = *classes.get(class_name).ok_or_else(|| {
            let request = alternative.unwrap_or(base);
            format!("claim {claim}, request {request}: could not retrieve device class {class_name}")
        })?;
        let mut selectors = compiled(&class.spec.selectors, &format!("class {class_name}"))?;
        selectors.extend(compiled(&exactly.selectors, &format!("claim {claim}"))?);
        Ok(Request { base, alternative, exactly, class, selectors })
    }

    /// As results and configurations call it.
    pub fn full_name(&self) -> String {
        match self.alternative {
            Some(alternative) => format!("{}/{alternative}", self.base),
            None => self.base.to_owned(),
        }
    }

    /// Whether it is among these; one that names the request means all its alternatives.
    pub fn is_in(&self, names: &[String]) -> bool {
        names.iter().any(|name| *name == self.base || *name == self.full_name())
    }

    /// Whether class and request choose the device.
    pub fn selects(&self, candidate: &Candidate<'_>) -> Result<bool, String> {
        for (whose, selector) in &self.selectors {
            let matches = selector.matches(candidate.id.driver, candidate.device);
            if !matches.map_err(|why| format!("{whose}: CEL runtime error: {why}"))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether all taints that keep others away are tolerated.
    pub fn tolerates(&self, taints: &[DeviceTaint]) -> bool {
        let keeps_away = |taint: &&DeviceTaint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        let is_tolerated = |taint| self.exactly.tolerations.iter().any(|t| t.tolerates(taint));
        taints.iter().filter(keeps_away).all(is_tolerated)
    }
}

fn compiled(selectors: &[DeviceSelector], whose: &str) -> Result<Vec<(String, Selector)>, String> {
    let each = selectors.iter().enumerate().map(|(n, selector)| {
        let whose = format!("{whose}: selector #{n}");
        let Some(cel) = &selector.cel else {
            return Err(format!("{whose}: CEL expression empty (unsupported selector type?)"));
        };
        match Selector::compile(&cel.expression) {
            Ok(selector) => Ok((whose, selector)),
            Err(why) => Err(format!("{whose}: CEL compile error: {why}")),
        }
    });
    each.collect()
}
