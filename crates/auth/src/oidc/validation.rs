//! Whether an AuthenticationConfiguration can be used, and what it compiles to. Follows
//! `validation.ValidateAuthenticationConfiguration`, whose messages these are.

use std::collections::HashSet;

use apimachinery::field::{Error, ErrorList, Path};
use cel::Type;
use http::Uri;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::Authenticator;
use super::config::{
    AuthenticationConfiguration, ClaimOrExpression, ClaimValidationRule, ExtraMapping, ISSUERS_MAX, Issuer,
    JwtAuthenticator, UserValidationRule,
};
use super::expression::{Expression, Rule, Variable};
use super::mapping::Mapping;
use crate::jwt::Algorithm;

const MATCH_ANY: &str = "MatchAny";
const EMAIL_UNVERIFIED: &str = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";

pub struct Validation<'a> {
    algorithms: &'a [Algorithm],
    own_issuer: &'a str,
    pub errors: ErrorList,
}

impl<'a> Validation<'a> {
    pub fn new(algorithms: &'a [Algorithm], own_issuer: &'a str) -> Validation<'a> {
        Validation { algorithms, own_issuer, errors: ErrorList::new() }
    }

    /// What reads tokens; of use only when no errors were found.
    pub fn configuration(
        &mut self,
        configuration: &AuthenticationConfiguration,
        path: &Path,
    ) -> Vec<Authenticator> {
        let jwt = &configuration.jwt;
        if jwt.len() > ISSUERS_MAX {
            self.errors.push(Error::too_many(path, jwt.len(), ISSUERS_MAX));
            return Vec::new();
        }
        let (mut urls, mut discovery_urls) = (HashSet::new(), HashSet::new());
        let mut authenticators = Vec::new();
        for (i, one) in jwt.iter().enumerate() {
            let path = path.index(i);
            authenticators.extend(self.authenticator(one, &path));
            let issuer = path.child("issuer");
            self.unique(&mut urls, &one.issuer.url, &issuer.child("url"));
            if !one.issuer.discovery_url.is_empty() {
                self.unique(&mut discovery_urls, &one.issuer.discovery_url, &issuer.child("discoveryURL"));
            }
        }
        if let Some(anonymous) = &configuration.anonymous
            && !anonymous.enabled
            && !anonymous.conditions.is_empty()
        {
            let paths: Vec<&str> = anonymous.conditions.iter().map(|c| c.path.as_str()).collect();
            let why = "enabled should be set to true when conditions are defined";
            self.errors.push(Error::invalid(&Path::new("anonymous").child("conditions"), paths, why));
        }
        authenticators
    }

    fn unique<'t>(&mut self, seen: &mut HashSet<&'t str>, text: &'t str, path: &Path) -> bool {
        let is_new = seen.insert(text);
        if !is_new {
            self.errors.push(Error::duplicate(path, text));
        }
        is_new
    }

    fn authenticator(&mut self, one: &JwtAuthenticator, path: &Path) -> Option<Authenticator> {
        self.issuer(&one.issuer, &path.child("issuer"));
        let rules = &one.claim_validation_rules;
        let claim_rules = self.claim_rules(rules, &path.child("claimValidationRules"));
        let mappings = &one.claim_mappings;
        let at = path.child("claimMappings");
        let username = self.mapping(&mappings.username, &at.child("username"));
        let is_missing = mappings.username.claim.is_empty() && mappings.username.expression.is_empty();
        if is_missing {
            self.errors.push(Error::required(&at.child("username"), "claim or expression is required"));
        }
        let groups = self.mapping(&mappings.groups, &at.child("groups"));
        let uid = self.uid(&mappings.uid, &at.child("uid"));
        let extra = self.extra(&mappings.extra, &at.child("extra"));
        let uses = |text: &str, claim: &str| cel::selects(text, "claims", claim);
        let written = std::iter::once(&mappings.username.expression)
            .chain(mappings.extra.iter().map(|extra| &extra.value_expression))
            .chain(rules.iter().map(|rule| &rule.expression));
        let is_verified = written.into_iter().any(|text| uses(text, "email_verified"));
        if uses(&mappings.username.expression, "email") && !is_verified {
            let path = at.child("username").child("expression");
            let text = mappings.username.expression.as_str();
            self.errors.push(Error::invalid(&path, text, EMAIL_UNVERIFIED));
        }
        let user_rules = self.user_rules(&one.user_validation_rules, &path.child("userValidationRules"));
        let required = rules.iter().filter(|rule| !rule.claim.is_empty());
        Some(Authenticator {
            issuer: one.issuer.clone(),
            algorithms: self.algorithms.to_vec(),
            username: username?,
            groups,
            uid,
            extra,
            required: required.map(|rule| (rule.claim.clone(), rule.required_value.clone())).collect(),
            claim_rules,
            user_rules,
        })
    }

    fn issuer(&mut self, issuer: &Issuer, path: &Path) {
        let (url, discovery_url) = (issuer.url.as_str(), issuer.discovery_url.as_str());
        let (at, discovery_at) = (path.child("url"), path.child("discoveryURL"));
        if url.is_empty() {
            self.errors.push(Error::required(&at, ""));
        } else {
            if url == self.own_issuer {
                let why = format!("URL must not overlap with disallowed issuers: [{url}]");
                self.errors.push(Error::invalid(&at, url, why));
            }
            self.url(url, &at);
        }
        if !discovery_url.is_empty() {
            if !url.is_empty() && url.trim_end_matches('/') == discovery_url.trim_end_matches('/') {
                let why = "discoveryURL must be different from URL";
                self.errors.push(Error::invalid(&discovery_at, discovery_url, why));
            }
            self.url(discovery_url, &discovery_at);
        }
        self.audiences(issuer, path);
        let pem = issuer.certificate_authority.as_bytes();
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let is_readable = certificates.is_ok_and(|certificates| !certificates.is_empty());
        if !pem.is_empty() && !is_readable {
            let why = "data does not contain any valid RSA or ECDSA certificates";
            self.errors.push(Error::invalid(&path.child("certificateAuthority"), "<omitted>", why));
        }
        if !issuer.egress_selector_type.is_empty() {
            let (at, found) = (path.child("egressSelectorType"), issuer.egress_selector_type.as_str());
            let why = "no egress selector is configured";
            self.errors.push(Error::invalid(&at, found, why));
        }
    }

    fn url(&mut self, url: &str, path: &Path) {
        let (before_fragment, fragment) = url.split_once('#').unwrap_or((url, ""));
        let Ok(uri) = before_fragment.parse::<Uri>() else {
            self.errors.push(Error::invalid(path, url, "it is no URL"));
            return;
        };
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let wrong = [
            (uri.scheme_str() != Some("https"), "URL scheme must be https"),
            (has_user, "URL must not contain a username or password"),
            (uri.query().is_some_and(|query| !query.is_empty()), "URL must not contain a query"),
            (!fragment.is_empty(), "URL must not contain a fragment"),
        ];
        let wrong = wrong.into_iter().filter(|(is_wrong, _)| *is_wrong);
        self.errors.extend(wrong.map(|(_, why)| Error::invalid(path, url, why)));
    }

    fn audiences(&mut self, issuer: &Issuer, path: &Path) {
        let (at, policy_at) = (path.child("audiences"), path.child("audienceMatchPolicy"));
        let (audiences, policy) = (&issuer.audiences, issuer.audience_match_policy.as_str());
        if audiences.is_empty() {
            self.errors.push(Error::required(&at, format!("at least one {at} is required")));
            return;
        }
        let mut seen = HashSet::new();
        for (i, audience) in audiences.iter().enumerate() {
            if audience.is_empty() {
                self.errors.push(Error::required(&at.index(i), ""));
            }
            self.unique(&mut seen, audience, &at.index(i));
        }
        if audiences.len() > 1 && policy != MATCH_ANY {
            let why = "audienceMatchPolicy must be MatchAny for multiple audiences";
            self.errors.push(Error::invalid(&policy_at, policy, why));
        }
        if audiences.len() == 1 && !matches!(policy, "" | MATCH_ANY) {
            let why = "audienceMatchPolicy must be empty or MatchAny for single audience";
            self.errors.push(Error::invalid(&policy_at, policy, why));
        }
    }

    fn claim_rules(&mut self, rules: &[ClaimValidationRule], path: &Path) -> Vec<Rule> {
        let (mut claims, mut expressions) = (HashSet::new(), HashSet::new());
        let mut compiled = Vec::new();
        for (i, rule) in rules.iter().enumerate() {
            let path = path.index(i);
            let ClaimValidationRule { claim, required_value, expression, message } = rule;
            match (claim.is_empty(), expression.is_empty()) {
                (false, false) => {
                    let why = "claim and expression can't both be set";
                    self.errors.push(Error::invalid(&path, claim.as_str(), why));
                }
                (true, true) => self.errors.push(Error::required(&path, "claim or expression is required")),
                (false, true) => {
                    let why = "may not be specified when claim is set";
                    self.absent(message, &path.child("message"), why);
                    self.unique(&mut claims, claim, &path.child("claim"));
                }
                (true, false) => {
                    let why = "may not be specified when expression is set";
                    self.absent(required_value, &path.child("requiredValue"), why);
                    let path = path.child("expression");
                    if self.unique(&mut expressions, expression, &path) {
                        compiled.extend(self.rule(expression, message, Variable::Claims, &path));
                    }
                }
            }
        }
        compiled
    }

    fn user_rules(&mut self, rules: &[UserValidationRule], path: &Path) -> Vec<Rule> {
        let mut expressions = HashSet::new();
        let mut compiled = Vec::new();
        for (i, UserValidationRule { expression, message }) in rules.iter().enumerate() {
            let path = path.index(i).child("expression");
            if expression.is_empty() {
                self.errors.push(Error::required(&path, ""));
            } else if self.unique(&mut expressions, expression, &path) {
                compiled.extend(self.rule(expression, message, Variable::User, &path));
            }
        }
        compiled
    }

    fn absent(&mut self, text: &str, path: &Path, why: &str) {
        if !text.is_empty() {
            self.errors.push(Error::invalid(path, text, why));
        }
    }

    fn rule(&mut self, text: &str, message: &str, over: Variable, path: &Path) -> Option<Rule> {
        let expression = self.expression(text, over, path)?;
        if *expression.of() != Type::Bool {
            self.errors.push(Error::invalid(path, text, "must evaluate to bool"));
        }
        Some(Rule { expression, message: message.to_owned() })
    }

    fn expression(&mut self, text: &str, over: Variable, path: &Path) -> Option<Expression> {
        let compiled = Expression::compile(text, over);
        compiled.map_err(|why| self.errors.push(Error::invalid(path, text, why))).ok()
    }

    /// Of a username or of groups: a claim with a prefix, or an expression.
    fn mapping(&mut self, mapping: &ClaimOrExpression, path: &Path) -> Option<Mapping> {
        let ClaimOrExpression { claim, prefix, expression } = mapping;
        match (claim.is_empty(), expression.is_empty()) {
            (true, true) => None,
            (false, false) => {
                self.errors.push(Error::invalid(path, "", "claim and expression can't both be set"));
                None
            }
            (true, false) => {
                if let Some(prefix) = prefix {
                    let why = "may not be specified when expression is set";
                    self.errors.push(Error::invalid(&path.child("prefix"), prefix.as_str(), why));
                }
                let path = path.child("expression");
                self.expression(expression, Variable::Claims, &path).map(Mapping::Expression)
            }
            (false, true) => {
                if prefix.is_none() {
                    let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                    self.errors.push(Error::required(&path.child("prefix"), why));
                }
                Some(Mapping::Claim { claim: claim.clone(), prefix: prefix.clone().unwrap_or_default() })
            }
        }
    }

    fn uid(&mut self, uid: &ClaimOrExpression, path: &Path) -> Option<Mapping> {
        if uid.prefix.is_some() {
            self.errors.push(Error::forbidden(&path.child("prefix"), "a uid has no prefix"));
        }
        let is_claim = uid.expression.is_empty() && !uid.claim.is_empty();
        let prefix = is_claim.then(String::new);
        self.mapping(&ClaimOrExpression { prefix, ..uid.clone() }, path)
    }

    fn extra(&mut self, mappings: &[ExtraMapping], path: &Path) -> Vec<(String, Expression)> {
        let mut keys = HashSet::new();
        let mut compiled = Vec::new();
        for (i, ExtraMapping { key, value_expression }) in mappings.iter().enumerate() {
            let (path, at) = (path.index(i), path.index(i).child("key"));
            self.extra_key(key, &at);
            if !self.unique(&mut keys, key, &at) {
                continue;
            }
            let path = path.child("valueExpression");
            if value_expression.is_empty() {
                self.errors.push(Error::required(&path, ""));
            } else if let Some(expression) = self.expression(value_expression, Variable::Claims, &path) {
                compiled.push((key.clone(), expression));
            }
        }
        compiled
    }

    /// A key belongs to a domain, which is not one of Kubernetes' own.
    fn extra_key(&mut self, key: &str, path: &Path) {
        if key.is_empty() {
            self.errors.push(Error::required(path, ""));
            return;
        }
        let Some((domain, rest)) = key.split_once('/').filter(|(domain, rest)| {
            !rest.is_empty() && apimachinery::names::is_dns1123_subdomain(domain).is_empty()
        }) else {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            self.errors.push(Error::invalid(path, key, why));
            return;
        };
        if key.chars().any(char::is_uppercase) {
            self.errors.push(Error::invalid(path, key, "must be lowercase"));
        }
        if rest.chars().any(char::is_whitespace) {
            self.errors.push(Error::invalid(path, key, "Invalid path"));
        }
        let reserved = ["kubernetes.io", "k8s.io"];
        if reserved.iter().any(|of| domain == *of || domain.ends_with(&format!(".{of}"))) {
            let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
            self.errors.push(Error::invalid(path, key, why));
        }
    }
}
