//! Lays a configuration over an object without anybody owning what it sets, as policies change objects. Follows
//! `mutating/patch.ApplyStructuredMergeDiff`.

use super::element::{Path, PathElement};
use super::manager::FieldManager;
use super::typed::{Shape, TypeRef, Typed};
use crate::Value;

impl FieldManager<'_> {
    /// The object with everything that the configuration says; the error says why it cannot be laid over it.
    pub fn lay_over(&self, object: &Value, configuration: &Value) -> Result<Value, String> {
        let (typed, root) = (self.typed(), self.root());
        let complaints = typed.complaints(root, configuration);
        let told = match &complaints[..] {
            [] => None,
            [one] => Some(one.clone()),
            many => Some(format!("errors:\n  {}", many.join("\n  "))),
        };
        if let Some(why) = told {
            return Err(format!("failed to convert patch object to typed object: {why}"));
        }
        let mut atomics = Vec::new();
        typed.find_atomics(root, configuration, &mut Path::default(), &mut atomics);
        if !atomics.is_empty() {
            let paths = atomics.join(", ");
            return Err(format!(
                "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {paths}"
            ));
        }
        Ok(typed.merge(root, object, configuration))
    }
}

impl Typed<'_> {
    /// Where the value has lists and objects that can only be taken as a whole: laid over others, they would wipe
    /// out what they do not mention.
    fn find_atomics(&self, ty: TypeRef, value: &Value, path: &mut Path, found: &mut Vec<String>) {
        let shape = self.shape(ty, value);
        match (shape, value) {
            (Shape::Leaf, Value::Object(_) | Value::Array(_)) => found.push(path.to_string()),
            (Shape::Struct(_) | Shape::Map(_), Value::Object(fields)) => {
                for (key, value) in fields {
                    path.0.push(PathElement::field(key));
                    self.find_atomics(shape.child(key), value, path, found);
                    path.0.pop();
                }
            }
            (Shape::List { item, .. }, Value::Array(items)) => {
                for (index, value) in (0..).zip(items) {
                    path.0.push(PathElement::Index(index));
                    self.find_atomics(item, value, path, found);
                    path.0.pop();
                }
            }
            _ => {}
        }
    }
}
