//! What readers have made of an entry and want to find again as long as the entry lasts.

use std::any::Any;
use std::fmt;
use std::sync::OnceLock;

/// One thing beside an entry: whatever whoever reads entries of its resource has agreed on with itself. It is made from
/// the entry, so it says nothing that the entry does not: entries are the same whatever is beside them.
#[derive(Default)]
pub struct Beside(OnceLock<Box<dyn Any + Send + Sync>>);

impl Beside {
    pub fn get<T: 'static>(&self) -> Option<&T> {
        self.0.get()?.downcast_ref()
    }

    /// Puts something there, unless there is something already. Returns what is there.
    pub fn keep<T: Send + Sync + 'static>(&self, thing: T) -> Option<&T> {
        self.0.get_or_init(|| Box::new(thing)).downcast_ref()
    }
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "Beside(..)" } else { "Beside" })
    }
}

impl PartialEq for Beside {
    fn eq(&self, _: &Beside) -> bool {
        true
    }
}

impl Eq for Beside {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_first_stays() {
        let beside = Beside::default();
        assert_eq!(beside.get::<u32>(), None);
        assert_eq!(beside.keep(1_u32), Some(&1));
        assert_eq!(beside.keep(2_u32), Some(&1));
        assert_eq!(beside.get::<u32>(), Some(&1));
        assert_eq!(beside.get::<String>(), None);
    }
}
