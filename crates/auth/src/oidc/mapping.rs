//! Which claim, or which expression over claims, makes which part of a user.

use apimachinery::Value;

use super::Error;
use super::expression::Expression;

const EMAIL: &str = "email";
const EMAIL_VERIFIED: &str = "email_verified";

#[derive(Debug)]
pub enum Mapping {
    Claim { claim: String, prefix: String },
    Expression(Expression),
}

impl Mapping {
    pub fn username(&self, claims: &Value) -> Result<String, Error> {
        let what = "username";
        match self {
            Mapping::Expression(expression) => {
                let name = expression.string(what, "claims", claims)?;
                if name.is_empty() { Err(Error::EmptyUsername) } else { Ok(name) }
            }
            Mapping::Claim { claim, prefix } => {
                let name = text(claims, "username claims", claim)?;
                if claim == EMAIL {
                    check_email(claims)?;
                }
                Ok(format!("{prefix}{name}"))
            }
        }
    }

    /// A claim of groups may be absent, a single string, or a list.
    pub fn groups(&self, claims: &Value) -> Result<Vec<String>, Error> {
        let (claim, prefix) = match self {
            Mapping::Expression(expression) => return expression.strings("group", "claims", claims),
            Mapping::Claim { claim, prefix } => (claim, prefix),
        };
        let wrong = || Error::Claim {
            what: "groups claim",
            claim: claim.clone(),
            why: "is neither a string nor a list of strings",
        };
        let prefixed = |group: &Value| Some(format!("{prefix}{}", group.as_str()?));
        match claims.get(claim) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(groups)) => {
                groups.iter().map(prefixed).collect::<Option<_>>().ok_or_else(wrong)
            }
            Some(one) => prefixed(one).map(|group| vec![group]).ok_or_else(wrong),
        }
    }

    pub fn uid(&self, claims: &Value) -> Result<String, Error> {
        match self {
            Mapping::Expression(expression) => expression.string("uid", "claims", claims),
            Mapping::Claim { claim, .. } => text(claims, "uid claim", claim),
        }
    }
}

fn text(claims: &Value, what: &'static str, claim: &str) -> Result<String, Error> {
    let wrong = |why| Error::Claim { what, claim: claim.to_owned(), why };
    let found = claims.get(claim).ok_or_else(|| wrong("claim not present"))?;
    found.as_str().map(str::to_owned).ok_or_else(|| wrong("is not a string"))
}

/// An address that the issuer knows not to be the user's does not name them.
fn check_email(claims: &Value) -> Result<(), Error> {
    match claims.get(EMAIL_VERIFIED) {
        None | Some(Value::Bool(true)) => Ok(()),
        Some(Value::Bool(false)) => Err(Error::EmailNotVerified),
        Some(_) => {
            let claim = EMAIL_VERIFIED.to_owned();
            Err(Error::Claim { what: "claim", claim, why: "is not a boolean" })
        }
    }
}
