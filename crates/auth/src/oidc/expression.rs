//! Expressions over claims and users. Follows `k8s.io/apiserver/pkg/authentication/cel`.

use apimachinery::Value;
use cel::{Bindings, Env, ObjectType, PER_CALL_LIMIT, Program, Type, Val};

use super::Error;

/// What an expression may look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    Claims,
    User,
}

impl Variable {
    fn env(self) -> Env {
        match self {
            Variable::Claims => Env::new().with("claims", Type::map(Type::String, Type::Dyn)),
            Variable::User => Env::new().with("user", Type::Object(user_type())),
        }
    }
}

fn user_type() -> std::sync::Arc<ObjectType> {
    let strings = Type::list(Type::String);
    let fields = [
        ("username", Type::String),
        ("uid", Type::String),
        ("groups", strings.clone()),
        ("extra", Type::map(Type::String, strings)),
    ];
    ObjectType::literal("kubernetes.UserInfo", fields.map(|(name, of)| (name.to_owned(), of)))
}

/// A compiled expression and its text.
#[derive(Debug)]
pub struct Expression {
    pub text: String,
    program: Program,
}

impl Expression {
    /// Or what is wrong with it, in upstream's words.
    pub fn compile(text: &str, over: Variable) -> Result<Expression, String> {
        let program = over.env().compile(text).map_err(|error| format!("compilation failed: {error}"))?;
        Ok(Expression { text: text.to_owned(), program })
    }

    /// Of what type its value is.
    pub fn of(&self) -> &Type {
        self.program.of()
    }

    fn evaluate<'v>(&self, name: &'static str, value: &'v Value) -> Result<Val<'v>, String> {
        let evaluated = self.program.evaluate(&Bindings::new().set(name, value), PER_CALL_LIMIT);
        evaluated.result.map_err(|error| format!("expression '{}' resulted in error: {error}", self.text))
    }

    /// One string.
    pub fn string(&self, what: &'static str, name: &'static str, value: &Value) -> Result<String, Error> {
        let failed = |why: String| Error::Expression { what, why };
        match self.evaluate(name, value).map_err(failed)? {
            Val::Text(text) => Ok(text.to_string()),
            _ => Err(failed(format!("{what} claim expression must return a string"))),
        }
    }

    /// A string or a list of them, without empty ones; null is none.
    pub fn strings(
        &self,
        what: &'static str,
        name: &'static str,
        value: &Value,
    ) -> Result<Vec<String>, Error> {
        let failed = |why: &str| Error::Expression { what, why: why.to_owned() };
        let found = self.evaluate(name, value).map_err(|why| Error::Expression { what, why })?;
        let items = match found.to_json() {
            Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(text @ Value::String(_)) => vec![text],
            _ => return Err(failed("expression must return a string or a list of strings")),
        };
        let text = |item: Value| match item {
            Value::String(text) => Ok(text.into()),
            _ => Err(failed("expression must return a list of strings")),
        };
        let texts = items.into_iter().map(text).collect::<Result<Vec<String>, Error>>()?;
        Ok(texts.into_iter().filter(|text| !text.is_empty()).collect())
    }
}

/// What must hold of a token's claims, or of the user they make.
#[derive(Debug)]
pub struct Rule {
    pub expression: Expression,
    pub message: String,
}

impl Rule {
    pub fn check(rules: &[Rule], what: &'static str, name: &'static str, value: &Value) -> Result<(), Error> {
        for Rule { expression, message } in rules {
            let failed = |why: String| Error::Rule { what, why };
            match expression.evaluate(name, value).map_err(failed)? {
                Val::Bool(true) => {}
                Val::Bool(false) => {
                    let colon = if message.is_empty() { "" } else { ": " };
                    let text = &expression.text;
                    return Err(failed(format!("validation expression '{text}' failed{colon}{message}")));
                }
                _ => return Err(failed("validation expression must return a boolean".to_owned())),
            }
        }
        Ok(())
    }
}
