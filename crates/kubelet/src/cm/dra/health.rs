//! What drivers have told of how their devices are; what is too old to be relied on is not known any more (follows
//! upstream's `healthInfoCache`).

use std::collections::BTreeMap;

use dra::health::{DeviceHealth, HealthStatus};
use jiff::{SignedDuration, Timestamp};

use crate::cm::resourcestatus::Health;

/// How long what a driver tells holds when it does not say (upstream: `DefaultHealthTimeout`).
const TIMEOUT: SignedDuration = SignedDuration::from_secs(30);
/// Upstream: `ResourceHealthMessageMaxLength`.
const MESSAGE_MAX: usize = 1024;

/// By driver, pool and device.
#[derive(Debug, Default)]
pub struct HealthInfos(BTreeMap<(String, String, String), Told>);

#[derive(Clone, Debug, PartialEq)]
struct Told {
    health: Health,
    message: String,
    until: Timestamp,
}

impl HealthInfos {
    /// Takes what a driver tells; whether anything is not as it was.
    pub fn update(&mut self, driver: &str, told: Vec<DeviceHealth>, now: Timestamp) -> bool {
        let mut is_news = false;
        for device in told {
            let id = device.device.clone().unwrap_or_default();
            let key = (driver.to_owned(), id.pool_name, id.device_name);
            let new = Told::new(device, now);
            let old = self.0.insert(key, new.clone());
            let is_same = |old: Told| (old.current(now), old.message) == (new.health, new.message.clone());
            is_news |= !old.is_some_and(is_same);
        }
        is_news
    }

    /// A driver tells nothing any more; whether anything was known.
    pub fn clear(&mut self, driver: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(other, ..), _| other != driver);
        self.0.len() != before
    }

    pub fn get(&self, driver: &str, pool: &str, device: &str, now: Timestamp) -> (Health, String) {
        let told = self.0.get(&(driver.to_owned(), pool.to_owned(), device.to_owned()));
        told.map(|told| (told.current(now), told.message.clone())).unwrap_or_default()
    }
}

impl Told {
    fn new(device: DeviceHealth, now: Timestamp) -> Self {
        let seconds = device.health_check_timeout_seconds;
        let timeout = if seconds > 0 { SignedDuration::from_secs(seconds) } else { TIMEOUT };
        let health = match device.health() {
            HealthStatus::Healthy => Health::Healthy,
            HealthStatus::Unhealthy => Health::Unhealthy,
            HealthStatus::Unknown => Health::Unknown,
        };
        let until = now.saturating_add(timeout).unwrap_or(Timestamp::MAX);
        Told { health, message: shortened(device.message), until }
    }

    fn current(&self, now: Timestamp) -> Health {
        if now <= self.until { self.health } else { Health::Unknown }
    }
}

fn shortened(message: String) -> String {
    const SUFFIX: &str = "...";
    if message.len() <= MESSAGE_MAX {
        return message;
    }
    let end = message.floor_char_boundary(MESSAGE_MAX - SUFFIX.len());
    format!("{}{SUFFIX}", &message[..end])
}

#[cfg(test)]
mod tests {
    use dra::health::DeviceIdentifier;

    use super::*;

    fn told(health: HealthStatus, seconds: i64) -> Vec<DeviceHealth> {
        let device = DeviceIdentifier { pool_name: "p".into(), device_name: "x".into() };
        vec![DeviceHealth {
            device: Some(device),
            health: health.into(),
            health_check_timeout_seconds: seconds,
            message: "m".repeat(2000),
            ..DeviceHealth::default()
        }]
    }

    #[test]
    fn what_is_told_holds_for_a_while_and_only_changes_are_news() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut infos = HealthInfos::default();
        let health = |infos: &HealthInfos, now| infos.get("d", "p", "x", now).0;
        assert_eq!(health(&infos, at(0)), Health::Unknown);
        assert!(infos.update("d", told(HealthStatus::Healthy, 0), at(0)));
        assert!(!infos.update("d", told(HealthStatus::Healthy, 0), at(10)));
        assert_eq!((health(&infos, at(40)), health(&infos, at(41))), (Health::Healthy, Health::Unknown));
        assert!(infos.update("d", told(HealthStatus::Healthy, 100), at(50)));
        assert!(infos.update("d", told(HealthStatus::Unhealthy, 100), at(60)));
        assert_eq!(health(&infos, at(160)), Health::Unhealthy);
        assert_eq!(infos.get("d", "p", "x", at(60)).1.len(), 1024);
        assert!(infos.clear("d") && !infos.clear("d"));
        assert_eq!(health(&infos, at(60)), Health::Unknown);
    }
}
