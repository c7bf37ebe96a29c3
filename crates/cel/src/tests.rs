//! Expressions and what they come to, what they cost, and how they fail.

use apimachinery::{Value, json};
use proptest::prelude::*;

use crate::{Bindings, Env, Named, ObjectType, PER_CALL_LIMIT, Type};

fn object() -> Value {
    json!({"a": 1, "b": {"c": "x"}, "l": [3, 1, 2], "s": "hello", "n": 2.5, "when": "2024-01-02T03:04:05Z"})
}

fn came(expression: &str, of: Type) -> String {
    let program = match Env::new().with("self", of).compile(expression) {
        Ok(program) => program,
        Err(error) => return error.to_string(),
    };
    let object = object();
    let evaluated = program.evaluate(&Bindings::new().set("self", &object), PER_CALL_LIMIT);
    match evaluated.result {
        Ok(value) => value.to_json().map_or("?".to_owned(), |value| value.to_string()),
        Err(error) => error.to_string(),
    }
}

fn check(rows: &[(&str, &str)]) {
    for (expression, expect) in rows {
        assert_eq!(came(expression, Type::Dyn), *expect, "{expression}");
    }
}

#[test]
fn operators_follow_the_precedence_and_the_types_of_the_language() {
    check(&[
        ("1 + 2 * 3 == 7", "true"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("2u > 1u && !false", "true"),
        ("self.a == 1.0", "true"),
        ("self.n > 2", "true"),
        ("1 in [1, 2]", "true"),
        ("'a' in {'a': 1}", "true"),
        ("true ? 'x' : 'y'", "\"x\""),
        ("r'\\n' + \"\\u0041\" + '''b'''", "\"\\\\nAb\""),
        ("[1, 2][5]", "index out of bounds: 5"),
        ("self.z", "no such key: z"),
        ("has(self.b.c) && !has(self.z)", "true"),
    ]);
}

#[test]
fn an_error_is_forgotten_when_the_other_side_decides() {
    check(&[
        ("self.z == 1 || true", "true"),
        ("self.z == 1 && false", "false"),
        ("self.z == 1 || false", "no such key: z"),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        ("[1, 0].all(x, 1 / x == 1)", "division by zero"),
    ]);
}

#[test]
fn macros_are_loops() {
    check(&[
        ("self.l.all(x, x > 0)", "true"),
        ("self.l.exists(x, x == 2)", "true"),
        ("self.l.exists_one(x, x > 2)", "true"),
        ("self.l.map(x, x * 2)", "[6,2,4]"),
        ("self.l.map(x, x > 1, x * 2)", "[6,4]"),
        ("self.l.filter(x, self.l.exists(y, y == x + 1))", "[1,2]"),
        ("self.l.all(i, x, i < 3 && x > 0)", "true"),
        ("self.l.transformList(i, x, i + x)", "[3,2,4]"),
        ("{'a': 1}.transformMap(k, v, v + 1)", "{\"a\":2}"),
        ("cel.bind(x, 1 + 1, x * x)", "4"),
        ("[3, 1, 2].sortBy(x, -x)", "[3,2,1]"),
        ("self.b.exists(k, k == 'c')", "true"),
    ]);
}

#[test]
fn optional_syntax_gives_what_is_there() {
    check(&[
        ("self.?z.orValue(5)", "5"),
        ("self.?b.c.orValue('')", "\"x\""),
        ("self.l[?9].hasValue()", "false"),
        ("[?self.?z, 1]", "[1]"),
        ("optional.of(2).optMap(x, x + 1).value()", "3"),
        ("optional.none().value()", "optional.none() dereference"),
    ]);
}

#[test]
fn libraries_do_what_they_say() {
    check(&[
        ("'a-b-c'.split('-')", "[\"a\",\"b\",\"c\"]"),
        ("['a', 'b'].join('/')", "\"a/b\""),
        ("'hello'.substring(1, 3)", "\"el\""),
        ("'%s is %d, %.2f, %x'.format(['a', 3, 1.5, 255])", "\"a is 3, 1.50, ff\""),
        ("'abc'.matches('^a.c$')", "true"),
        ("'a1b22'.findAll('[0-9]+')", "[\"1\",\"22\"]"),
        ("[1, 2, 3].sum()", "6"),
        ("self.l.isSorted()", "false"),
        ("self.l.max() + self.l.min()", "4"),
        ("quantity('1Gi').isGreaterThan(quantity('1G'))", "true"),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3')", "true"),
        ("ip('::1').family()", "6"),
        ("url('https://a.b:80/c?d=e').getPort()", "\"80\""),
        ("semver('1.2.3').compareTo(semver('1.10.0'))", "-1"),
        ("sets.contains([1, 2], [2])", "true"),
        ("duration('1h30m').getMinutes()", "90"),
        ("timestamp('2024-01-02T03:04:05Z').getFullYear()", "2024"),
        ("type(1) == int", "true"),
        ("[[1], [2]].flatten()", "[1,2]"),
    ]);
}

#[test]
fn findings_are_told_with_their_place() {
    check(&[
        ("a + 1", "ERROR: <input>:1:1: undeclared reference to 'a' (in container '')\n | a + 1\n | ^"),
        (
            "1 + 'a'",
            "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^",
        ),
    ]);
}

#[test]
fn only_declared_fields_can_be_named() {
    let fields = [("a", Type::Double), ("when", Type::Timestamp), ("l", Type::list(Type::Int))];
    let of = ObjectType::new("object", fields.map(|(name, of)| (name.to_owned(), of)));
    let came = |expression| came(expression, Type::Object(of.clone()));
    assert_eq!(came("self.l.map(x, x * 2)"), "[6,2,4]");
    assert_eq!(came("self.z"), "ERROR: <input>:1:5: undefined field 'z'\n | self.z\n | ....^");
    assert_eq!(
        came("self.l.all(x, x.y)").lines().next(),
        Some("ERROR: <input>:1:16: type 'int' does not support field selection")
    );
}

#[test]
fn each_step_costs_and_the_limit_ends_it() {
    let cost = |expression: &str, limit: u64| {
        let program =
            Env::new().with("self", Type::Dyn).compile(expression).expect("the expression is valid");
        let object = object();
        let evaluated = program.evaluate(&Bindings::new().set("self", &object), limit);
        (evaluated.cost, evaluated.result.err())
    };
    for (expression, expect) in
        [("self.a == 1", 3), ("has(self.a)", 1), ("self.a < 2 && self.a > 0", 6), ("true", 0)]
    {
        assert_eq!(cost(expression, PER_CALL_LIMIT).0, expect, "{expression}");
    }
    let cancelled = cost("self.l.all(x, x > 0)", 5).1;
    assert!(matches!(cancelled, Some(crate::EvalError::CostLimit)));
}

#[test]
fn deep_expressions_are_refused() {
    let deep = format!("{}1{}", "(".repeat(300), ")".repeat(300));
    assert!(came(&deep, Type::Dyn).contains("recursion limit exceeded"));
    assert_eq!(came(&vec!["1"; 240].join(" + "), Type::Dyn), "240");
    let long = vec!["true"; 2000].join(" && ");
    assert_eq!(came(&long, Type::Dyn), "true");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[a-c0-9 .,?:()\\[\\]{}+*/%!&|<>='\"\\\\-]{0,40}|\\PC{0,30}") {
        came(&text, Type::Dyn);
    }
}

fn named(env: &Env, all: &[(&str, &str)]) -> Vec<Named> {
    let program = |text: &str| env.compile(text).map_err(|error| error.to_string());
    all.iter().map(|(name, text)| Named { name: (*name).to_owned(), program: program(text) }).collect()
}

#[test]
fn named_expressions_are_evaluated_once_when_they_are_asked_for() {
    let fields = ["a", "b", "bad", "worse"].map(|name| (name.to_owned(), Type::Dyn));
    let env =
        Env::new().with("x", Type::Int).with("variables", Type::Object(ObjectType::new("variables", fields)));
    let all =
        named(&env, &[("a", "x + 1"), ("b", "variables.a * 2"), ("bad", "x / 0"), ("worse", "nothing")]);
    let three = json!(3);
    let bindings = || Bindings::new().set("x", &three).compose(&all);
    let check = |text: &str, expect: &str| {
        let program = env.compile(text).unwrap_or_else(|error| panic!("{error}"));
        let came = program.evaluate(&bindings(), PER_CALL_LIMIT).result;
        let came = came
            .map_or_else(|error| error.to_string(), |value| value.to_json().unwrap_or_default().to_string());
        assert_eq!(came, expect, "{text}");
    };
    check("variables.b + variables.a", "12");
    check("true || variables.bad", "true");
    check("variables.bad", "composited variable \"bad\" fails to evaluate: division by zero");
    let worse = "composited variable \"worse\" fails to compile: ERROR: <input>:1:1: undeclared reference to 'nothing' (in container '')\n | nothing\n | ^";
    check("variables.worse", worse);
    let bindings = bindings();
    let program = env.compile("variables.b").expect("is valid");
    program.evaluate(&bindings, PER_CALL_LIMIT).result.expect("is evaluated");
    assert_ne!(bindings.take_cost(), 0);
    program.evaluate(&bindings, PER_CALL_LIMIT).result.expect("is kept");
    assert_eq!(bindings.take_cost(), 0);
}

#[test]
fn a_long_chain_of_named_expressions_does_not_end_the_stack() {
    const COUNT: usize = 2000;
    let names: Vec<String> = (0..COUNT).map(|index| format!("v{index}")).collect();
    let fields = names.iter().map(|name| (name.clone(), Type::Dyn));
    let env = Env::new().with("variables", Type::Object(ObjectType::new("variables", fields)));
    let text =
        |index: usize| if index == 0 { "1".to_owned() } else { format!("variables.v{} + 1", index - 1) };
    let texts: Vec<String> = (0..COUNT).map(text).collect();
    let all: Vec<(&str, &str)> =
        names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
    let all = named(&env, &all);
    let came = |name: &str| {
        let program = env.compile(&format!("variables.{name} > 0")).expect("is valid");
        program.evaluate(&Bindings::new().compose(&all), PER_CALL_LIMIT).result
    };
    assert!(came("v100").is_ok());
    assert!(came("v1999").is_err());
}

#[test]
fn changes_are_made_only_where_they_are_offered() {
    let came = |text: &str| match Env::new().with_patches().compile(text) {
        Ok(program) => {
            let result = program.evaluate(&Bindings::new(), PER_CALL_LIMIT).result;
            result.map_or_else(
                |error| error.to_string(),
                |value| value.to_json().unwrap_or_default().to_string(),
            )
        }
        Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    for (text, expect) in [
        ("Object{spec: Object.spec{replicas: 1, ?x: optional.none()}}", "{\"spec\":{\"replicas\":1}}"),
        ("Object{a: 1} == Object{a: 1} && Object{a: 1}.a == 1 && has(Object{a: 1}.a)", "true"),
        (
            "[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('x/y~'), value: 1}]",
            "[{\"op\":\"add\",\"path\":\"/a/x~1y~0\",\"value\":1}]",
        ),
        ("JSONPatch{operation: 'add'}", "ERROR: <input>:1:22: undefined field 'operation'"),
        ("Subject{}", "ERROR: <input>:1:8: undeclared reference to 'Subject' (in container '')"),
    ] {
        assert_eq!(came(text), expect, "{text}");
    }
    for text in ["Object{}", "jsonpatch.escapeKey('a')"] {
        assert!(Env::new().compile(text).is_err());
    }
}
