//! An AuthenticationConfiguration as it is written in a file (`apiserver.config.k8s.io/v1`), and what the flags `--oidc-*`
//! say in its terms.

use apimachinery::field::Path;
use serde::Deserialize;

use super::Authenticator;
use super::validation::Validation;
use crate::authenticator::Anonymous;
use crate::configfile::{self, Error};
use crate::jwt::Algorithm;

const KIND: &str = "AuthenticationConfiguration";
/// More issuers than this are refused (upstream: ValidateAuthenticationConfiguration).
pub(super) const ISSUERS_MAX: usize = 64;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthenticationConfiguration {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    pub jwt: Vec<JwtAuthenticator>,
    pub anonymous: Option<AnonymousAuthConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnonymousAuthConfig {
    pub enabled: bool,
    #[serde(default)]
    pub conditions: Vec<AnonymousAuthCondition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnonymousAuthCondition {
    pub path: String,
}

impl From<AnonymousAuthConfig> for Anonymous {
    fn from(config: AnonymousAuthConfig) -> Anonymous {
        let paths = config.conditions.into_iter().map(|condition| condition.path);
        Anonymous { enabled: config.enabled, paths: paths.collect() }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtAuthenticator {
    #[serde(default)]
    pub issuer: Issuer,
    #[serde(default)]
    pub claim_validation_rules: Vec<ClaimValidationRule>,
    #[serde(default)]
    pub claim_mappings: ClaimMappings,
    #[serde(default)]
    pub user_validation_rules: Vec<UserValidationRule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Issuer {
    pub url: String,
    /// Where the issuer describes itself, if not below its URL.
    #[serde(rename = "discoveryURL")]
    pub discovery_url: String,
    /// PEM; the system's authorities when empty.
    pub certificate_authority: String,
    pub audiences: Vec<String>,
    pub audience_match_policy: String,
    pub egress_selector_type: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimValidationRule {
    pub claim: String,
    pub required_value: String,
    pub expression: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimMappings {
    pub username: ClaimOrExpression,
    pub groups: ClaimOrExpression,
    pub uid: ClaimOrExpression,
    pub extra: Vec<ExtraMapping>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimOrExpression {
    pub claim: String,
    /// Not of a uid.
    pub prefix: Option<String>,
    pub expression: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExtraMapping {
    pub key: String,
    pub value_expression: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserValidationRule {
    pub expression: String,
    pub message: String,
}

impl AuthenticationConfiguration {
    pub fn parse(text: &str) -> Result<AuthenticationConfiguration, Error> {
        configfile::read(text, KIND)
    }

    /// What reads the issuers' tokens. `own_issuer` signs the cluster's own tokens and is nobody else's name.
    pub fn compile(&self, algorithms: &[Algorithm], own_issuer: &str) -> Result<Vec<Authenticator>, Error> {
        let mut validation = Validation::new(algorithms, own_issuer);
        let authenticators = validation.configuration(self, &Path::new("jwt"));
        if validation.errors.is_empty() { Ok(authenticators) } else { Err(Error::Invalid(validation.errors)) }
    }
}

/// What the flags `--oidc-*` say.
#[derive(Clone, Debug, Default)]
pub struct OidcFlags {
    pub issuer_url: String,
    pub client_id: String,
    /// PEM.
    pub certificate_authority: String,
    pub username_claim: String,
    /// None when not given; `-` means no prefix.
    pub username_prefix: Option<String>,
    pub groups_claim: Option<String>,
    pub groups_prefix: String,
    pub required_claims: Vec<(String, String)>,
}

impl From<OidcFlags> for AuthenticationConfiguration {
    fn from(flags: OidcFlags) -> AuthenticationConfiguration {
        let prefix = match flags.username_prefix.as_deref().unwrap_or_default() {
            "" if flags.username_claim != "email" => format!("{}#", flags.issuer_url),
            "-" => String::new(),
            given => given.to_owned(),
        };
        let claim = |claim: String, prefix: String| ClaimOrExpression {
            claim,
            prefix: Some(prefix),
            expression: String::new(),
        };
        let required = flags.required_claims.into_iter().map(|(claim, required_value)| ClaimValidationRule {
            claim,
            required_value,
            ..ClaimValidationRule::default()
        });
        let authenticator = JwtAuthenticator {
            issuer: Issuer {
                url: flags.issuer_url,
                certificate_authority: flags.certificate_authority,
                audiences: vec![flags.client_id],
                ..Issuer::default()
            },
            claim_validation_rules: required.collect(),
            claim_mappings: ClaimMappings {
                username: claim(flags.username_claim, prefix),
                groups: flags.groups_claim.map(|name| claim(name, flags.groups_prefix)).unwrap_or_default(),
                ..ClaimMappings::default()
            },
            user_validation_rules: Vec::new(),
        };
        AuthenticationConfiguration { jwt: vec![authenticator], ..AuthenticationConfiguration::default() }
    }
}
