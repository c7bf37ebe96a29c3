//! What of an object somebody means to look at, so that the rest of its text is passed over.

use std::sync::LazyLock;

/// Fields of an object, or of each item of a list, and what is meant of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// In order of their names.
    named: Vec<(Box<str>, Shown)>,
    /// Whether all of the fields that are not named are meant.
    others: bool,
}

/// All there is.
pub static ALL: Shown = Shown { named: Vec::new(), others: true };

/// All but who owns which field: no built-in kind shows that, and it is often half of the text.
pub static ALL_BUT_MANAGED_FIELDS: LazyLock<Shown> = LazyLock::new(|| {
    let metadata = Shown { named: vec![("managedFields".into(), Shown::default())], others: true };
    Shown { named: vec![("metadata".into(), metadata)], others: true }
});

impl Shown {
    /// What these paths lead to; a path without a name leads to all of the object.
    pub fn of<P, N>(paths: P) -> Shown
    where
        P: IntoIterator<Item = N>,
        N: IntoIterator<Item: AsRef<str>>,
    {
        let mut shown = Shown::default();
        paths.into_iter().for_each(|path| shown.add(&mut path.into_iter()));
        shown
    }

    fn add(&mut self, path: &mut impl Iterator<Item: AsRef<str>>) {
        if self.is_all() {
            return;
        }
        let Some(name) = path.next() else {
            *self = ALL.clone();
            return;
        };
        let name = name.as_ref();
        let at = self.named.binary_search_by(|(field, _)| (**field).cmp(name)).unwrap_or_else(|at| {
            self.named.insert(at, (name.into(), Shown::default()));
            at
        });
        self.named[at].1.add(path);
    }

    pub fn is_all(&self) -> bool {
        self.others && self.named.is_empty()
    }

    fn is_nothing(&self) -> bool {
        !self.others && self.named.is_empty()
    }

    /// Whether no field is meant that comes after this name.
    pub fn ends_at(&self, name: impl AsRef<[u8]>) -> bool {
        !self.others && self.named.last().is_none_or(|(field, _)| field.as_bytes() <= name.as_ref())
    }

    /// What is meant of a field, if anything is.
    pub fn field(&self, name: impl AsRef<[u8]>) -> Option<&Shown> {
        let name = name.as_ref();
        match self.named.iter().find(|(field, _)| field.as_bytes() == name) {
            Some((_, below)) => Some(below).filter(|below| !below.is_nothing()),
            None => self.others.then_some(&ALL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_show_what_they_lead_to_and_nothing_beside_it() {
        let shown = Shown::of(["a.b", "a.c.d", "e", "e.f"].map(|path| path.split('.')));
        let below =
            |path: &[&str]| path.iter().try_fold(&shown, |shown, name| shown.field(name)).map(Shown::is_all);
        assert_eq!(below(&["a"]), Some(false));
        assert_eq!([below(&["a", "b"]), below(&["a", "c", "d"]), below(&["e", "g"])], [Some(true); 3]);
        assert_eq!([below(&["x"]), below(&["a", "x"]), below(&["a", "c", "x"])], [None; 3]);
        assert!(Shown::of([std::iter::empty::<&str>()]).is_all());
        assert_eq!(["d", "e", "f"].map(|name| shown.ends_at(name)), [false, true, true]);
        assert!(!ALL.ends_at("z"));
    }

    #[test]
    fn managed_fields_are_left_out_at_their_place_alone() {
        let metadata = ALL_BUT_MANAGED_FIELDS.field("metadata").expect("is shown");
        assert!(metadata.field("managedFields").is_none());
        assert!(metadata.field("labels").is_some_and(Shown::is_all));
        assert!(ALL_BUT_MANAGED_FIELDS.field("managedFields").is_some_and(Shown::is_all));
    }
}
