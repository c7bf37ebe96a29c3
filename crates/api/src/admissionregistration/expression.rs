//! Expressions of webhooks and policies: what they may name, and what they must come to. Follows
//! `plugin/cel.NewCompiler` and `CompositedCompiler`.

use std::sync::LazyLock;

use apimachinery::field::{Error, ErrorList, Path};
use cel::library::authz::{AUTHORIZER_TYPE, RESOURCE_CHECK_TYPE};
use cel::{Env, Named, ObjectType, Program, Type};

pub const OBJECT: &str = "object";
pub const OLD_OBJECT: &str = "oldObject";
pub const PARAMS: &str = "params";
pub const REQUEST: &str = "request";
pub const NAMESPACE: &str = "namespaceObject";
pub const AUTHORIZER: &str = "authorizer";
pub const REQUEST_RESOURCE: &str = "authorizer.requestResource";

/// What an expression may use beside the request and its objects.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offers {
    pub params: bool,
    pub authorizer: bool,
    /// The types of which changes are made.
    pub patches: bool,
}

/// What an expression must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    Anything,
    Bool,
    Text,
    TextOrNull,
    /// An `Object`.
    Configuration,
    /// A list of `JSONPatch`.
    Patches,
}

/// The types of an object and of the parameters, where more is known than that they are values.
#[derive(Clone, Debug)]
pub struct Types {
    pub object: Type,
    pub params: Type,
}

impl Default for Types {
    fn default() -> Types {
        Types { object: Type::Dyn, params: Type::Dyn }
    }
}

/// An environment for expressions that use no others by name.
pub fn env(offers: Offers, types: &Types) -> Env {
    let mut env = Env::new()
        .with(OBJECT, types.object.clone())
        .with(OLD_OBJECT, types.object.clone())
        .with(NAMESPACE, NAMESPACE_TYPE.clone())
        .with(REQUEST, REQUEST_TYPE.clone());
    if offers.params {
        env = env.with(PARAMS, types.params.clone());
    }
    if offers.authorizer {
        env = env.with(AUTHORIZER, AUTHORIZER_TYPE).with(REQUEST_RESOURCE, RESOURCE_CHECK_TYPE);
    }
    if offers.patches { env.with_patches() } else { env }
}

/// The program of an expression, or what is wrong with it in upstream's words.
pub fn compile(env: &Env, text: &str, returns: Returns) -> Result<Program, String> {
    let program = env.compile(text).map_err(|why| format!("compilation failed: {why}"))?;
    match returns.refuses(program.of()) {
        None => Ok(program),
        Some(why) => Err(why),
    }
}

/// Checks an expression of an object that is written.
pub fn check(env: &Env, text: &str, returns: Returns, path: &Path, errors: &mut ErrorList) {
    if let Err(why) = compile(env, text, returns) {
        errors.push(Error::invalid(path, text, why));
    }
}

impl Returns {
    fn refuses(self, of: &Type) -> Option<String> {
        let is_named = |of: &Type, name: &str| matches!(of, Type::Object(object) if object.name == name);
        let (fits, wanted) = match self {
            Returns::Anything => return None,
            Returns::Bool => (*of == Type::Bool, "bool"),
            Returns::Text => (*of == Type::String, "string"),
            Returns::TextOrNull => (matches!(of, Type::String | Type::Null), "one of [string null_type]"),
            Returns::Configuration => (is_named(of, "Object"), "Object"),
            Returns::Patches => {
                (matches!(of, Type::List(item) if is_named(item, "JSONPatch")), "list(JSONPatch)")
            }
        };
        let got = if *of == Type::Null { "null_type".to_owned() } else { of.to_string() };
        (!fits).then(|| format!("must evaluate to {wanted} but got {got}"))
    }
}

/// Named expressions of a policy, each of which sees those before it, and the environment of all that use them.
#[derive(Debug, Default)]
pub struct Composition {
    types: Types,
    has_params: bool,
    fields: Vec<(String, Type)>,
    pub named: Vec<Named>,
}

impl Composition {
    pub fn new(has_params: bool, types: Types) -> Composition {
        Composition { types, has_params, ..Composition::default() }
    }

    /// Compiles the next variable. One that does not compile is there for those after it, whatever it may be.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), String> {
        let env = self.env(Offers { authorizer: true, ..Offers::default() });
        let program = compile(&env, text, Returns::Anything);
        let (of, outcome) = match &program {
            Ok(program) => (program.of().clone(), Ok(())),
            Err(why) => (Type::Dyn, Err(why.clone())),
        };
        self.fields.push((name.to_owned(), of));
        self.named.push(Named { name: name.to_owned(), program });
        outcome
    }

    /// Where expressions are compiled; parameters are offered as the policy has them.
    pub fn env(&self, offers: Offers) -> Env {
        let variables = ObjectType::new("kubernetes.variables", self.fields.iter().cloned());
        env(Offers { params: self.has_params, ..offers }, &self.types)
            .with(cel::VARIABLES, Type::Object(variables))
    }
}

