//! The plugins in their order.

use apimachinery::{Status, Value};

use crate::defaulttolerationseconds::DefaultTolerationSeconds;
use crate::lifecycle::NamespaceLifecycle;
use crate::noderestriction::NodeRestriction;
use crate::nodetaint::TaintNodesByCondition;
use crate::priority::Priority;
use crate::request::{Request, World};
use crate::serviceaccount::ServiceAccount;

/// One admission plugin. Both halves do nothing unless it says otherwise.
pub trait Plugin: Send + Sync {
    /// Upstream's name, as `--enable-admission-plugins` takes it.
    fn name(&self) -> &'static str;

    /// May change the object, or refuse the request.
    fn admit(&self, _request: &Request<'_>, _object: &mut Value, _world: &dyn World) -> Result<(), Status> {
        Ok(())
    }

    /// May refuse the request; sees the object as it would be stored.
    fn validate(&self, _request: &Request<'_>, _object: &Value, _world: &dyn World) -> Result<(), Status> {
        Ok(())
    }
}

/// Plugins in the order in which they are asked.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
}

impl Chain {
    /// What a cluster runs with, in upstream's order.
    pub fn standard() -> Self {
        Chain::new(vec![
            Box::new(NamespaceLifecycle),
            Box::new(ServiceAccount),
            Box::new(NodeRestriction),
            Box::new(TaintNodesByCondition),
            Box::new(Priority),
            Box::new(DefaultTolerationSeconds),
        ])
    }

    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Self {
        Chain { plugins }
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.plugins.iter().map(|plugin| plugin.name())
    }

    /// The mutating half, after defaulting and before validation.
    pub fn admit(&self, request: &Request<'_>, object: &mut Value, world: &dyn World) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|plugin| plugin.admit(request, object, world))
    }

    /// The validating half, right before the commit.
    pub fn validate(&self, request: &Request<'_>, object: &Value, world: &dyn World) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|plugin| plugin.validate(request, object, world))
    }
}
