//! Expressions of webhooks and policies, made ready once and evaluated for one request within a budget. Follows
//! `plugin/cel.newActivation` and `evaluationActivation.Evaluate`.

use std::cell::Cell;
use std::fmt;

use api::admissionregistration::expression::{
    self as declared, AUTHORIZER, NAMESPACE, OBJECT, OLD_OBJECT, PARAMS, REQUEST, REQUEST_RESOURCE, Returns,
};
use apimachinery::{Value, fields, labels};
use auth::{Attributes as Question, UserInfo};
use cel::library::authz::{self, Asked, Verdict};
use cel::{Bindings, Env, Named, PER_CALL_LIMIT, Program, Val};

use crate::request::World;
use crate::rules::{Attributes, Matched};
use crate::webhook::review;

/// An expression as it is configured.
#[derive(Debug)]
pub struct Expression {
    pub text: String,
    /// The complaint where it does not compile.
    program: Result<Program, String>,
}

impl Expression {
    pub fn new(env: &Env, text: &str, returns: Returns) -> Expression {
        Expression { text: text.to_owned(), program: declared::compile(env, text, returns) }
    }

    pub fn complaint(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }
}

/// What expressions see of a request.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub object: &'a Value,
    pub old_object: &'a Value,
    /// The request part of an AdmissionReview.
    pub request: &'a Value,
    pub params: &'a Value,
    pub namespace: &'a Value,
    /// None where the authorizer may not be asked.
    pub asker: Option<&'a Asker<'a>>,
    /// Expressions that others use by their name.
    pub variables: &'a [Named],
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Of this expression.
    Failed(String),
    /// Nor for any after it.
    OutOfBudget,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Failed(why) => f.write_str(why),
            Failure::OutOfBudget => f.write_str(
                "validation failed due to running out of cost budget, no further validation rules will be run",
            ),
        }
    }
}

/// Evaluates the expressions of one group, which share what their variables come to, and a budget.
pub struct Evaluator<'a> {
    bindings: Bindings<'a>,
    left: Cell<u64>,
}

impl<'a> Evaluator<'a> {
    pub fn new(inputs: &Inputs<'a>, budget: u64) -> Evaluator<'a> {
        let mut bindings = Bindings::new()
            .set(OBJECT, inputs.object)
            .set(OLD_OBJECT, inputs.old_object)
            .set(REQUEST, inputs.request)
            .set(NAMESPACE, inputs.namespace)
            .set(PARAMS, inputs.params);
        if let Some(asker) = inputs.asker {
            bindings = bindings
                .set(AUTHORIZER, authz::Question::authorizer(asker))
                .set(REQUEST_RESOURCE, authz::Question::resource(asker, asker.about_request()));
        }
        Evaluator { bindings: bindings.compose(inputs.variables), left: Cell::new(budget) }
    }

    pub fn evaluate(&self, expression: &'a Expression) -> Result<Val<'a>, Failure> {
        let program = match &expression.program {
            Ok(program) => program,
            Err(why) => return Err(Failure::Failed(format!("compilation error: {why}"))),
        };
        let evaluated = program.evaluate(&self.bindings, PER_CALL_LIMIT);
        self.pay(self.bindings.take_cost().saturating_add(evaluated.cost))?;
        evaluated.result.map_err(|why| {
            Failure::Failed(format!("expression '{}' resulted in error: {why}", expression.text))
        })
    }

    /// What is left for other groups.
    pub fn left(&self) -> u64 {
        self.left.get()
    }

    fn pay(&self, cost: u64) -> Result<(), Failure> {
        let left = self.left.get().checked_sub(cost).ok_or(Failure::OutOfBudget)?;
        self.left.set(left);
        Ok(())
    }
}

/// The variable `request`: what webhooks are told, without the objects.
pub fn request(attributes: &Attributes, matched: &Matched) -> Value {
    let mut request = review::request("", attributes, matched);
    if !attributes.options.is_null() {
        request["options"] = attributes.options.clone();
    }
    request
}

/// Asks the authorizer for an expression, about who sent the request unless it names somebody else.
pub struct Asker<'a> {
    pub attributes: &'a Attributes,
    pub world: &'a dyn World,
}

impl Asker<'_> {
    /// The resource of the request, for `authorizer.requestResource`.
    fn about_request(&self) -> Asked {
        let Attributes { resource, subresource, namespace, name, .. } = self.attributes;
        Asked {
            group: resource.group.clone(),
            resource: resource.resource.clone(),
            subresource: subresource.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            ..Asked::default()
        }
    }
}

impl authz::Authorizer for Asker<'_> {
    fn check(&self, asked: &Asked) -> Verdict {
        let account = asked.service_account.as_ref();
        let account = account.map(|(namespace, name)| UserInfo::service_account(namespace, name, ""));
        // What is no selector limits nothing.
        let fields = fields::parse(&asked.field_selector).unwrap_or_default();
        let labels = labels::parse(&asked.label_selector).unwrap_or_default();
        let decision = self.world.authorize(&Question {
            user: account.as_ref().unwrap_or(&self.attributes.user),
            verb: &asked.verb,
            group: &asked.group,
            resource: &asked.resource,
            subresource: &asked.subresource,
            namespace: &asked.namespace,
            name: &asked.name,
            path: asked.path.as_deref().unwrap_or_default(),
            fields: fields.terms(),
            labels: labels.requirements(),
        });
        Verdict { is_allowed: decision.is_allowed(), reason: decision.reason().to_owned() }
    }
}
