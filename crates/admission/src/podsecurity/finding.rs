//! What PodSecurity found about a request, for those who count it.

use super::policy::{Level, LevelVersion, Version};

/// What a standard is held against a pod for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Audit,
    Enforce,
    Warn,
}

impl Mode {
    /// Upstream's metric label.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Audit => "audit",
            Mode::Enforce => "enforce",
            Mode::Warn => "warn",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A pod was held against a standard. In the modes that refuse nothing only violations count.
    Evaluated {
        /// The standard's name.
        level: &'static str,
        /// Of Kubernetes 1; none is whatever is newest.
        minor: Option<u32>,
        mode: Mode,
        allowed: bool,
    },
    /// Nobody looked.
    Exempt,
    /// What the standard is could not be told; fatal is what kept the pod from being looked at.
    Failed { fatal: bool },
}

impl Finding {
    pub(super) fn evaluated(against: LevelVersion, mode: Mode, allowed: bool) -> Finding {
        let minor = match against.version {
            // It has been the same always.
            _ if against.level == Level::Privileged => None,
            Version::Latest => None,
            Version::Minor(minor) => Some(minor),
        };
        Finding::Evaluated { level: against.level.name(), minor, mode, allowed }
    }
}
