//! The types of lists, maps and objects that are written out.

use std::sync::Arc;

use super::{Checker, Typed};
use crate::ast::Expr;
use crate::eval::Node;
use crate::types::{ObjectType, Type};
use crate::value::Val;

impl Checker<'_> {
    /// Elements of a literal have one type (upstream: `HomogeneousAggregateLiterals`).
    fn joined(&mut self, at: usize, known: &mut Type, got: Type) {
        if self.is_mixed {
            *known = Type::Dyn;
        } else if !self.assign(known, &got) {
            let (known, got) = (self.settled(known), self.settled(&got));
            self.issue(at, format!("expected type '{known}' but found '{got}'"));
        } else if self.settled(&got) == Type::Dyn {
            *known = Type::Dyn;
        }
    }

    fn unwrapped(&self, is_optional: bool, of: Type) -> Type {
        match (is_optional, self.settled(&of)) {
            (true, Type::Optional(inner)) => (*inner).clone(),
            (_, of) => of,
        }
    }

    pub(super) fn list(&mut self, items: &[(bool, Expr)]) -> Typed {
        let mut known = self.fresh();
        let mut nodes = Vec::new();
        for (is_optional, item) in items {
            let (node, of) = self.check(item);
            let of = self.unwrapped(*is_optional, of);
            self.joined(item.at, &mut known, of);
            nodes.push((*is_optional, node));
        }
        let of = Type::list(self.settled(&known));
        let constants: Option<Vec<Val<'static>>> = nodes
            .iter()
            .map(|(is_optional, node)| match node {
                Node::Const(value) if !is_optional => Some(value.clone()),
                _ => None,
            })
            .collect();
        match constants {
            Some(values) => (Node::Const(Val::list(values)), of),
            None => (Node::List(nodes), of),
        }
    }

    pub(super) fn map(&mut self, entries: &[(bool, Expr, Expr)]) -> Typed {
        let (mut keys, mut values) = (self.fresh(), self.fresh());
        let mut nodes = Vec::new();
        for (is_optional, key, value) in entries {
            let (key_node, key_type) = self.check(key);
            self.joined(key.at, &mut keys, key_type);
            let (node, of) = self.check(value);
            let of = self.unwrapped(*is_optional, of);
            self.joined(value.at, &mut values, of);
            nodes.push((*is_optional, key_node, node));
        }
        (Node::Map(nodes), Type::map(self.settled(&keys), self.settled(&values)))
    }

    pub(super) fn structure(&mut self, at: usize, name: &str, fields: &[(bool, String, Expr)]) -> Typed {
        let Some(object) = made(name).filter(|_| self.env.makes_patches()) else {
            return self.issue(at, format!("undeclared reference to '{name}' (in container '')"));
        };
        let mut nodes = Vec::new();
        for (is_optional, field, value) in fields {
            let (node, of) = self.check(value);
            let of = self.unwrapped(*is_optional, of);
            match object.field(field) {
                Some((name, wanted)) => {
                    if !self.assign(&wanted, &of) {
                        let of = self.settled(&of);
                        let why = format!(
                            "expected type of field '{field}' is '{wanted}' but provided type is '{of}'"
                        );
                        self.issue(value.at, why);
                    }
                    nodes.push((*is_optional, name, node));
                }
                None => drop(self.issue(value.at, format!("undefined field '{field}'"))),
            }
        }
        (Node::Struct(name.into(), nodes), Type::Object(object))
    }
}

/// The type of the name, if expressions can make objects of it. Follows upstream's `mutation.DynamicTypeResolver`.
fn made(name: &str) -> Option<Arc<ObjectType>> {
    if name == "JSONPatch" {
        let texts = ["op", "path", "from"].map(|field| (field.to_owned(), Type::String));
        return Some(ObjectType::new(name, texts.into_iter().chain([("value".to_owned(), Type::Dyn)])));
    }
    (name == "Object" || name.starts_with("Object.")).then(|| ObjectType::open(name))
}