fn object(name: &str, fields: impl IntoIterator<Item = (&'static str, Type)>) -> Type {
    Type::Object(ObjectType::new(name, fields.into_iter().map(|(name, of)| (name.to_owned(), of))))
}

fn texts<const N: usize>(names: [&'static str; N]) -> [(&'static str, Type); N] {
    names.map(|name| (name, Type::String))
}

/// The AdmissionRequest without the objects, which have variables of their own (upstream: `BuildRequestType`).
static REQUEST_TYPE: LazyLock<Type> = LazyLock::new(|| {
    let kind = object("kubernetes.GroupVersionKind", texts(["group", "version", "kind"]));
    let resource = object("kubernetes.GroupVersionResource", texts(["group", "version", "resource"]));
    let many = Type::list(Type::String);
    let user = texts(["username", "uid"])
        .into_iter()
        .chain([("groups", many.clone()), ("extra", Type::map(Type::String, many))]);
    let own = texts(["subResource", "requestSubResource", "name", "namespace", "operation"]);
    let others = [
        ("kind", kind.clone()),
        ("resource", resource.clone()),
        ("requestKind", kind),
        ("requestResource", resource),
        ("userInfo", object("kubernetes.UserInfo", user)),
        ("dryRun", Type::Bool),
        ("options", Type::Dyn),
    ];
    object("kubernetes.AdmissionRequest", own.into_iter().chain(others))
});

/// What expressions may see of a Namespace (upstream: `BuildNamespaceType`).
static NAMESPACE_TYPE: LazyLock<Type> = LazyLock::new(|| {
    let many = Type::list(Type::String);
    let pairs = Type::map(Type::String, Type::String);
    let condition = texts(["status", "type", "message", "reason"])
        .into_iter()
        .chain([("lastTransitionTime", Type::Timestamp)]);
    let condition = object("kubernetes.NamespaceCondition", condition);
    let metadata =
        texts(["name", "generateName", "namespace", "UID", "resourceVersion"]).into_iter().chain([
            ("labels", pairs.clone()),
            ("annotations", pairs),
            ("creationTimestamp", Type::Timestamp),
            ("deletionTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("generation", Type::Int),
            ("finalizers", many.clone()),
        ]);
    let status = [("conditions", Type::list(condition)), ("phase", Type::String)];
    object(
        "kubernetes.Namespace",
        [
            ("metadata", object("kubernetes.NamespaceMetadata", metadata)),
            ("spec", object("kubernetes.NamespaceSpec", [("finalizers", many)])),
            ("status", object("kubernetes.NamespaceStatus", status)),
        ],
    )
});

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(env: &Env, text: &str, returns: Returns) -> String {
        compile(env, text, returns).err().unwrap_or_default()
    }

    #[test]
    fn expressions_come_to_what_is_asked_for() {
        let all = env(Offers { authorizer: true, patches: true, ..Offers::default() }, &Types::default());
        for (text, returns, expect) in [
            ("object.a == 1 && request.operation == 'CREATE'", Returns::Bool, ""),
            ("object.a", Returns::Bool, "must evaluate to bool but got dyn"),
            ("1", Returns::Text, "must evaluate to string but got int"),
            ("null", Returns::TextOrNull, ""),
            ("true", Returns::TextOrNull, "must evaluate to one of [string null_type] but got bool"),
            ("Object{spec: Object.spec{a: 1}}", Returns::Configuration, ""),
            ("[JSONPatch{op: 'test', path: '/a', value: 1}]", Returns::Patches, ""),
            ("[1]", Returns::Patches, "must evaluate to list(JSONPatch) but got list(int)"),
            ("authorizer.requestResource.check('get').allowed()", Returns::Bool, ""),
            (
                "namespaceObject.metadata.owner == ''",
                Returns::Bool,
                "compilation failed: ERROR: <input>:1:25: undefined field 'owner'\n | namespaceObject.metadata.owner == ''\n | ........................^",
            ),
        ] {
            assert_eq!(complaint(&all, text, returns), expect, "{text}");
        }
        let few = env(Offers::default(), &Types::default());
        let unknown = complaint(&few, "params.a", Returns::Anything);
        assert!(unknown.contains("undeclared reference to 'params' (in container '')"), "{unknown}");
    }

    #[test]
    fn variables_see_those_before_them() {
        let mut composition = Composition::new(false, Types::default());
        assert_eq!(composition.add("a", "1"), Ok(()));
        assert_eq!(composition.add("b", "variables.a + 1"), Ok(()));
        let unknown = composition.add("c", "variables.d").expect_err("is not there");
        assert!(unknown.contains("undefined field 'd'"), "{unknown}");
        let env = composition.env(Offers::default());
        assert_eq!(complaint(&env, "variables.b > 1", Returns::Bool), "");
        assert!(complaint(&env, "variables.b > 'x'", Returns::Bool).contains("no matching overload"));
    }
}
