//! Completion indexes of an Indexed Job as its status writes them, `1,3-5,7`.

use std::ops::RangeInclusive;

/// Why a text names no indexes; the wording is upstream's (`validateIndexesFormat`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "the fragment {0:?} violates the requirement that an index interval can have at most two parts separated by '-'"
    )]
    Parts(String),
    #[error("cannot convert string to integer for index: {0:?}")]
    Number(String),
    #[error("too large index: {0:?}")]
    TooLarge(String),
    #[error("non-increasing order, previous: {previous}, current: {current}")]
    Order { previous: i64, current: i64 },
}

/// The intervals of a text, in increasing order and without overlap; all below `completions`.
pub fn parse(text: &str, completions: i64) -> Result<Vec<RangeInclusive<i64>>, Error> {
    let mut intervals: Vec<RangeInclusive<i64>> = Vec::new();
    for fragment in text.split(',').filter(|_| !text.is_empty()) {
        let interval = parse_interval(fragment, completions)?;
        if let Some(last) = intervals.last().filter(|last| last.end() >= interval.start()) {
            return Err(Error::Order { previous: *last.end(), current: *interval.start() });
        }
        intervals.push(interval);
    }
    Ok(intervals)
}

/// How many indexes there are.
pub fn count(intervals: &[RangeInclusive<i64>]) -> i64 {
    intervals.iter().map(|interval| interval.end() - interval.start() + 1).sum()
}

pub fn contains(intervals: &[RangeInclusive<i64>], index: i64) -> bool {
    let after = intervals.partition_point(|interval| *interval.end() < index);
    intervals.get(after).is_some_and(|interval| interval.contains(&index))
}

/// Writes increasing indexes with the fewest intervals; two neighbours are written one by one, as upstream does.
pub fn format(indexes: impl IntoIterator<Item = i64>) -> String {
    let mut intervals: Vec<RangeInclusive<i64>> = Vec::new();
    for index in indexes {
        match intervals.last_mut() {
            Some(last) if *last.end() + 1 == index => *last = *last.start()..=index,
            _ => intervals.push(index..=index),
        }
    }
    let text = |interval: &RangeInclusive<i64>| match interval.end() - interval.start() {
        0 => interval.start().to_string(),
        1 => format!("{},{}", interval.start(), interval.end()),
        _ => format!("{}-{}", interval.start(), interval.end()),
    };
    intervals.iter().map(text).collect::<Vec<_>>().join(",")
}

fn parse_interval(fragment: &str, completions: i64) -> Result<RangeInclusive<i64>, Error> {
    let number = |text: &str| {
        let number: i64 = text.parse().map_err(|_| Error::Number(text.to_owned()))?;
        if number >= completions { Err(Error::TooLarge(text.to_owned())) } else { Ok(number) }
    };
    match fragment.split('-').collect::<Vec<_>>().as_slice() {
        [one] => number(one).map(|one| one..=one),
        [first, last] => {
            let (first, last) = (number(first)?, number(last)?);
            if first >= last {
                return Err(Error::Order { previous: first, current: last });
            }
            Ok(first..=last)
        }
        _ => Err(Error::Parts(fragment.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_list_of_indexes_is_refused() {
        assert_eq!(parse("", 3), Ok(vec![]));
        assert_eq!(parse("0,2-4", 5), Ok(vec![0..=0, 2..=4]));
        assert_eq!(parse("1-2-3", 5), Err(Error::Parts("1-2-3".into())));
        assert_eq!(parse("a", 5), Err(Error::Number("a".into())));
        assert_eq!(parse("5", 5), Err(Error::TooLarge("5".into())));
        assert_eq!(parse("3,1", 5), Err(Error::Order { previous: 3, current: 1 }));
        assert_eq!(parse("3-3", 5), Err(Error::Order { previous: 3, current: 3 }));
    }

    proptest! {
        #[test]
        fn indexes_survive_being_written(indexes in prop::collection::btree_set(0_i64..60, 0..40)) {
            let text = format(indexes.iter().copied());
            let intervals = parse(&text, 60).expect("reads back");
            let again: BTreeSet<i64> = intervals.iter().cloned().flatten().collect();
            prop_assert_eq!(&again, &indexes);
            prop_assert_eq!(count(&intervals), i64::try_from(indexes.len()).expect("few"));
            for index in 0..60 {
                prop_assert_eq!(contains(&intervals, index), indexes.contains(&index));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9,\\-a ]{0,20}") {
            let _read = parse(&text, 100).is_ok();
        }
    }
}
