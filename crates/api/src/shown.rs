//! What of an object somebody means to look at, so that the rest of its text is passed over.

use std::sync::LazyLock;

use apimachinery::schema::Head;

/// Fields of an object, or of each item of a list, and what is meant of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// In order of their names.
    named: Vec<Named>,
    /// Whether all of the fields that are not named are meant.
    others: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    head: Head,
    name: Box<str>,
    below: Shown,
}

impl Named {
    fn new(name: &str, below: Shown) -> Named {
        Named { head: Head::of(name.as_bytes()), name: name.into(), below }
    }

    fn is(&self, name: &[u8], head: Head) -> bool {
        self.head == head && self.name.as_bytes() == name
    }
}

/// All there is.
pub static ALL: Shown = Shown { named: Vec::new(), others: true };

/// All but who owns which field: no built-in kind shows that, and it is often half of the text.
pub static ALL_BUT_MANAGED_FIELDS: LazyLock<Shown> = LazyLock::new(|| {
    let metadata = Shown { named: vec![Named::new("managedFields", Shown::default())], others: true };
    Shown { named: vec![Named::new("metadata", metadata)], others: true }
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
        let at = self.named.binary_search_by(|named| (*named.name).cmp(name)).unwrap_or_else(|at| {
            self.named.insert(at, Named::new(name, Shown::default()));
            at
        });
        self.named[at].below.add(path);
    }

    pub fn is_all(&self) -> bool {
        self.others && self.named.is_empty()
    }

    fn is_nothing(&self) -> bool {
        !self.others && self.named.is_empty()
    }

    /// Whether no field is meant that comes after the one of this name, which has this head.
    pub fn ends_at(&self, name: &[u8], head: Head) -> bool {
        let is_last = |last: &Named| last.head < head || last.head == head && last.name.as_bytes() <= name;
        !self.others && self.named.last().is_none_or(is_last)
    }

    /// What is meant of the field of this name, which has this head, if anything is.
    pub fn field(&self, name: &[u8], head: Head) -> Option<&Shown> {
        match self.named.iter().find(|named| named.is(name, head)) {
            Some(Named { below, .. }) => Some(below).filter(|below| !below.is_nothing()),
            None => self.others.then_some(&ALL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'s>(shown: &'s Shown, name: &str) -> Option<&'s Shown> {
        shown.field(name.as_bytes(), Head::of(name.as_bytes()))
    }

    #[test]
    fn paths_show_what_they_lead_to_and_nothing_beside_it() {
        let shown = Shown::of(["a.b", "a.c.d", "e", "e.f"].map(|path| path.split('.')));
        let below =
            |path: &[&str]| path.iter().try_fold(&shown, |shown, name| field(shown, name)).map(Shown::is_all);
        assert_eq!(below(&["a"]), Some(false));
        assert_eq!([below(&["a", "b"]), below(&["a", "c", "d"]), below(&["e", "g"])], [Some(true); 3]);
        assert_eq!([below(&["x"]), below(&["a", "x"]), below(&["a", "c", "x"])], [None; 3]);
        assert!(Shown::of([std::iter::empty::<&str>()]).is_all());
        let ends = |shown: &Shown, name: &str| shown.ends_at(name.as_bytes(), Head::of(name.as_bytes()));
        assert_eq!(["d", "e", "f"].map(|name| ends(&shown, name)), [false, true, true]);
        assert!(!ends(&ALL, "z"));
        let long = Shown::of([["managedFields"]]);
        assert_eq!(
            ["managed", "managedA", "managedFields", "managedG"].map(|name| ends(&long, name)),
            [false, false, true, true]
        );
    }

    #[test]
    fn managed_fields_are_left_out_at_their_place_alone() {
        let metadata = field(&ALL_BUT_MANAGED_FIELDS, "metadata").expect("is shown");
        assert!(field(metadata, "managedFields").is_none());
        assert!(field(metadata, "labels").is_some_and(Shown::is_all));
        assert!(field(&ALL_BUT_MANAGED_FIELDS, "managedFields").is_some_and(Shown::is_all));
    }
}
