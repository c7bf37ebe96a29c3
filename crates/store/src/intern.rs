//! One allocation per distinct string: resources, namespaces and label texts repeat in every entry.

use std::collections::HashSet;
use std::sync::Arc;

/// Below this many strings a sweep is not worth its time.
const SWEEP_STRINGS_MIN: usize = 1024;

/// Shares equal strings. Strings nobody uses any more are swept out whenever the set has doubled.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    strings: HashSet<Arc<str>>,
    /// The size at which the next sweep happens.
    sweep_at: usize,
}

impl Interner {
    pub(crate) fn intern(&mut self, text: &Arc<str>) -> Arc<str> {
        if let Some(shared) = self.strings.get(text) {
            return shared.clone();
        }
        if self.strings.len() >= self.sweep_at.max(SWEEP_STRINGS_MIN) {
            self.strings.retain(|shared| Arc::strong_count(shared) > 1);
            self.sweep_at = self.strings.len() * 2;
        }
        self.strings.insert(text.clone());
        text.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_share_one_allocation() {
        let mut interner = Interner::default();
        let first = interner.intern(&"kube-system".into());
        let second = interner.intern(&"kube-system".into());
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn strings_nobody_uses_are_swept_out() {
        let mut interner = Interner::default();
        for n in 0..10 * SWEEP_STRINGS_MIN {
            interner.intern(&n.to_string().into());
        }
        assert!(interner.strings.len() <= SWEEP_STRINGS_MIN);
    }
}
