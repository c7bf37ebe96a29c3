//! Whether a request may be done: those who decide are asked in the operator's order until one allows or denies. Follows
//! `pkg/authorization/union`.

pub mod webhook;

use apimachinery::Status;
use auth::authorizationconfiguration as configured;
use auth::{Attributes, Authorizer, Decision};

use crate::core::Core;
pub use webhook::Webhook;

const EVERYTHING_IS_FORBIDDEN: &str = "Everything is forbidden.";

/// One who decides.
pub enum Step {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    Webhook(Box<Webhook>),
}

impl TryFrom<configured::Authorizer> for Step {
    type Error = client::Error;

    fn try_from(configured: configured::Authorizer) -> Result<Step, client::Error> {
        Ok(match configured {
            configured::Authorizer::AlwaysAllow => Step::AlwaysAllow,
            configured::Authorizer::AlwaysDeny => Step::AlwaysDeny,
            configured::Authorizer::Node => Step::Node,
            configured::Authorizer::Rbac => Step::Rbac,
            configured::Authorizer::Webhook(webhook) => Step::Webhook(Box::new(Webhook::new(*webhook)?)),
        })
    }
}

/// All who decide, in order.
pub struct Chain(Vec<Step>);

impl Default for Chain {
    /// As in the clusters that kubeadm makes.
    fn default() -> Chain {
        Chain(vec![Step::Node, Step::Rbac])
    }
}

impl Chain {
    pub fn new(steps: Vec<Step>) -> Chain {
        Chain(steps)
    }

    /// Whether some decisions are made elsewhere, and may take their time.
    pub fn asks_elsewhere(&self) -> bool {
        self.0.iter().any(|step| matches!(step, Step::Webhook(_)))
    }
}

impl Core {
    pub async fn authorize(&self, wanted: &Attributes<'_>) -> Decision {
        if Authorizer::is_superuser(wanted.user) {
            return Decision::Allow(String::new());
        }
        let mut reasons: Vec<String> = Vec::new();
        for step in &self.config.authorization.0 {
            let decision = match step {
                Step::AlwaysAllow => Decision::Allow(String::new()),
                Step::AlwaysDeny => Decision::NoOpinion(EVERYTHING_IS_FORBIDDEN.to_owned()),
                Step::Node => self.authorizer.node(wanted),
                Step::Rbac => self.authorizer.rbac(wanted),
                Step::Webhook(webhook) => webhook.authorize(wanted, (self.config.clock)()).await,
            };
            match decision {
                Decision::NoOpinion(reason) => {
                    reasons.extend(Some(reason).filter(|reason| !reason.is_empty()))
                }
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    /// As `authorize`, but a refusal is the 403 to answer with.
    pub async fn check(&self, wanted: &Attributes<'_>) -> Result<(), Status> {
        let decision = self.authorize(wanted).await;
        if decision.is_allowed() { Ok(()) } else { Err(wanted.forbidden(decision.reason())) }
    }

    /// As `authorize`, for admission plugins, which do not wait. Decisions made elsewhere hold up this thread, and other
    /// threads take over its work.
    pub fn authorize_now(&self, wanted: &Attributes<'_>) -> Decision {
        let deciding = self.authorize(wanted);
        if self.config.authorization.asks_elsewhere() {
            let runtime = tokio::runtime::Handle::current();
            return tokio::task::block_in_place(|| runtime.block_on(deciding));
        }
        futures_util::FutureExt::now_or_never(deciding).expect("whoever decides here does not wait")
    }
}
